//! Which blocks were live at one moment: one bit a block in runs, one row a large block.
//!
//! It knows places and refuses to know what lies there: no byte of the target's own data passes through it.

use super::Inconsistency;
use crate::allocator::{Block, Run, RunClass, Sink};
use rayon::prelude::*;
use std::ops::Range;

/// Most runs that one table takes: 2^27, which is 512 GiB of heap in the smallest runs known (4 KiB).
pub const RUNS_MAX: usize = 1 << 27;
/// Most bitmap words that one table takes: 4 GiB of them.
pub const LIVE_WORDS_MAX: usize = 1 << 29;
/// Most blocks outside of runs that one table takes: 3.5 GiB of them.
pub const LARGE_BLOCKS_MAX: usize = 1 << 26;
/// Most blocks that a run can have; the largest known is 8192 (64 KiB runs of 8 bytes).
pub const RUN_BLOCKS_MAX: u32 = 1 << 20;

/// Runs that one task looks at.
const TASK_RUNS: usize = 1 << 14;

/// The blocks of one allocator at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Classes of runs by index.
    pub run_classes: Vec<RunClass>,
    /// All runs.
    pub runs: RunTable,
    /// All blocks outside of runs.
    pub large: LargeTable,
    /// Runs and large blocks that were delivered after a table was full, and are not here.
    pub left_out: u64,
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
    /// Where each run's words start in `live`, ascending; it has `ceil(blocks / 64)` of them.
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

impl RunTable {
    /// Number of runs.
    pub fn len(&self) -> usize {
        self.address.len()
    }

    /// Whether there is no run.
    pub fn is_empty(&self) -> bool {
        self.address.is_empty()
    }

    /// Where the live bits of the run at `index` are in `live`; an empty range past the last run.
    pub fn word_range(&self, index: usize) -> Range<usize> {
        let Some(&start) = self.words_at.get(index) else { return 0..0 };
        let end = self.words_at.get(index + 1).map_or(self.live.len(), |&end| end as usize);
        start as usize..end
    }

    /// The live bits of the run at `index`, lowest first; none past the last run.
    pub fn words(&self, index: usize) -> &[u64] {
        self.live.get(self.word_range(index)).unwrap_or_default()
    }

    /// The runs of `range`, in order.
    pub fn view(&self, range: Range<usize>) -> impl Iterator<Item = RunView<'_>> {
        let ends = self.words_at.iter().skip(range.start + 1).map(|&end| end as usize);
        let words = column(&self.words_at, &range).iter().zip(ends.chain([self.live.len()]));
        let words = words.map(|(&start, end)| self.live.get(start as usize..end).unwrap_or_default());
        let places = column(&self.address, &range).iter().zip(column(&self.serial, &range));
        let owners = column(&self.shard, &range).iter().zip(column(&self.class, &range));
        places.zip(owners).zip(words).map(|(((&address, &serial), (&shard, &class)), words)| RunView {
            address,
            serial,
            shard,
            class,
            words,
        })
    }

    /// Ranges that together are all runs, each enough work for a task of its own.
    pub(crate) fn tasks(&self) -> impl IndexedParallelIterator<Item = Range<usize>> {
        let len = self.len();
        (0..len.div_ceil(TASK_RUNS)).into_par_iter().map(move |task| {
            let start = task * TASK_RUNS;
            start..len.min(start + TASK_RUNS)
        })
    }

    /// Orders every column by address, keeping each run's words with it.
    fn sort(&mut self) {
        if !self.address.is_sorted() {
            let mut order: Vec<u32> = (0..).take(self.len()).collect();
            order.sort_by_key(|&index| self.address.get(index as usize));
            let mut words_at = Vec::with_capacity(self.words_at.len());
            let mut live = Vec::with_capacity(self.live.len());
            for &index in &order {
                words_at.push(u32::try_from(live.len()).unwrap_or(u32::MAX));
                live.extend_from_slice(self.words(index as usize));
            }
            self.words_at = words_at;
            self.live = live;
            self.address = gather(&self.address, &order);
            self.serial = gather(&self.serial, &order);
            self.shard = gather(&self.shard, &order);
            self.class = gather(&self.class, &order);
        }
        self.cached.sort_unstable();
    }

    /// Whether a run of `words` words still fits.
    fn has_room(&self, words: usize) -> bool {
        self.len() < RUNS_MAX && self.live.len().saturating_add(words) <= LIVE_WORDS_MAX
    }
}

/// One run of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunView<'a> {
    /// Address of the first block.
    pub address: u64,
    /// Serial number of its address space.
    pub serial: u64,
    /// Owning shard.
    pub shard: u32,
    /// Index of its class.
    pub class: u16,
    /// Its live bits, lowest first.
    pub words: &'a [u64],
}

impl RunView<'_> {
    /// Number of live blocks.
    pub fn live_blocks(&self) -> u64 {
        live_bits(self.words.iter().copied())
    }
}

/// Number of bits set. Most words are full, and a comparison is cheaper than a count.
pub(crate) fn live_bits(words: impl Iterator<Item = u64>) -> u64 {
    words.map(|word| if word == u64::MAX { 64 } else { u64::from(word.count_ones()) }).sum()
}

/// A part of a column; nothing where it is shorter than that.
fn column<'a, T>(column: &'a [T], range: &Range<usize>) -> &'a [T] {
    column.get(range.clone()).unwrap_or_default()
}

/// `column` in the order of `order`.
fn gather<T: Copy>(column: &[T], order: &[u32]) -> Vec<T> {
    order.iter().filter_map(|&index| column.get(index as usize).copied()).collect()
}

impl Liveness {
    /// An empty table for runs of the given classes.
    pub fn new(run_classes: Vec<RunClass>) -> Self {
        Self { run_classes, ..Self::default() }
    }

    /// Orders runs, cached blocks and large blocks by address; what it holds no longer depends on the order in
    /// which it was delivered.
    pub fn sort(&mut self) {
        self.runs.sort();
        self.large.blocks.sort_unstable_by_key(|block| block.address);
    }

    /// Proves what every reader of a sorted table relies on: columns of one length, addresses strictly
    /// ascending, each run with the words of its class and no bit beyond its blocks, cached blocks in runs that
    /// exist and not live at the same time, bytes that add up to less than 2^63.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<(), Inconsistency> {
        if self.left_out > 0 {
            return Err(Inconsistency::LeftOut { count: self.left_out });
        }
        self.check_classes()?;
        self.check_runs()?;
        self.check_cached()?;
        self.check_large()
    }

    fn check_classes(&self) -> Result<(), Inconsistency> {
        for (index, class) in self.run_classes.iter().enumerate() {
            let fits = class.block_bytes.checked_mul(u64::from(class.blocks)).is_some();
            if class.blocks == 0 || class.blocks > RUN_BLOCKS_MAX || class.block_bytes == 0 || !fits {
                return Err(Inconsistency::RunClass { index, class: *class });
            }
        }
        Ok(())
    }

    fn check_runs(&self) -> Result<(), Inconsistency> {
        let runs = &self.runs;
        let lengths = [runs.serial.len(), runs.shard.len(), runs.class.len(), runs.words_at.len()];
        let starts_at_word = runs.words_at.first().map_or(runs.live.len(), |&first| first as usize);
        if lengths.iter().any(|&len| len != runs.len()) || starts_at_word != 0 {
            return Err(Inconsistency::Columns);
        }
        runs.tasks().try_for_each(|range| self.check_run_range(range))?;
        let run_bytes = |class: &RunClass| u128::from(class.block_bytes) * u128::from(class.blocks);
        let class_bytes: Vec<u128> = self.run_classes.iter().map(run_bytes).collect();
        check_sum(runs.class.iter().filter_map(|&class| class_bytes.get(usize::from(class))).sum())
    }

    fn check_run_range(&self, range: Range<usize>) -> Result<(), Inconsistency> {
        let before = range.start.checked_sub(1).and_then(|before| self.runs.address.get(before));
        let mut previous = before.copied();
        for run in self.runs.view(range) {
            let address = run.address;
            if previous.is_some_and(|previous| previous >= address) {
                return Err(Inconsistency::Order { address });
            }
            previous = Some(address);
            let Some(class) = self.run_classes.get(usize::from(run.class)) else {
                return Err(Inconsistency::UnknownClass { address, class: run.class });
            };
            if !has_shape(run.words, class.blocks) {
                return Err(Inconsistency::Words { address });
            }
        }
        Ok(())
    }

    fn check_cached(&self) -> Result<(), Inconsistency> {
        if !self.runs.cached.is_sorted_by(|one, next| one < next) {
            return Err(Inconsistency::CachedOrder);
        }
        let mut index = 0;
        for &(address, block) in &self.runs.cached {
            while self.runs.address.get(index).is_some_and(|&run| run < address) {
                index += 1;
            }
            let class =
                self.runs.class.get(index).and_then(|&class| self.run_classes.get(usize::from(class)));
            let known = self.runs.address.get(index) == Some(&address);
            if !known || class.is_none_or(|class| class.blocks <= block) {
                return Err(Inconsistency::CachedNowhere { address, block });
            }
            let word = self.runs.words(index).get(block as usize / 64).copied().unwrap_or_default();
            if word >> (block % 64) & 1 == 1 {
                return Err(Inconsistency::CachedAndLive { address, block });
            }
        }
        Ok(())
    }

    fn check_large(&self) -> Result<(), Inconsistency> {
        let mut usable_bytes = 0_u128;
        let mut previous = None;
        for block in &self.large.blocks {
            if previous.is_some_and(|previous| previous >= block.address) {
                return Err(Inconsistency::Order { address: block.address });
            }
            previous = Some(block.address);
            usable_bytes += u128::from(block.usable_bytes.max(block.held_bytes));
        }
        check_sum(usable_bytes)
    }
}

/// Whether `words` are exactly as many as `blocks` need and have no bit set beyond them.
fn has_shape(words: &[u64], blocks: u32) -> bool {
    let tail_bits = blocks % 64;
    words.len() == blocks.div_ceil(64) as usize
        && (tail_bits == 0 || words.last().is_some_and(|last| last >> tail_bits == 0))
}

/// Refuses sums that signed differences could not hold.
fn check_sum(bytes: u128) -> Result<(), Inconsistency> {
    if bytes > i64::MAX as u128 { Err(Inconsistency::Sum { bytes }) } else { Ok(()) }
}

impl Sink for Liveness {
    fn run(&mut self, run: Run<'_>) {
        let runs = &mut self.runs;
        let words_at = u32::try_from(runs.live.len());
        let (true, Ok(words_at)) = (runs.has_room(run.live.len()), words_at) else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        runs.address.push(run.address);
        runs.serial.push(run.serial);
        runs.shard.push(run.shard);
        runs.class.push(run.class);
        runs.words_at.push(words_at);
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
        if self.large.blocks.len() < LARGE_BLOCKS_MAX {
            self.large.blocks.push(block);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}
