//! jemalloc's own counters, compared cell by cell with what the walk counted.

use super::Jemalloc4;
use super::arena::Arena;
use crate::allocator::jemalloc::classes::large_classes;
use crate::memory::Memory;
use std::collections::BTreeMap;

/// What a walk counted, by arena and class.
#[derive(Debug, Default)]
pub struct Counted {
    /// Regions in use and runs, by arena and small class.
    small: BTreeMap<(u32, u64), (u64, u64)>,
    /// Blocks by arena and usable bytes.
    larger: BTreeMap<(u32, u64), u64>,
}

/// How the counters compare.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Cells compared.
    pub cells: u64,
    /// Cells that differ.
    pub differing: u64,
    /// Locks held.
    pub locked: u64,
    /// Upper bound of the blocks whose state was in motion.
    pub blocks_in_motion_max: u64,
    /// What was not compared and why.
    pub notes: Vec<String>,
}

/// Blocks that one fill or flush of a thread cache moves, at most: half of its largest stack.
const MOVED_AT_ONCE_MAX: u64 = 100;

impl Counted {
    /// Counts a run and its regions in use.
    pub fn run(&mut self, arena: u32, bin: u64, used: u64) {
        let cell = self.small.entry((arena, bin)).or_default();
        cell.0 += used;
        cell.1 += 1;
    }

    /// Counts a block of its own, by the usable bytes that the counters file it under.
    pub fn larger(&mut self, arena: u32, usable_bytes: u64) {
        *self.larger.entry((arena, usable_bytes)).or_default() += 1;
    }

    fn of(&self, arena: u32, bin: u64) -> (u64, u64) {
        self.small.get(&(arena, bin)).copied().unwrap_or_default()
    }
}

/// Compares `counted` with the counters in `memory`.
pub fn compare(jemalloc: &Jemalloc4, memory: &dyn Memory, arenas: &[Arena], counted: &Counted) -> Comparison {
    let mut comparison = Comparison::default();
    let (mut own_any, mut walked_any) = (0, 0);
    for arena in arenas {
        for index in 0..jemalloc.bins.bins.len() {
            let Some(own) = arena.bin(memory, &jemalloc.layout, index) else { continue };
            let walked = counted.of(arena.index, index as u64);
            comparison.locked += u64::from(own.is_locked);
            own_any |= own.regions;
            walked_any |= walked.0;
            comparison.cell(own.regions == walked.0 && own.runs == walked.1, distance(own.regions, walked.0));
        }
        comparison.larger(jemalloc, memory, arena, counted);
    }
    if own_any == 0 && walked_any > 0 {
        comparison = Comparison { locked: comparison.locked, ..Comparison::default() };
        comparison.notes.push("this build keeps no statistics: nothing to compare the walk with".to_owned());
    }
    let moved = comparison.locked.saturating_mul(MOVED_AT_ONCE_MAX);
    comparison.blocks_in_motion_max = comparison.blocks_in_motion_max.saturating_add(moved);
    comparison
}

/// Between a count that may be caught below zero in the middle of a change, and another.
const fn distance(own: u64, walked: u64) -> u64 {
    own.wrapping_sub(walked).cast_signed().unsigned_abs()
}

impl Comparison {
    fn cell(&mut self, equal: bool, blocks: u64) {
        self.cells += 1;
        if !equal {
            self.differing += 1;
            self.blocks_in_motion_max = self.blocks_in_motion_max.saturating_add(blocks.max(1));
        }
    }

    fn larger(&mut self, jemalloc: &Jemalloc4, memory: &dyn Memory, arena: &Arena, counted: &Counted) {
        let classes = large_classes(jemalloc.bins.largest_bytes());
        let in_chunks = classes.iter().filter(|class| **class < jemalloc.form.chunk_bytes).count();
        let huge = classes.len().saturating_sub(in_chunks);
        let Some(own) = arena.larger(memory, &jemalloc.layout, in_chunks, huge) else { return };
        for (class, own) in classes.iter().zip(own) {
            let walked = counted.larger.get(&(arena.index, *class)).copied().unwrap_or(0);
            self.cell(own == walked, distance(own, walked));
        }
    }
}
