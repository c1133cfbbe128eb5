//! Which blocks are at the same place in two tables.
//!
//! A place is the address of a run, its serial number, shard and class, and the block's index in it; for a large
//! block its address, serial number, shard, class and usable bytes. Nothing else is known of a block: one that
//! was freed while another of its class got its place counts as stayed.

use crate::allocator::{Block, RunClass};
use crate::snapshot::cells::CellTable;
use crate::snapshot::liveness::live_bits;
use crate::snapshot::{Cell, Liveness, RunTable, RunView};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Runs that one task compares.
const TASK_RUNS: usize = 1 << 14;

/// Blocks and their usable bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub blocks: u64,
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, blocks: u64, bytes: u64) {
        self.blocks = self.blocks.saturating_add(blocks);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What two tables say of one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub first: Count,
    pub last: Count,
    /// Blocks at a place that is live in both.
    pub stayed_blocks: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.first.add(other.first.blocks, other.first.bytes);
        self.last.add(other.last.blocks, other.last.bytes);
        self.stayed_blocks = self.stayed_blocks.saturating_add(other.stayed_blocks);
    }
}

/// Blocks at a place that is live in both of two sorted tables, by cell.
pub(super) fn stayed(first: &Liveness, last: &Liveness) -> BTreeMap<Cell, u64> {
    let mut cells = stayed_in_runs(first, last);
    let mut large: HashMap<Cell, u64> = HashMap::new();
    for pair in large_pairs(first, last) {
        if let (Some(before), Some(after)) = (pair.first.filter(is_live), pair.last.filter(is_live))
            && is_same(before, after)
        {
            *large.entry(cell(after)).or_default() += 1;
        }
    }
    large.iter().for_each(|(cell, blocks)| *cells.entry(*cell).or_default() += blocks);
    cells
}

/// Smaller blocks are not listed one by one: their row tells of them.
const LISTED_BYTES_MIN: u64 = 16 << 10;

/// A large block that is new, or larger than it was at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GrownBlock {
    /// As it is last.
    pub block: Block,
    /// Its usable bytes, or those that it gained.
    pub delta_bytes: u64,
    /// It was there before, and smaller.
    pub in_place: bool,
}

/// Large blocks that are new or have grown, in address order, from [`LISTED_BYTES_MIN`] on.
pub(super) fn grown_blocks(first: &Liveness, last: &Liveness) -> Vec<GrownBlock> {
    let grown = large_pairs(first, last).filter_map(|pair| {
        let after = pair.last.filter(is_live).filter(|after| after.usable_bytes >= LISTED_BYTES_MIN)?;
        let before = pair.first.filter(|before| !before.cached && before.serial == after.serial);
        let delta_bytes = after.usable_bytes.saturating_sub(before.map_or(0, |before| before.usable_bytes));
        (delta_bytes > 0).then_some(GrownBlock { block: *after, delta_bytes, in_place: before.is_some() })
    });
    grown.collect()
}

fn cell(block: &Block) -> Cell {
    Cell { shard: block.shard, size_bytes: block.class_bytes }
}

fn is_live(block: &&Block) -> bool {
    !block.cached
}

fn is_same(one: &Block, other: &Block) -> bool {
    one.serial == other.serial && cell(one) == cell(other) && one.usable_bytes == other.usable_bytes
}

/// The large blocks at one address.
#[derive(Debug, Clone, Copy)]
struct LargePair<'a> {
    first: Option<&'a Block>,
    last: Option<&'a Block>,
}

/// The large blocks of two sorted tables, address by address.
fn large_pairs<'a>(first: &'a Liveness, last: &'a Liveness) -> impl Iterator<Item = LargePair<'a>> {
    let mut first = first.large.blocks.iter().peekable();
    let mut last = last.large.blocks.iter().peekable();
    std::iter::from_fn(move || {
        let order = match (first.peek(), last.peek()) {
            (Some(one), Some(other)) => one.address.cmp(&other.address),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        Some(LargePair {
            first: if order.is_le() { first.next() } else { None },
            last: if order.is_ge() { last.next() } else { None },
        })
    })
}

/// Runs of two tables whose classes are numbered alike.
#[derive(Debug)]
struct RunPair<'a> {
    first: Side<'a>,
    last: Side<'a>,
    /// All classes of both.
    classes: Vec<RunClass>,
}

/// One table, and the number in [`RunPair::classes`] of each of its classes.
#[derive(Debug)]
struct Side<'a> {
    runs: &'a RunTable,
    class: Vec<usize>,
}

fn stayed_in_runs(first: &Liveness, last: &Liveness) -> BTreeMap<Cell, u64> {
    let pair = RunPair::of(first, last);
    let tables: Vec<CellTable<u64>> =
        pair.tasks().into_par_iter().map(|(first, last)| pair.stayed(first, last)).collect();
    let mut cells: BTreeMap<Cell, u64> = BTreeMap::new();
    for (shard, class, blocks) in
        tables.iter().flat_map(CellTable::iter).filter(|(_, _, blocks)| **blocks > 0)
    {
        let Some(size_bytes) = pair.classes.get(class).map(|class| class.block_bytes) else { continue };
        *cells.entry(Cell { shard, size_bytes }).or_default() += blocks;
    }
    cells
}

impl<'a> RunPair<'a> {
    fn of(first: &'a Liveness, last: &'a Liveness) -> Self {
        let mut classes: Vec<RunClass> = Vec::new();
        let mut side = |liveness: &'a Liveness| {
            let number = |class: &RunClass| {
                classes.iter().position(|known| known == class).unwrap_or_else(|| {
                    classes.push(*class);
                    classes.len() - 1
                })
            };
            Side { class: liveness.run_classes.iter().map(number).collect(), runs: &liveness.runs }
        };
        let (first, last) = (side(first), side(last));
        Self { first, last, classes }
    }

    /// Ranges of both tables that hold the same addresses, few enough runs for a task.
    fn tasks(&self) -> Vec<(Range<usize>, Range<usize>)> {
        let (first, last) = (&self.first.runs.address, &self.last.runs.address);
        let longer = if first.len() > last.len() { first } else { last };
        let mut tasks = Vec::new();
        let mut start = (0, 0);
        for &bound in longer.iter().step_by(TASK_RUNS).skip(1) {
            let end = (first.partition_point(|&at| at < bound), last.partition_point(|&at| at < bound));
            tasks.push((start.0..end.0, start.1..end.1));
            start = end;
        }
        tasks.push((start.0..first.len(), start.1..last.len()));
        tasks
    }

    fn stayed(&self, first: Range<usize>, last: Range<usize>) -> CellTable<u64> {
        let mut cells = CellTable::new(self.classes.len());
        let (mut firsts, mut lasts) = (self.first.runs.view(first), self.last.runs.view(last));
        let (mut one, mut other) = (firsts.next(), lasts.next());
        while let (Some(before), Some(after)) = (one, other) {
            let order = before.address.cmp(&after.address);
            if order.is_eq()
                && let Some(class) = self.same_class(&before, &after)
                && let Some(blocks) = cells.at(after.shard, class)
            {
                *blocks +=
                    live_bits(before.words.iter().zip(after.words).map(|(before, after)| before & after));
            }
            if order.is_le() {
                one = firsts.next();
            }
            if order.is_ge() {
                other = lasts.next();
            }
        }
        cells
    }

    /// The class of two runs at one address, if they are the same run.
    fn same_class(&self, before: &RunView<'_>, after: &RunView<'_>) -> Option<usize> {
        let class = self.last.class.get(usize::from(after.class))?;
        let same = before.serial == after.serial
            && before.shard == after.shard
            && self.first.class.get(usize::from(before.class)) == Some(class);
        same.then_some(*class)
    }
}
