//! Which blocks were live at one moment: one bit a block in runs, one row a large block.

use crate::allocator::{Block, Run, RunClass, Sink};

/// The blocks of one allocator at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Classes of runs by index.
    pub run_classes: Vec<RunClass>,
    /// All runs.
    pub runs: RunTable,
    /// All blocks outside of runs.
    pub large: LargeTable,
}

/// Runs in columns, ordered by address once [`Liveness::sort`] has been called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunTable {
    /// Address of the first block of each run.
    pub address: Vec<u64>,
    /// Serial number of each run's address space.
    pub serial: Vec<u64>,
    /// Owning shard of each run.
    pub shard: Vec<u32>,
    /// Index of each run's class in [`Liveness::run_classes`].
    pub class: Vec<u16>,
    /// Where each run's words start in `live`; it has `ceil(blocks / 64)` of them.
    pub words_at: Vec<u32>,
    /// Live bits of all runs.
    pub live: Vec<u64>,
    /// Blocks that were kept in thread caches: (run's first address, block index in the run).
    pub cached: Vec<(u64, u32)>,
}

/// Blocks outside of runs; cached ones are not live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LargeTable {
    /// All blocks, ordered by address once [`Liveness::sort`] has been called.
    pub blocks: Vec<Block>,
}

impl Liveness {
    /// An empty table for runs of the given classes.
    pub fn new(run_classes: Vec<RunClass>) -> Self {
        Self { run_classes, ..Self::default() }
    }
}

impl Sink for Liveness {
    fn run(&mut self, run: Run<'_>) {
        let runs = &mut self.runs;
        runs.address.push(run.address);
        runs.serial.push(run.serial);
        runs.shard.push(run.shard);
        runs.class.push(run.class);
        runs.words_at.push(u32::try_from(runs.live.len()).unwrap_or(u32::MAX));
        runs.live.extend_from_slice(run.live);
        for (word, bits) in (0_u32..).zip(run.cached) {
            let mut bits = *bits;
            while bits != 0 {
                runs.cached.push((run.address, word * 64 + bits.trailing_zeros()));
                bits &= bits - 1;
            }
        }
    }

    fn block(&mut self, block: Block) {
        self.large.blocks.push(block);
    }
}
