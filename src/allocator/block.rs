//! Blocks, alone or in runs of equal ones.
//!
//! A run keeps one bit a block, so that millions of blocks cost millions of bits.

/// A run's block size and extent, shared by all runs of a size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct RunClass {
    /// Usable bytes of each block, also the distance between two.
    pub block_bytes: u64,
    /// Bytes of a whole run.
    pub run_bytes: u64,
    /// Blocks in a run.
    pub blocks: u32,
}

/// Blocks of one size that lie side by side in one run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Address of the first block.
    pub address: u64,
    /// Index into the walk's run classes.
    pub class: u16,
    /// The shard that owns it.
    pub shard: u32,
    /// The allocator's serial number of the run's address space, 0 where it has none.
    pub serial: u64,
    /// One bit a block, lowest first: in use by the program. `ceil(blocks / 64)` words.
    pub live: &'a [u64],
    /// One bit a block: handed out by the allocator's records, but kept in a thread cache.
    pub cached: &'a [u64],
}

/// A block that has a place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Address that the program was given.
    pub address: u64,
    /// Bytes that the program may use.
    pub usable_bytes: u64,
    /// Bytes of address space that the allocator holds for it.
    pub held_bytes: u64,
    /// The size class that the statistics count it in, where there is one.
    pub class_bytes: u64,
    /// The shard that owns it.
    pub shard: u32,
    /// The allocator's serial number of its address space, 0 where it has none.
    pub serial: u64,
    /// Kept in a thread cache, not in use by the program.
    pub cached: bool,
}

/// Takes what a walk finds, in any order.
pub trait Sink {
    /// A run, once.
    fn run(&mut self, run: Run<'_>);
    /// A block outside of runs, once.
    fn block(&mut self, block: Block);
}
