//! Live blocks by cell, as a summary tells them.

use super::places::Count;
use crate::snapshot::Cell;
use crate::snapshot::schema::{AllocatorSummary, Shard};
use std::collections::BTreeMap;

/// The live blocks of every cell of an allocator.
///
/// Large blocks that have a class stand in a row of their own, which has no runs; what a shard has beyond
/// those is without a class, and is counted under size 0.
pub(super) fn counts(allocator: &AllocatorSummary) -> BTreeMap<Cell, Count> {
    let mut cells: BTreeMap<Cell, Count> = BTreeMap::new();
    for shard in &allocator.shards {
        for row in &shard.classes {
            let cell = Cell { shard: shard.id, size_bytes: row.size_bytes };
            cells.entry(cell).or_default().add(row.live_blocks, row.live_bytes);
        }
        let without_class = without_class(shard);
        if without_class.blocks > 0 {
            let cell = Cell { shard: shard.id, size_bytes: 0 };
            cells.entry(cell).or_default().add(without_class.blocks, without_class.bytes);
        }
    }
    cells
}

fn without_class(shard: &Shard) -> Count {
    let mut classed = Count::default();
    for row in shard.classes.iter().filter(|row| row.runs == 0) {
        classed.add(row.live_blocks, row.live_bytes);
    }
    Count {
        blocks: shard.large_blocks.saturating_sub(classed.blocks),
        bytes: shard.large_bytes.saturating_sub(classed.bytes),
    }
}
