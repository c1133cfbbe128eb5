//! The public names of `heaptap/profile/1`: extended, never renamed.

use crate::snapshot::schema::Target;
use crate::stacks::schema::Frame;
use serde::{Deserialize, Serialize};

/// The value of [`Profile::schema`].
pub const SCHEMA: &str = "heaptap/profile/1";

/// What an allocator itself has sampled of the blocks in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Whose moment it is.
    pub target: Target,
    /// How long all threads were stopped.
    pub pause_ms: f64,
    /// Wall-clock time of the stop, seconds since 1970.
    pub taken_at: f64,
    /// The allocator.
    pub allocator: String,
    /// Its version.
    pub version: String,
    /// Bytes that are allocated between two samples on the average; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_bytes: Option<u64>,
    /// Blocks in use that were sampled.
    pub sampled_blocks: u64,
    /// Their usable bytes.
    pub sampled_bytes: u64,
    /// Blocks in use that those stand for.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Counters of the profiler that were compared with the blocks found.
    pub counters_compared: u64,
    /// Of those, how many differed.
    pub counters_differing: u64,
    /// Who allocated, most bytes first.
    pub sites: Vec<Site>,
    /// What was looked for and could not be had, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Blocks in use that one stack allocated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// 1 for most bytes.
    pub rank: u32,
    /// Bytes in use, as estimated from the sampled ones.
    pub live_bytes: u64,
    /// Blocks, likewise.
    pub live_blocks: u64,
    /// Part of all bytes, 0 to 1.
    pub share: f64,
    /// Usable bytes of the sampled blocks.
    pub sampled_bytes: u64,
    /// Sampled blocks.
    pub sampled_blocks: u64,
    /// The same by size class.
    pub classes: Vec<ClassRow>,
    /// The arenas that hold them.
    pub shards: Vec<u32>,
    /// Some of the sampled blocks.
    pub addresses: Vec<u64>,
    /// The stack that the allocator kept, the newest frame first; its own functions may stand first.
    pub frames: Vec<Frame>,
}

/// Blocks of one size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassRow {
    /// Usable bytes of a block.
    pub size_bytes: u64,
    /// Blocks in use that those stand for.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Sampled blocks.
    pub sampled_blocks: u64,
}
