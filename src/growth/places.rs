//! Which blocks are at the same place in two tables.
//!
//! A place is the address of a run, its serial number, shard and class, and the block's index in it; for a large
//! block its address, serial number, shard, class and usable bytes. Nothing else is known of a block: one that
//! was freed while another of its class got its place counts as stayed.

use crate::allocator::{Block, RunClass};
use crate::snapshot::cells::CellTable;
use crate::snapshot::{Cell, Liveness, RunTable};
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

/// Every cell that has runs or large blocks in one of two sorted tables.
pub(super) fn compare(first: &Liveness, last: &Liveness) -> BTreeMap<Cell, Tally> {
    let mut cells = compare_runs(first, last);
    let mut large: HashMap<Cell, Tally> = HashMap::new();
    for pair in large_pairs(first, last) {
        let (before, after) = (pair.first.filter(is_live), pair.last.filter(is_live));
        if let Some(block) = before {
            large.entry(cell(block)).or_default().first.add(1, block.usable_bytes);
        }
        if let Some(block) = after {
            large.entry(cell(block)).or_default().last.add(1, block.usable_bytes);
        }
        if let (Some(before), Some(after)) = (before, after)
            && is_same(before, after)
        {
            large.entry(cell(after)).or_default().stayed_blocks += 1;
        }
    }
    large.iter().for_each(|(cell, tally)| cells.entry(*cell).or_default().add(tally));
    cells
}

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

/// Large blocks that are new or have grown, in address order.
pub(super) fn grown_blocks(first: &Liveness, last: &Liveness) -> Vec<GrownBlock> {
    let grown = large_pairs(first, last).filter_map(|pair| {
        let after = pair.last.filter(is_live)?;
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

/// Live blocks of one cell of runs: in the first table, in the last, at the same place in both.
#[derive(Debug, Clone, Copy, Default)]
struct RunTally {
    first: u64,
    last: u64,
    stayed: u64,
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

fn compare_runs(first: &Liveness, last: &Liveness) -> BTreeMap<Cell, Tally> {
    let pair = RunPair::of(first, last);
    let tables: Vec<CellTable<RunTally>> =
        pair.tasks().into_par_iter().map(|(first, last)| pair.compare(first, last)).collect();
    let mut cells: BTreeMap<Cell, Tally> = BTreeMap::new();
    for (shard, class, tally) in tables.iter().flat_map(CellTable::iter) {
        let Some(size_bytes) = pair.classes.get(class).map(|class| class.block_bytes) else { continue };
        if tally.first == 0 && tally.last == 0 {
            continue;
        }
        let cell = cells.entry(Cell { shard, size_bytes }).or_default();
        cell.first.add(tally.first, tally.first.saturating_mul(size_bytes));
        cell.last.add(tally.last, tally.last.saturating_mul(size_bytes));
        cell.stayed_blocks += tally.stayed;
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

    fn compare(&self, first: Range<usize>, last: Range<usize>) -> CellTable<RunTally> {
        let mut cells = CellTable::new(self.classes.len());
        let mut first = self.first.places(first).peekable();
        let mut last = self.last.places(last).peekable();
        loop {
            let order = match (first.peek(), last.peek()) {
                (Some(one), Some(other)) => one.address.cmp(&other.address),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return cells,
            };
            let one = if order.is_le() { first.next() } else { None };
            let other = if order.is_ge() { last.next() } else { None };
            if let Some((place, tally)) =
                one.as_ref().and_then(|place| Some((place, place.tally(&mut cells)?)))
            {
                tally.first += live_blocks(place.words);
            }
            if let Some((place, tally)) =
                other.as_ref().and_then(|place| Some((place, place.tally(&mut cells)?)))
            {
                tally.last += live_blocks(place.words);
            }
            if let (Some(one), Some(other)) = (one, other)
                && one.is_same(&other)
                && let Some(tally) = other.tally(&mut cells)
            {
                let both = one
                    .words
                    .iter()
                    .zip(other.words)
                    .map(|(one, other)| u64::from((one & other).count_ones()));
                tally.stayed += both.sum::<u64>();
            }
        }
    }
}

fn live_blocks(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// One run.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    address: u64,
    serial: u64,
    shard: u32,
    class: usize,
    words: &'a [u64],
}

impl Side<'_> {
    fn places(&self, range: Range<usize>) -> impl Iterator<Item = Place<'_>> {
        range.filter_map(|index| {
            Some(Place {
                address: *self.runs.address.get(index)?,
                serial: *self.runs.serial.get(index)?,
                shard: *self.runs.shard.get(index)?,
                class: *self.class.get(usize::from(*self.runs.class.get(index)?))?,
                words: self.runs.words(index),
            })
        })
    }
}

impl Place<'_> {
    fn is_same(&self, other: &Self) -> bool {
        self.serial == other.serial && self.shard == other.shard && self.class == other.class
    }

    fn tally<'t>(&self, cells: &'t mut CellTable<RunTally>) -> Option<&'t mut RunTally> {
        cells.at(self.shard, self.class)
    }
}
