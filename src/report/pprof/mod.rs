//! pprof: the profile that `go tool pprof`, Pyroscope and others read, compressed with gzip.

mod message;

use super::weighed::{Label, WeighedStack};
use crate::stacks::schema::Frame;
use flate2::{Compression, write::GzEncoder};
use message::{Function, Line, Location, Mapping, Profile, Sample, ValueType};
use prost::Message;
use std::collections::HashMap;
use std::io::{self, Write};

/// Modules begin at multiples of this.
const PAGE_BYTES: u64 = 4096;

/// What is said of a profile as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// When it was taken, seconds since 1970.
    pub taken_at: f64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that were allocated between two samples on the average; 0 where that is not how samples were taken.
    pub period_bytes: u64,
    /// The program's own file: readers take the first module for the program.
    pub program: String,
    /// Sentences.
    pub comments: Vec<String>,
}

/// Writes a profile with the values `inuse_objects` and `inuse_space`.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut dyn Write, stacks: &[WeighedStack<'_>], about: &About) -> io::Result<()> {
    let mut compressed = GzEncoder::new(out, Compression::default());
    compressed.write_all(&profile(stacks, about).encode_to_vec())?;
    compressed.finish()?.flush()
}

fn profile(stacks: &[WeighedStack<'_>], about: &About) -> Profile {
    let mut tables = Tables::default();
    tables.string("");
    let objects = ValueType { r#type: tables.string("inuse_objects"), unit: tables.string("count") };
    let space = ValueType { r#type: tables.string("inuse_space"), unit: tables.string("bytes") };
    let mut frames = stacks.iter().flat_map(|stack| stack.frames);
    if let Some(frame) = frames.find(|frame| frame.module.as_deref() == Some(&about.program)) {
        tables.mapping(&[], frame);
    }
    let sample: Vec<Sample> = stacks.iter().map(|stack| tables.sample(stack)).collect();
    let comment = about.comments.iter().map(|sentence| tables.string(sentence)).collect();
    let period_type = Some(ValueType { r#type: tables.string("space"), unit: tables.string("bytes") });
    Profile {
        sample_type: vec![objects, space],
        sample,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
        time_nanos: (about.taken_at * 1e9) as i64,
        duration_nanos: (about.seconds * 1e9) as i64,
        period_type,
        period: i64::try_from(about.period_bytes).unwrap_or(i64::MAX),
        comment,
        default_sample_type: space.r#type,
    }
}

/// Everything that is written once and referred to by number.
#[derive(Debug, Default)]
struct Tables {
    strings: Vec<String>,
    string_ids: HashMap<String, i64>,
    functions: Vec<Function>,
    function_ids: HashMap<(i64, i64), u64>,
    mappings: Vec<Mapping>,
    mapping_ids: HashMap<(i64, u64), u64>,
    locations: Vec<Location>,
    location_ids: HashMap<Location, u64>,
}

impl Tables {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(&id) = self.string_ids.get(text) {
            return id;
        }
        let id = i64::try_from(self.strings.len()).unwrap_or(0);
        self.strings.push(text.to_owned());
        self.string_ids.insert(text.to_owned(), id);
        id
    }

    fn sample(&mut self, stack: &WeighedStack<'_>) -> Sample {
        let mut location_id = Vec::new();
        let mut rest = stack.frames;
        while !rest.is_empty() {
            // Inlined functions stand before the one that they are part of, and are at the same place.
            let inlined = rest.iter().take_while(|frame| frame.inlined).count();
            let (place, older) = rest.split_at((inlined + 1).min(rest.len()));
            location_id.push(self.location(place));
            rest = older;
        }
        let label = stack.labels.iter().map(|(key, value)| self.label(key, value)).collect();
        Sample { location_id, value: vec![stack.blocks, stack.bytes], label }
    }

    fn label(&mut self, key: &str, value: &Label) -> message::Label {
        let key = self.string(key);
        let none = message::Label { key, str: 0, num: 0, num_unit: 0 };
        match value {
            Label::Text(text) => message::Label { str: self.string(text), ..none },
            Label::Number(number) => message::Label { num: *number, ..none },
            Label::Bytes(bytes) => message::Label { num: *bytes, num_unit: self.string("bytes"), ..none },
        }
    }

    /// One place with its functions.
    fn location(&mut self, frames: &[Frame]) -> u64 {
        let Some(outermost) = frames.last() else { return 0 };
        let mapping_id = self.mapping(frames, outermost);
        let line: Vec<Line> = frames.iter().filter_map(|frame| self.line(frame)).collect();
        // The address behind a call may belong to another line: readers of the format expect one in the call.
        let address = outermost.address.map_or(0, |address| address.saturating_sub(1));
        let nameless = Location { id: 0, mapping_id, address, line };
        if let Some(&id) = self.location_ids.get(&nameless) {
            return id;
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.push(Location { id, ..nameless.clone() });
        self.location_ids.insert(nameless, id);
        id
    }

    fn line(&mut self, frame: &Frame) -> Option<Line> {
        let name = self.string(frame.function.as_deref()?);
        let filename = self.string(frame.file.as_deref().unwrap_or_default());
        let next = self.functions.len() as u64 + 1;
        let id = *self.function_ids.entry((name, filename)).or_insert(next);
        if id == next {
            self.functions.push(Function { id, name, system_name: name, filename });
        }
        Some(Line { function_id: id, line: frame.line.map_or(0, i64::from) })
    }

    /// The module of a place: a frame tells where its file's address 0 lies, and so where the module begins.
    fn mapping(&mut self, frames: &[Frame], frame: &Frame) -> u64 {
        let (Some(module), Some(offset), Some(address)) = (&frame.module, frame.offset, frame.address) else {
            return 0;
        };
        let start = address.wrapping_sub(offset) & !(PAGE_BYTES - 1);
        let filename = self.string(module);
        let build_id = self.string(frame.build_id.as_deref().unwrap_or_default());
        let next = self.mappings.len() as u64 + 1;
        let id = *self.mapping_ids.entry((filename, start)).or_insert(next);
        if id == next {
            let mapping = Mapping { id, memory_start: start, filename, build_id, ..Mapping::default() };
            self.mappings.push(mapping);
        }
        if let Some(mapping) = usize::try_from(id - 1).ok().and_then(|index| self.mappings.get_mut(index)) {
            let end = address.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
            mapping.memory_limit = mapping.memory_limit.max(end);
            mapping.has_functions |= frames.iter().any(|frame| frame.function.is_some());
            mapping.has_filenames |= frames.iter().any(|frame| frame.file.is_some());
            mapping.has_line_numbers |= frames.iter().any(|frame| frame.line.is_some());
            mapping.has_inline_frames |= frames.iter().any(|frame| frame.inlined);
        }
        id
    }
}
