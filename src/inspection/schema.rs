//! The public names of `heaptap/block/1`: extended, never renamed.

use crate::content::Evidence;
use crate::snapshot::schema::Target;
use crate::stacks::schema::Thread;
use serde::{Deserialize, Serialize};

/// The value of [`Inspection::schema`].
pub const SCHEMA: &str = "heaptap/block/1";

/// What lies at one address, or what some blocks of one size class look like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inspection {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Whose memory it is.
    pub target: Target,
    /// How long all threads were stopped, the longest stop if there were several.
    pub pause_ms: f64,
    /// How often.
    pub stops: u32,
    /// Wall-clock time of the stop, seconds since 1970.
    pub taken_at: f64,
    /// What is at an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Memory at and around the address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// Words elsewhere that point into the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referrers: Option<Referrers>,
    /// Blocks of one class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// What was looked for and could not be had, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// What an address is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The address.
    pub address: u64,
    /// `block`, `stack`, `module`, `allocator` (held by one, but in no block), `mapping` or `unmapped`.
    pub kind: String,
    /// The same in words.
    pub what: String,
    /// The block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// Name of the allocator that holds the address, also where it is in no block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator: Option<String>,
    /// The block before, and the one behind, of the same allocator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Block>,
    /// See `before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Block>,
    /// Whose stack it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
    /// The module's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The address in the module's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The symbol, with the distance from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Start of the mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_start: Option<u64>,
    /// End of the mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_end: Option<u64>,
}

/// A block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Block {
    /// Where it begins.
    pub address: u64,
    /// Bytes that the program may use.
    pub usable_bytes: u64,
    /// Its size class, 0 for large blocks that have none.
    pub size_bytes: u64,
    /// The arena.
    pub shard: u32,
    /// `live`, `cached`, `free` or `overhead` (the allocator's own).
    pub state: String,
    /// What it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// What tells so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_by: Option<Evidence>,
    /// Where its run begins, for blocks in runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_address: Option<u64>,
    /// Its number in the run, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_index: Option<u32>,
    /// Blocks of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_blocks: Option<u32>,
    /// Of those, how many are live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_live_blocks: Option<u32>,
}

/// A word of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Word {
    /// Where it is.
    pub address: u64,
    /// Its value.
    pub value: u64,
    /// What it points to, if it is a pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points_to: Option<String>,
}

/// Who points into a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Referrers {
    /// Bytes that were searched.
    pub searched_bytes: u64,
    /// Whether that was all writable memory, and all that were found are listed.
    pub complete: bool,
    /// Those found, in address order.
    pub words: Vec<Referrer>,
}

/// A word that points into the block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Referrer {
    /// Where the word is.
    pub address: u64,
    /// How far into the block it points.
    pub offset_bytes: u64,
    /// What holds the word.
    pub holder: String,
    /// What the reference says the block is: the value behind a Rust trait object.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
}

/// Some blocks of a class, chosen at random.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The size class.
    pub size_bytes: u64,
    /// The arena, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
    /// The snapshot since which they are new, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_since: Option<String>,
    /// What chose them: the same seed chooses the same blocks of the same heap.
    pub seed: u64,
    /// Blocks to choose from.
    pub live_blocks: u64,
    /// Blocks whose type was looked at: as many as `live_blocks`, or a random part.
    pub read_blocks: u64,
    /// Types of those, most blocks first.
    pub types: Vec<TypeCount>,
    /// What the listed blocks have in common, word by word.
    pub common: Vec<CommonWord>,
    /// The listed blocks.
    pub blocks: Vec<SampledBlock>,
}

/// A type and how many blocks have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeCount {
    /// What they are.
    #[serde(rename = "type")]
    pub type_name: String,
    /// What tells so.
    pub type_by: Evidence,
    /// Blocks, of those that were read.
    pub blocks: u64,
}

/// One word of the listed blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommonWord {
    /// Where in a block.
    pub offset_bytes: u64,
    /// The most frequent value.
    pub value: u64,
    /// How many of the listed blocks have it.
    pub equal_blocks: u64,
    /// What it points to, if it is a pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points_to: Option<String>,
}

/// One of the listed blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampledBlock {
    /// The block.
    pub block: Block,
    /// Its first words.
    pub words: Vec<Word>,
}
