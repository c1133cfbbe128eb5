//! jemalloc's own counters, compared cell by cell with what the walk counted.
//!
//! Builds without statistics keep none; then there is nothing to compare, and the walk says so.

use super::Jemalloc;
use super::arena::Arena;
use crate::memory::Memory;
use std::collections::{BTreeMap, BTreeSet};

/// What a walk counted, by arena and class.
#[derive(Debug, Default)]
pub struct Counted {
    regions: BTreeMap<(u32, u64), (u64, u64)>,
    large: BTreeMap<(u32, u64), u64>,
    /// Small blocks in extents of their own, sampled by the profiler, by arena.
    sampled: BTreeMap<u32, u64>,
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Cells compared.
    pub cells: u64,
    /// Cells that differ.
    pub differing: u64,
    /// Bins whose lock was held.
    pub locked: u64,
    /// Upper bound of blocks whose state was in motion.
    pub blocks_in_motion_max: u64,
    /// What was not compared and why.
    pub notes: Vec<String>,
}

impl Counted {
    /// Counts a slab and its regions in use.
    pub fn slab(&mut self, arena: u32, szind: u64, used: u64) {
        let cell = self.regions.entry((arena, szind)).or_default();
        cell.0 += used;
        cell.1 += 1;
    }

    /// Counts an extent with one block.
    pub fn large(&mut self, arena: u32, szind: u64, nbins: u64) {
        match szind.checked_sub(nbins) {
            Some(class) => *self.large.entry((arena, class)).or_default() += 1,
            None => *self.sampled.entry(arena).or_default() += 1,
        }
    }

    /// Arenas that exist or hold something.
    pub fn shards(&self, arenas: &[Arena]) -> Vec<u32> {
        let mut all: BTreeSet<u32> = arenas.iter().map(|arena| arena.index).collect();
        all.extend(self.regions.keys().map(|(arena, _)| *arena));
        all.extend(self.large.keys().map(|(arena, _)| *arena));
        all.into_iter().collect()
    }

    /// Whether the profiler has sampled a small block.
    pub fn has_sampled(&self) -> bool {
        !self.sampled.is_empty()
    }

    fn expected_large(&self, arena: u32, class: u64, promoted: bool) -> u64 {
        let own = self.large.get(&(arena, class)).copied().unwrap_or(0);
        // Up to 5.3.0 a sampled small block is counted as a block of the first large class.
        let sampled = if class == 0 && promoted { self.sampled.get(&arena).copied().unwrap_or(0) } else { 0 };
        own + sampled
    }
}

/// Blocks that one fill or flush of a thread cache moves, at most: half of the largest default stack.
const MOVED_AT_ONCE_MAX: u64 = 200;

/// Compares `counted` with the counters in `memory`.
pub fn compare(jemalloc: &Jemalloc, memory: &dyn Memory, arenas: &[Arena], counted: &Counted) -> Comparison {
    let mut comparison = Comparison::default();
    let (mut own_any, mut walked_any) = (0_u64, 0_u64);
    for arena in arenas {
        let mut own: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for place in arena.bins(memory, &jemalloc.layout, &jemalloc.classes) {
            comparison.locked += u64::from(place.locked(memory, &jemalloc.layout));
            let Some((regions, slabs)) = place.counters(memory, &jemalloc.layout) else { continue };
            let cell = own.entry(place.szind as u64).or_default();
            cell.0 = cell.0.wrapping_add(regions);
            cell.1 = cell.1.wrapping_add(slabs);
        }
        for (szind, own) in own {
            let walked = counted.regions.get(&(arena.index, szind)).copied().unwrap_or((0, 0));
            own_any |= own.0;
            walked_any |= walked.0;
            comparison.cell(own.0 == walked.0 && own.1 == walked.1, distance(own.0, walked.0));
        }
        comparison.large(jemalloc, memory, arena, counted);
    }
    if own_any == 0 && walked_any > 0 {
        comparison.cells = 0;
        comparison.differing = 0;
        comparison.blocks_in_motion_max = 0;
        comparison.notes.push("this build keeps no statistics: nothing to compare the walk with".to_owned());
    }
    let moved = comparison.locked.saturating_mul(MOVED_AT_ONCE_MAX);
    comparison.blocks_in_motion_max = comparison.blocks_in_motion_max.saturating_add(moved);
    comparison
}

/// Between a count that jemalloc keeps, which may be caught below zero in the middle of a change, and another.
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

    fn large(&mut self, jemalloc: &Jemalloc, memory: &dyn Memory, arena: &Arena, counted: &Counted) {
        let classes = jemalloc.classes.large.len();
        let Some(own) = arena.large_counts(memory, &jemalloc.layout, classes) else { return };
        let promoted = !jemalloc.layout.large_unrounded;
        for (class, own) in (0..).zip(own) {
            if class == 0 && !promoted && counted.sampled.contains_key(&arena.index) {
                let note = "blocks sampled by the profiler are left out of the comparison of the first large \
                            class: from 5.3.1 on jemalloc forgets the smaller ones";
                if self.notes.iter().all(|known| known != note) {
                    self.notes.push(note.to_owned());
                }
                continue;
            }
            let walked = counted.expected_large(arena.index, class, promoted);
            self.cell(own == walked, distance(own, walked));
        }
    }
}
