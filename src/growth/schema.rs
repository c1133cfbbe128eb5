//! The public names of `heaptap/growth/1`: extended, never renamed.

use serde::{Deserialize, Serialize};

/// The value of [`Growth::schema`].
pub const SCHEMA: &str = "heaptap/growth/1";

/// What changed between the first and the last of two or more moments of one process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Growth {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The first moment.
    pub from: Moment,
    /// The last moment.
    pub to: Moment,
    /// Moments between the first and the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<Moment>,
    /// One row per allocator, shard and size class that has blocks in any moment, in the order asked for.
    pub rows: Vec<Row>,
    /// Large blocks that are new or have grown in place, most growth first, as many as were asked for. They
    /// are counted in `rows` already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub large_blocks: Vec<Row>,
    /// Sum of `delta_bytes` over all rows; equals the difference of the two moments' live bytes.
    pub total_delta_bytes: i64,
    /// Sum of `delta_blocks` over all rows.
    pub total_delta_blocks: i64,
    /// Change of each use of resident memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resident: Vec<ResidentDelta>,
    /// Change of the kernel's figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_delta_bytes: Option<i64>,
    /// Growth by type, estimated from random blocks of each class, most bytes first; where both moments were taken with types.
    /// It is counted in `rows` already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<TypeGrowth>,
    /// What limits the comparison, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One of the moments compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moment {
    /// What the user named: a file or a process id.
    pub source: String,
    /// Process id.
    pub pid: i32,
    /// Seconds since 1970.
    pub taken_at: f64,
    /// Pause of the target for this moment.
    pub pause_ms: f64,
    /// Live bytes of all allocators.
    pub live_bytes: u64,
    /// Live blocks of all allocators.
    pub live_blocks: u64,
}

/// Growth of one cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Name of the allocator.
    pub allocator: String,
    /// The arena, or absent in rows that join all arenas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
    /// Size class in usable bytes, 0 for large blocks that have no class; for a single large block its usable
    /// bytes.
    pub size_bytes: u64,
    /// The row speaks of one large block, at this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// What the blocks are, where known.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// Live blocks, last minus first.
    pub delta_blocks: i64,
    /// Live bytes, last minus first.
    pub delta_bytes: i64,
    /// Live blocks in the last moment.
    pub live_blocks: u64,
    /// Live bytes in the last moment.
    pub live_bytes: u64,
    /// Blocks live in the last moment whose place was not live in the first: at least so many are new.
    /// Absent, like the next two, where places cannot be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub born_blocks: Option<u64>,
    /// Blocks live in the first moment whose place is not live in the last: at least so many are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub died_blocks: Option<u64>,
    /// Blocks live in both at the same place: at most so many are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stayed_blocks: Option<u64>,
    /// With three or more moments: least-squares slope of live bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slope_bytes_per_s: Option<f64>,
    /// With three or more moments: half width of the slope's 95 % interval; absent where the moments are too
    /// few or too much alike in their errors to give one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slope_error_bytes_per_s: Option<f64>,
    /// With three or more moments: whether the row grows steadily rather than wobbles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steady: Option<bool>,
}

/// Growth of the blocks of one class and type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeGrowth {
    /// Name of the allocator.
    pub allocator: String,
    /// The size class.
    pub size_bytes: u64,
    /// The type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Live blocks, last minus first, estimated.
    pub delta_blocks: i64,
    /// Half width of its 95 % interval; 0 where all blocks of the class were read at both moments.
    pub delta_blocks_error: f64,
    /// `delta_blocks` in bytes.
    pub delta_bytes: i64,
}

/// Change of one use of resident memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentDelta {
    /// As in the snapshot's `resident`.
    pub kind: String,
    /// Last minus first.
    pub delta_bytes: i64,
}
