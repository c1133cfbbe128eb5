//! The public names of `heaptap/recording/1`: extended, never renamed.

use crate::growth::Growth;
use crate::snapshot::schema::Target;
use crate::stacks::schema::Frame;
use serde::{Deserialize, Serialize};

/// The value of [`Recording::schema`].
pub const SCHEMA: &str = "heaptap/recording/1";

/// What grew while it was recorded, and which stacks made it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recording {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Whose heap it is.
    pub target: Target,
    /// When it began, seconds since 1970.
    pub taken_at: f64,
    /// How allocations were sampled.
    pub sampler: String,
    /// Allocations sampled.
    pub samples: u64,
    /// Stacks that differ.
    pub stacks: u64,
    /// Length of the recording.
    pub seconds: f64,
    /// What it cost the target.
    pub cost: Cost,
    /// Exact growth, by size class.
    pub growth: Growth,
    /// Who made it, most bytes first.
    pub sites: Vec<Site>,
    /// Bytes grown that no site is found for: the growth of all classes that grew, less that of `sites`.
    pub unattributed_bytes: i64,
    /// What was taken off, where this is the difference of two recordings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
}

/// The recording that another one is compared with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Base {
    /// What the user named.
    pub source: String,
    /// Its length.
    pub seconds: f64,
    /// What its growth was multiplied by, so that both are of the same length.
    pub scale: f64,
    /// Its growth, not multiplied.
    pub total_delta_bytes: i64,
}

/// What a recording cost the target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Time that hits took of its threads, as a part of one core: `hits` times `hit_cost_us`.
    pub target_cpu_fraction: f64,
    /// Hits of breakpoints.
    pub hits: u64,
    /// What one hit costs on this machine, measured by heaptap on itself.
    pub hit_cost_us: f64,
    /// Hits that were neither an allocation nor a free, or could not be told.
    pub unknown_hits: u64,
}

/// Growth of one class and type, made by one stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// 1 for most bytes.
    pub rank: u32,
    /// Bytes grown.
    pub delta_bytes: i64,
    /// Blocks grown.
    pub delta_blocks: i64,
    /// Part of the growth of its size class, 0 to 1.
    pub share: f64,
    /// Lower end of its 95 % interval.
    pub share_low: f64,
    /// Upper end.
    pub share_high: f64,
    /// The allocator, where blocks of it stayed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub allocator: String,
    /// The arenas of the sampled blocks that stayed.
    pub shards: Vec<u32>,
    /// The size class.
    pub size_bytes: u64,
    /// What the blocks are: the kinds of their first words.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Samples of this stack in the class.
    pub samples: u32,
    /// The part of those that stayed, of the ones old enough to be judged.
    pub stay_ratio: f64,
    /// Names of the threads that allocated.
    pub threads: Vec<String>,
    /// Some of the blocks that were sampled; not all are still there.
    pub addresses: Vec<u64>,
    /// The stack, the newest frame first.
    pub frames: Vec<Frame>,
}
