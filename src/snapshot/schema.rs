//! The public names of `heaptap/snapshot/1`: extended, never renamed.
//!
//! Every field that a target cannot have is absent; readers take all of them as optional.

use crate::allocator::{Anomaly, Provenance};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The value of [`Summary::schema`].
pub const SCHEMA: &str = "heaptap/snapshot/1";

/// One moment of one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Whose moment it is.
    pub target: Target,
    /// How long all threads were stopped, as measured by heaptap; 0 for cores.
    pub pause_ms: f64,
    /// How often the target was stopped; above 1 when a stop caught the allocator at work.
    pub stops: u32,
    /// Wall-clock time of the stop, seconds since 1970.
    pub taken_at: f64,
    /// The allocators found, in address order of their modules.
    pub allocators: Vec<AllocatorSummary>,
    /// Heaps that were recognised and not walked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_heaps: Vec<OtherHeap>,
    /// What resident memory is used for; sums to `resident_bytes`.
    pub resident: Vec<ResidentRow>,
    /// The kernel's figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// What allocators hold that is in swap, and so in no row of `resident`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swapped_bytes: Option<u64>,
    /// What a random part of the live blocks of each class is, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<TypeRow>,
    /// Things that were looked for and could not be had, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Identity of the target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// `live`, `core` or `capture`.
    pub kind: String,
    /// Process id in heaptap's own namespace.
    pub pid: i32,
    /// The process's own name, as `ps` shows it; systems cut it short, Linux after 15 bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Executable as the target names it, with symbolic links followed.
    pub exe: String,
    /// `linux` or `freebsd`.
    pub os: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// Threads at the stop.
    pub threads: u32,
    /// Start time in clock ticks since boot: with `pid` and `boot_id` the identity of a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// The machine's boot id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Build id of the executable, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
}

/// One allocator's totals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllocatorSummary {
    /// As in `jemalloc`.
    pub name: String,
    /// As in `5.3.0`.
    pub version: String,
    /// How its layout was learnt.
    pub provenance: Provenance,
    /// The module that it lives in.
    #[serde(default)]
    pub module: String,
    /// Sentences on how it was found and proved.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// Every structure that should have been there was read.
    pub complete: bool,
    /// Where it was not, on which side of the truth the live counts are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_bound: Option<LiveBound>,
    /// The walk was complete, no invariant was broken and no counter differed.
    pub verified: bool,
    /// Structures whose invariants were checked.
    #[serde(default)]
    pub structures_checked: u64,
    /// Cells compared with the allocator's own counters.
    #[serde(default)]
    pub cells_compared: u64,
    /// Of those, how many differed.
    #[serde(default)]
    pub cells_differing: u64,
    /// Upper bound of blocks whose state was in motion at the stop.
    #[serde(default)]
    pub blocks_in_motion_max: u64,
    /// Contradictions met.
    pub anomalies: Vec<Anomaly>,
    /// Blocks in use by the program.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Blocks kept in thread caches.
    pub cached_blocks: u64,
    /// Their usable bytes.
    pub cached_bytes: u64,
    /// Blocks that the allocator handed out to itself (the stacks of thread caches): neither live nor cached.
    #[serde(default)]
    pub overhead_blocks: u64,
    /// Their usable bytes.
    #[serde(default)]
    pub overhead_bytes: u64,
    /// Thread caches found.
    #[serde(default)]
    pub thread_caches: u64,
    /// Resident bytes of the allocator's own records, as copied.
    pub metadata_bytes: u64,
    /// Address space that the allocator holds, resident or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address_space: Vec<AddressSpaceRow>,
    /// What the walk comes to in the allocator's own terms; for glibc the fields of `mallinfo2`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub own_figures: BTreeMap<String, u64>,
    /// Arenas.
    pub shards: Vec<Shard>,
}

/// How the live counts of a partial walk relate to the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LiveBound {
    /// Structures are missing: there may be more live blocks.
    Lower,
    /// Thread caches are missing: blocks in them count as live.
    Upper,
    /// Both are missing: there may be more live blocks, or fewer.
    Neither,
}

impl LiveBound {
    /// What is missing and what that makes of the counts, to follow the name of what is counted.
    pub const fn describe(bound: Option<Self>) -> &'static str {
        match bound {
            Some(Self::Lower) => "not every structure could be read, so its counts are lower bounds",
            Some(Self::Upper) => {
                "thread caches were not found and blocks in them count as live, so its live counts are upper bounds"
            }
            Some(Self::Neither) => {
                "neither every structure nor the thread caches were found: its counts may be too low or too high"
            }
            None => "not every structure could be read: its counts may be wrong",
        }
    }
}

/// One arena.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shard {
    /// The allocator's number of it.
    pub id: u32,
    /// Size classes with at least one run or block, ascending; large blocks that have a class stand here too.
    pub classes: Vec<ClassRow>,
    /// Blocks outside of runs, in use by the program.
    pub large_blocks: u64,
    /// Their usable bytes.
    pub large_bytes: u64,
}

/// One size class of one arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassRow {
    /// Usable bytes of a block.
    pub size_bytes: u64,
    /// Blocks in use by the program.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Blocks kept in thread caches.
    pub cached_blocks: u64,
    /// Blocks that the allocator handed out to itself; with the two counts above this is what its own
    /// statistics call in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub overhead_blocks: u64,
    /// Runs (slabs); 0 for a class of large blocks.
    pub runs: u64,
    /// Bytes of those runs, or bytes held for the large blocks.
    pub run_bytes: u64,
}

/// Blocks of one type and class among those that were read. No byte of them is kept, only the name of the type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeRow {
    /// Index in `allocators`.
    pub allocator: u32,
    /// The size class.
    pub size_bytes: u64,
    /// Live blocks of the class.
    pub live_blocks: u64,
    /// Of those, how many were read: all, or a random part.
    pub read_blocks: u64,
    /// The type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Of the blocks that were read, how many have it.
    pub blocks: u64,
}

impl TypeRow {
    /// Live blocks of the type, and the standard error of that.
    pub fn estimate(&self) -> (f64, f64) {
        if self.read_blocks == 0 {
            return (0.0, 0.0);
        }
        let (live, read) = (self.live_blocks as f64, self.read_blocks as f64);
        let part = self.blocks as f64 / read;
        // Of a class that was read as a whole nothing is uncertain.
        let unread = (1.0 - read / live.max(read)).max(0.0);
        let spread = (part * (1.0 - part)).max(1.0 / read) / read;
        (live * part, live * (spread * unread).sqrt())
    }
}

/// One use of address space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSpaceRow {
    /// `in_use` (runs and large blocks, with what is free in them), `dirty`, `muzzy`, `retained`, `metadata`.
    pub kind: String,
    /// Bytes of address space.
    pub bytes: u64,
}

/// A heap that was recognised and not walked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtherHeap {
    /// What it is, as in `Go heap`.
    pub name: String,
    /// Its row in `resident`, as in `go_heap`.
    pub kind: String,
    /// File name of the module that it belongs to.
    pub module: String,
    /// How it was recognised and its memory found; a sentence.
    pub evidence: String,
    /// Bytes of address space known to be its; 0 where that could not be told.
    pub bytes: u64,
}

/// One use of resident memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentRow {
    /// `live`, `cached`, `free_in_slabs`, `dirty`, `muzzy`, `retained`, `metadata`, `stacks`, `mapped_files`,
    /// `shared`, the `kind` of another heap, `other_anonymous`, `undivided`, `unexplained`.
    pub kind: String,
    /// Resident bytes. Only `unexplained` may be negative: pages that came or went while they were counted, and
    /// what the kernel's counters had not booked yet.
    pub bytes: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}
