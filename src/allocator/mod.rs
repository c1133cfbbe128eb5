//! Allocators as the rest of heaptap sees them: blocks in runs, large blocks, claims on address space.
//!
//! The words here are neutral; inside an allocator's folder its own words are used. An [`Allocator`] reads
//! nothing but a [`Memory`]; a walk never fails, it returns what it found and what was wrong with it.

pub mod address_space;
pub mod anomalies;
pub mod block;
pub mod claim;
pub mod glibc;
pub mod jemalloc;
pub mod jemalloc4;
pub mod known;
pub mod mimalloc;
pub mod own_profile;
pub mod pymalloc;
pub mod records;
pub mod tcmalloc;
pub mod writable_data;

pub use address_space::AddressSpace;
pub use anomalies::{Anomalies, Anomaly};
pub use block::{Block, Run, RunClass, Sink};
pub use claim::{Claim, ClaimKind};
pub use own_profile::{OwnProfile, SampledBlock, SampledStack};
pub use writable_data::Data;

use self::records::RecordMap;
use crate::memory::Memory;
use heaptap_platform::AddressRange;

/// How the layout of an allocator's structures was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// From the target's own debug information.
    Dwarf,
    /// Roots from the symbol table, offsets from the table of its version.
    Symbols,
    /// Roots found by the shape of the structures, offsets from the table of its version.
    Probed,
}

/// What a walk says about itself besides the blocks that it delivered.
#[derive(Debug, Clone, Default)]
pub struct WalkOutcome {
    /// Address space that the allocator holds, each byte at most once.
    pub claims: Vec<Claim>,
    /// Contradictions met, each kind once with its count.
    pub anomalies: Vec<Anomaly>,
    /// Every structure that should have been there was read; whether thread caches were is told apart.
    pub complete: bool,
    /// Thread caches may exist that were not found: the blocks in them were delivered as live.
    pub caches_unknown: bool,
    /// Structures whose invariants were checked.
    pub structures_checked: u64,
    /// Of those, how many broke one; their blocks were not delivered.
    pub structures_broken: u64,
    /// Free address space that was on its way from one state to another.
    pub extents_in_transit: u64,
    /// Locks of runs' lists that were held at the stop.
    pub locked_bins: u64,
    /// Thread caches found.
    pub thread_caches: u64,
    /// What limits the result, as sentences.
    pub notes: Vec<String>,
    /// Cells (shard and size class) compared with the allocator's own counters, where it keeps any.
    pub cells_compared: u64,
    /// Cells that differed.
    pub cells_differing: u64,
    /// Upper bound of the blocks whose state was in motion when the target stopped; 0 = none.
    pub blocks_in_motion_max: u64,
    /// Classes of runs, by their index in [`Run::class`].
    pub run_classes: Vec<RunClass>,
    /// Shards (arenas) that exist, also those that hold nothing.
    pub shards: Vec<u32>,
    /// Blocks that the allocator handed out to itself, as its thread caches' stacks: in use by its own records,
    /// not by the program. They are delivered to the sink as neither live nor cached.
    pub overhead: Vec<Overhead>,
    /// Bytes of header that stand before each block and belong to nobody else; 0 where there are none.
    pub block_header_bytes: u64,
    /// Bytes of the allocator's own records, where they are not simply what was copied.
    pub metadata_bytes: Option<u64>,
    /// What the walk comes to in the allocator's own terms, as its own statistics would name it.
    pub own_figures: Vec<(&'static str, u64)>,
    /// Bytes in use by the allocator's own definition, where it keeps such a counter per extent: pages of
    /// active extents.
    pub active_bytes: u64,
}

/// A block that serves the allocator itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overhead {
    /// Its address.
    pub address: u64,
    /// Its usable bytes.
    pub usable_bytes: u64,
    /// The size class that the statistics count it in.
    pub class_bytes: u64,
    /// The shard that owns it.
    pub shard: u32,
    /// What it serves.
    pub what: &'static str,
}

/// An allocator found in a target, with its layout resolved: it can be walked.
pub trait Allocator: std::fmt::Debug + Send + Sync {
    /// What it is called, as in `jemalloc`.
    fn name(&self) -> &'static str;
    /// Its version as far as known, as in `5.3.0`.
    fn version(&self) -> String;
    /// How its layout was learnt.
    fn provenance(&self) -> Provenance;
    /// Sentences on how it was found and proved, for `info`.
    fn evidence(&self) -> Vec<String>;
    /// The module that it lives in.
    fn module(&self) -> &str;
    /// Whether thread caches can be found only by the threads' own registers, which a stop must show first.
    fn needs_thread_pointers(&self, memory: &dyn Memory) -> bool;
    /// Learns from the registers of stopped threads where each keeps its cache.
    fn learn_threads(&mut self, memory: &dyn Memory, threads: &[ThreadPointer]);
    /// The ranges of metadata that a walk of `memory` reads, as far as `memory` shows them.
    ///
    /// Reading those ranges may reveal further ones: callers repeat until nothing new is named.
    fn metadata(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange>;
    /// The part of [`Allocator::metadata`] that is mostly users' bytes. Where it is too much for a stop it is read
    /// before and after, and compared.
    fn bulk(&self, _memory: &dyn Memory) -> Vec<AddressRange> {
        Vec::new()
    }
    /// What must be read in the stop where the bulk is not.
    fn essentials(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange> {
        self.metadata(memory, threads)
    }
    /// Where in its bulk its records lie.
    fn records(&self, _memory: &dyn Memory, _threads: &[ThreadPointer]) -> RecordMap {
        RecordMap::default()
    }
    /// Whether those ranges hold the program's own data too, since the records lie among the blocks.
    fn records_hold_data(&self) -> bool {
        false
    }
    /// Words of threads' caches that tell allocations and frees of one class by one thread; none where the allocator
    /// has none that can be told from outside.
    fn cache_heads(&self, _memory: &dyn Memory, _threads: &[ThreadPointer]) -> Vec<CacheHead> {
        Vec::new()
    }
    /// The size class of a block, by what stands at it or near it while the target runs: a guess for blocks that were just handed
    /// out. `None` where only a walk tells.
    fn class_of(&self, _memory: &dyn Memory, _block: u64) -> Option<u64> {
        None
    }
    /// Makes what the allocator's own profiler keeps a part of [`Allocator::metadata`].
    fn include_profile(&mut self) {}
    /// The blocks in use that the allocator itself has sampled, with the stacks that it kept of them; `None` where it is
    /// none that does. `memory` must hold what [`Allocator::include_profile`] asks for.
    fn profile(&self, _memory: &dyn Memory, _threads: &[ThreadPointer]) -> Option<OwnProfile> {
        None
    }
    /// Words of 32 bits that are not zero while the allocator changes its records.
    fn lock_words(&self, memory: &dyn Memory) -> Vec<u64>;
    /// Whether a thread is where the allocator changes its records without a lock; then a stop is to be tried anew.
    fn is_at_work(&self, _threads: &[ThreadPointer]) -> bool {
        false
    }
    /// Visits every block; delivers runs and blocks to `sink`.
    fn walk(&self, memory: &dyn Memory, threads: &[ThreadPointer], sink: &mut dyn Sink) -> WalkOutcome;
}

/// A word that moves with each allocation of one size class by one thread from its cache, and mostly with each free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHead {
    /// The thread.
    pub tid: i32,
    /// Address of the word, a multiple of its length.
    pub address: u64,
    /// Size class of the blocks, as in the rows of a snapshot.
    pub block_bytes: u64,
    /// What the word is.
    pub form: HeadForm,
}

/// How a word tells what has been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadForm {
    /// A pointer to the next block on a stack of cached blocks, one word a block: it goes one word up with an allocation and one
    /// down with a free. The stack's range; the pointer is its end when there is no block.
    StackPointer(AddressRange),
    /// The number of blocks on a stack that grows down, 32 bits: it goes down with an allocation and up with a free.
    StackCount {
        /// The end of the stack: of `n` blocks, the next to be taken lies `n` words below.
        end: u64,
        /// Most blocks that it may hold.
        blocks_max: u64,
    },
    /// A pointer to the first block of a list, null when there is none. What it was before an allocation is the block.
    /// Links need not be understood.
    List {
        /// Frees put their blocks elsewhere: only allocations and refills move it.
        frees_elsewhere: bool,
    },
}

impl CacheHead {
    /// Bytes of the word.
    pub const fn len_bytes(&self) -> u64 {
        match self.form {
            HeadForm::StackCount { .. } => 4,
            HeadForm::StackPointer(_) | HeadForm::List { .. } => 8,
        }
    }
}

/// What an allocator may know of a stopped thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadPointer {
    /// The kernel's thread id.
    pub tid: i32,
    /// The base of its thread-local storage.
    pub thread_pointer: u64,
    /// Where it would go on.
    pub program_counter: u64,
    /// The top of its stack.
    pub stack_pointer: u64,
}
