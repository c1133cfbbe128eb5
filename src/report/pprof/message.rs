//! The messages of a pprof profile: `proto/profile.proto` of google/pprof, the fields that heaptap writes.

use prost::Message;

/// A whole profile. Strings are indices into `string_table`, whose first one is empty.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What the values of each sample are.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// The stacks.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// The modules.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// The places.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// The functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All strings.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// When the profile was taken, nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it took.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What lies between two samples.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Sentences.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// Which value is shown unless asked otherwise.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// The meaning of a value.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ValueType {
    /// Its name.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Its unit.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// One stack.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sample {
    /// Its places, the newest first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One for each of `sample_type`.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// What tells it from others.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A name and a value: text, or a number.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Label {
    /// The name.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Text.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// A number.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// Its unit.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A module.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mapping {
    /// From 1 on.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// Behind the last one.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Where in the file the first address is.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// The file.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Its build id, hexadecimal.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Its places have names.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// And source files.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// And lines.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// And inlined functions.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A place.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Location {
    /// From 1 on.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its module; 0 for none.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// Its address in the process.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Its functions: those that were inlined first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A function at a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Line {
    /// Which one.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Where in its file.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Function {
    /// From 1 on.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name, demangled.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Its name as the linker has it; heaptap keeps the demangled one alone.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Its source file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
}
