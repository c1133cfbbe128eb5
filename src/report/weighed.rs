//! Stacks with what they hold, as flame graphs and pprof take them: neutral between a recording and an allocator's own
//! profile.

use super::page::harmless;
use crate::stacks::schema::Frame;

/// What one stack has made.
#[derive(Debug, Clone, PartialEq)]
pub struct WeighedStack<'a> {
    /// Its frames, the newest first.
    pub frames: &'a [Frame],
    /// Bytes, or bytes grown.
    pub bytes: i64,
    /// Blocks, or blocks grown.
    pub blocks: i64,
    /// What tells it from others with the same frames.
    pub labels: Vec<(&'static str, Label)>,
}

/// The value of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// A word.
    Text(String),
    /// A number without unit.
    Number(i64),
    /// A number of bytes.
    Bytes(i64),
}

/// What a flame graph calls a frame: its function, else its place.
pub fn frame_label(frame: &Frame) -> String {
    let place = || match (&frame.module, frame.offset) {
        (Some(module), Some(offset)) => format!("{}+{offset:#x}", file_name(module)),
        _ => frame.address.map_or_else(|| "?".to_owned(), |address| format!("{address:#x}")),
    };
    harmless(&frame.function.clone().unwrap_or_else(place)).replace(';', ":")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
