//! What the blocks of each size class look like: a bounded number of live blocks of one moment, read while the target runs.

use crate::allocator::Block;
use crate::content::{Content, Shape, Typer};
use crate::memory::{Memory, MemoryExt};
use crate::snapshot::Liveness;
use std::collections::{BTreeMap, HashMap};

/// Bytes of a block that make its shape.
const SHAPE_BYTES: u64 = 32;

/// The shapes of a part of a class's blocks.
#[derive(Debug, Clone, Default)]
pub struct ClassComposition {
    /// Live blocks of the class.
    pub live_blocks: u64,
    /// Blocks that were read.
    pub read: u64,
    /// Of those, how many look so.
    pub shapes: HashMap<Shape, u64>,
}

impl ClassComposition {
    /// Counts a live block, and reads one of `stride`.
    fn add(&mut self, memory: &dyn Memory, typer: &Typer<'_>, block: u64, block_bytes: u64, stride: u64) {
        self.live_blocks += 1;
        if !scattered(block).is_multiple_of(stride) {
            return;
        }
        let len_bytes = usize::try_from(block_bytes.min(SHAPE_BYTES)).unwrap_or(0);
        if let Ok(bytes) = memory.read_vec(block, len_bytes) {
            self.read += 1;
            *self.shapes.entry(typer.shape(&Content::new(bytes))).or_default() += 1;
        }
    }

    /// Blocks of one shape, and the standard error of that.
    pub fn blocks(&self, shape: Shape) -> (f64, f64) {
        if self.read == 0 {
            return (0.0, 0.0);
        }
        let (live, read) = (self.live_blocks as f64, self.read as f64);
        let part = self.shapes.get(&shape).copied().unwrap_or(0) as f64 / read;
        // Of a class that was read as a whole nothing is uncertain.
        let unread = (1.0 - read / live.max(read)).max(0.0);
        let spread = (part * (1.0 - part)).max(1.0 / read) / read;
        (live * part, live * (spread * unread).sqrt())
    }
}

/// Reads at most `blocks_max` blocks of each class, evenly over the heap. Classes by their usable bytes.
pub fn compositions(
    memory: &dyn Memory,
    liveness: &[Liveness],
    blocks_max: u64,
    wanted: &dyn Fn(u64) -> bool,
    typer: &Typer<'_>,
) -> BTreeMap<u64, ClassComposition> {
    let mut all: BTreeMap<u64, ClassComposition> = BTreeMap::new();
    for table in liveness {
        add_blocks(memory, typer, &table.large.blocks, blocks_max, wanted, &mut all);
        let mut live: HashMap<u16, u64> = HashMap::new();
        for run in table.runs.view(0..table.runs.len()) {
            *live.entry(run.class).or_default() += run.live_blocks();
        }
        for run in table.runs.view(0..table.runs.len()) {
            let Some(class) = table.run_classes.get(usize::from(run.class)) else { continue };
            if !wanted(class.block_bytes) {
                continue;
            }
            let of_class = live.get(&run.class).copied().unwrap_or(0);
            let stride = of_class.div_ceil(blocks_max.max(1)).max(1);
            let composition = all.entry(class.block_bytes).or_default();
            for index in set_bits(run.words) {
                let block = run.address + u64::from(index) * class.block_bytes;
                composition.add(memory, typer, block, class.block_bytes, stride);
            }
        }
    }
    all
}

/// The same of blocks that have places of their own, by their size classes.
fn add_blocks(
    memory: &dyn Memory,
    typer: &Typer<'_>,
    blocks: &[Block],
    blocks_max: u64,
    wanted: &dyn Fn(u64) -> bool,
    all: &mut BTreeMap<u64, ClassComposition>,
) {
    let live = || blocks.iter().filter(|block| !block.cached && wanted(block.class_bytes));
    let mut counts: HashMap<u64, u64> = HashMap::new();
    live().for_each(|block| *counts.entry(block.class_bytes).or_default() += 1);
    for block in live() {
        let of_class = counts.get(&block.class_bytes).copied().unwrap_or(0);
        let stride = of_class.div_ceil(blocks_max.max(1)).max(1);
        let composition = all.entry(block.class_bytes).or_default();
        composition.add(memory, typer, block.address, block.usable_bytes, stride);
    }
}

/// A number without pattern: a program that allocates things by turns would have every other, or every third, taken.
const fn scattered(address: u64) -> u64 {
    (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Whether a block is live in a table.
pub fn is_live(table: &Liveness, block: u64) -> bool {
    let large = &table.large.blocks;
    if let Ok(index) = large.binary_search_by_key(&block, |one| one.address) {
        return large.get(index).is_some_and(|one| !one.cached);
    }
    let runs = &table.runs;
    let Some(index) = runs.address.partition_point(|start| *start <= block).checked_sub(1) else {
        return false;
    };
    let Some(run) = runs.view(index..index + 1).next() else { return false };
    let Some(class) = table.run_classes.get(usize::from(run.class)) else { return false };
    let offset = block - run.address;
    let number = offset / class.block_bytes.max(1);
    let word = usize::try_from(number / 64).ok().and_then(|word| run.words.get(word));
    offset.is_multiple_of(class.block_bytes.max(1)) && word.is_some_and(|word| word >> (number % 64) & 1 == 1)
}

/// The class of a block of a table, live or not; of blocks that have a place of their own only while they are live.
pub fn class_at(table: &Liveness, block: u64) -> Option<u64> {
    let large = &table.large.blocks;
    if let Ok(index) = large.binary_search_by_key(&block, |one| one.address) {
        return large.get(index).map(|one| one.class_bytes);
    }
    let runs = &table.runs;
    let index = runs.address.partition_point(|start| *start <= block).checked_sub(1)?;
    let run = runs.view(index..index + 1).next()?;
    let class = table.run_classes.get(usize::from(run.class))?;
    let offset = block - run.address;
    let is_in = offset < class.block_bytes.saturating_mul(u64::from(class.blocks));
    (is_in && offset.is_multiple_of(class.block_bytes.max(1))).then_some(class.block_bytes)
}

fn set_bits(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    (0_u32..).zip(words).flat_map(|(word, bits)| {
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
    })
}
