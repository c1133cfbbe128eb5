//! Sums over the blocks of one allocator, and the proof that its summary says the same.

use super::cells::CellTable;
use super::schema::{AllocatorSummary, ClassRow};
use super::{Inconsistency, Liveness};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A size class in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The allocator's number of the shard.
    pub shard: u32,
    /// Usable bytes of a block; 0 for large blocks that have no class.
    pub size_bytes: u64,
}

/// Sums of one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CellTotal {
    /// Blocks in use by the program.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Blocks kept in thread caches.
    pub cached_blocks: u64,
    /// Their usable bytes.
    pub cached_bytes: u64,
    /// Runs.
    pub runs: u64,
    /// Bytes of those runs, and bytes held for large blocks.
    pub run_bytes: u64,
}

/// Sums of the large blocks of one shard, with and without a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LargeTotal {
    /// Large blocks in use by the program.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
}

/// Sums over all blocks of one allocator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs and large blocks by shard and class.
    pub cells: BTreeMap<Cell, CellTotal>,
    /// Large blocks by shard; they are in `cells` too.
    pub large: BTreeMap<u32, LargeTotal>,
}

impl Totals {
    /// The sum over all cells.
    pub fn sum(&self) -> CellTotal {
        self.cells.values().fold(CellTotal::default(), |sum, cell| CellTotal {
            live_blocks: sum.live_blocks.saturating_add(cell.live_blocks),
            live_bytes: sum.live_bytes.saturating_add(cell.live_bytes),
            cached_blocks: sum.cached_blocks.saturating_add(cell.cached_blocks),
            cached_bytes: sum.cached_bytes.saturating_add(cell.cached_bytes),
            runs: sum.runs.saturating_add(cell.runs),
            run_bytes: sum.run_bytes.saturating_add(cell.run_bytes),
        })
    }

    /// Proves that `summary` says the same: live and cached blocks and bytes of the allocator, of each shard's
    /// large blocks, and of each cell.
    ///
    /// # Errors
    /// The first figure that differs, with both values.
    pub fn reconcile(&self, summary: &AllocatorSummary) -> Result<(), Inconsistency> {
        let sum = self.sum();
        same(|| "live blocks".to_owned(), summary.live_blocks, sum.live_blocks)?;
        same(|| "live bytes".to_owned(), summary.live_bytes, sum.live_bytes)?;
        same(|| "cached blocks".to_owned(), summary.cached_blocks, sum.cached_blocks)?;
        same(|| "cached bytes".to_owned(), summary.cached_bytes, sum.cached_bytes)?;
        let mut claimed = claimed_cells(summary);
        for (cell, total) in &self.cells {
            match claimed.remove(cell) {
                Some(row) => reconcile_cell(*cell, &row, total)?,
                // Large blocks without a class may be in the shard's sum alone.
                None if cell.size_bytes == 0 => {}
                None => reconcile_cell(*cell, &ClassRow::default(), total)?,
            }
        }
        for (cell, row) in &claimed {
            reconcile_cell(*cell, row, &CellTotal::default())?;
        }
        self.reconcile_large(summary)
    }

    fn reconcile_large(&self, summary: &AllocatorSummary) -> Result<(), Inconsistency> {
        let claimed: BTreeMap<u32, LargeTotal> = summary
            .shards
            .iter()
            .map(|shard| {
                (shard.id, LargeTotal { live_blocks: shard.large_blocks, live_bytes: shard.large_bytes })
            })
            .collect();
        for shard in claimed.keys().chain(self.large.keys()) {
            let says = claimed.get(shard).copied().unwrap_or_default();
            let found = self.large.get(shard).copied().unwrap_or_default();
            same(|| format!("large blocks of shard {shard}"), says.live_blocks, found.live_blocks)?;
            same(|| format!("large bytes of shard {shard}"), says.live_bytes, found.live_bytes)?;
        }
        Ok(())
    }
}

/// The cells that a summary lists.
fn claimed_cells(summary: &AllocatorSummary) -> BTreeMap<Cell, ClassRow> {
    let rows = summary.shards.iter().flat_map(|shard| {
        shard.classes.iter().map(|row| (Cell { shard: shard.id, size_bytes: row.size_bytes }, *row))
    });
    rows.collect()
}

fn reconcile_cell(cell: Cell, row: &ClassRow, total: &CellTotal) -> Result<(), Inconsistency> {
    let name = |figure: &str| format!("{figure} of {} bytes in shard {}", cell.size_bytes, cell.shard);
    same(|| name("live blocks"), row.live_blocks, total.live_blocks)?;
    same(|| name("live bytes"), row.live_bytes, total.live_bytes)?;
    same(|| name("cached blocks"), row.cached_blocks, total.cached_blocks)?;
    same(|| name("runs"), row.runs, total.runs)
}

fn same(figure: impl Fn() -> String, summary: u64, blocks: u64) -> Result<(), Inconsistency> {
    if summary == blocks { Ok(()) } else { Err(Inconsistency::Total { figure: figure(), summary, blocks }) }
}

impl Liveness {
    /// Sums over all blocks, by shard and class. Sums that pass 2^64 stop there: see [`Liveness::check`].
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.add_runs(&mut totals);
        self.add_cached(&mut totals);
        for block in &self.large.blocks {
            let cell = Cell { shard: block.shard, size_bytes: block.class_bytes };
            let total = totals.cells.entry(cell).or_default();
            total.run_bytes = total.run_bytes.saturating_add(block.held_bytes);
            if block.cached {
                total.cached_blocks += 1;
                total.cached_bytes = total.cached_bytes.saturating_add(block.usable_bytes);
                continue;
            }
            total.live_blocks += 1;
            total.live_bytes = total.live_bytes.saturating_add(block.usable_bytes);
            let large = totals.large.entry(block.shard).or_default();
            large.live_blocks += 1;
            large.live_bytes = large.live_bytes.saturating_add(block.usable_bytes);
        }
        totals
    }

    fn add_runs(&self, totals: &mut Totals) {
        let count = |range| {
            let mut counts: CellTable<(u64, u64)> = CellTable::new(self.run_classes.len());
            for run in self.runs.view(range) {
                if let Some((runs, live_blocks)) = counts.at(run.shard, usize::from(run.class)) {
                    *runs += 1;
                    *live_blocks += run.live_blocks();
                }
            }
            counts
        };
        let counts: Vec<CellTable<(u64, u64)>> = self.runs.tasks().map(count).collect();
        let counts = counts.iter().flat_map(CellTable::iter).filter(|(_, _, (runs, _))| *runs > 0);
        for (shard, class, &(runs, live_blocks)) in counts {
            let Some(class) = self.run_classes.get(class) else { continue };
            let total = totals.cells.entry(Cell { shard, size_bytes: class.block_bytes }).or_default();
            total.runs += runs;
            total.run_bytes = total.run_bytes.saturating_add(runs.saturating_mul(class.run_bytes));
            total.live_blocks += live_blocks;
            total.live_bytes = total.live_bytes.saturating_add(live_blocks.saturating_mul(class.block_bytes));
        }
    }

    fn add_cached(&self, totals: &mut Totals) {
        for &(address, _) in &self.runs.cached {
            let Ok(index) = self.runs.address.binary_search(&address) else { continue };
            let class =
                self.runs.class.get(index).and_then(|&class| self.run_classes.get(usize::from(class)));
            let (Some(class), Some(&shard)) = (class, self.runs.shard.get(index)) else { continue };
            let total = totals.cells.entry(Cell { shard, size_bytes: class.block_bytes }).or_default();
            total.cached_blocks += 1;
            total.cached_bytes = total.cached_bytes.saturating_add(class.block_bytes);
        }
    }
}
