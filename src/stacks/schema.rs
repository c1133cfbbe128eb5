//! The public names of `heaptap/stacks/1`: extended, never renamed.

use crate::snapshot::schema::Target;
use serde::{Deserialize, Serialize};

/// The value of [`Stacks::schema`].
pub const SCHEMA: &str = "heaptap/stacks/1";

/// The stacks of all threads at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stacks {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Whose moment it is.
    pub target: Target,
    /// How long all threads were stopped.
    pub pause_ms: f64,
    /// Wall-clock time of the stop, seconds since 1970.
    pub taken_at: f64,
    /// Threads with the same frames, most threads first.
    pub groups: Vec<Group>,
    /// What was looked for and could not be had, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Threads that stand at the same place, by the same way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// The threads, by id.
    pub threads: Vec<Thread>,
    /// Their frames, the newest first; functions that were inlined have one each.
    pub frames: Vec<Frame>,
    /// Why there are no more frames, where the first function of the thread was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
}

/// One thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    /// Its id.
    pub tid: i32,
    /// Its name, where it still ran when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One frame, as far as it has names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// The function, demangled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Its source file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The function is part of the frame after it, into which the compiler put it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
    /// The module, as the target names its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The place in the module, by the addresses of its file: in the call instruction for callers, the next
    /// instruction else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The module's build id, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The next instruction of the frame in the process: behind the call for callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// How the frame was found: `registers`, `cfi`, `frame_pointer` or `convention`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
}
