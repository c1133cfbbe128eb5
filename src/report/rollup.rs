//! Rows that are printed as one line: their sums.

use crate::snapshot::schema::{AllocatorSummary, ClassRow};
use std::collections::BTreeMap;

/// What one line of a snapshot's tables says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Line {
    /// Blocks in use by the program.
    pub live_blocks: u64,
    /// Their usable bytes.
    pub live_bytes: u64,
    /// Blocks kept in thread caches.
    pub cached_blocks: u64,
    /// Slabs.
    pub slabs: u64,
    /// Bytes of those slabs.
    pub slab_bytes: u64,
    /// Of `live_bytes`, those in slabs.
    pub slab_live_bytes: u64,
}

impl Line {
    fn add(&mut self, row: &ClassRow) {
        self.live_blocks = self.live_blocks.saturating_add(row.live_blocks);
        self.live_bytes = self.live_bytes.saturating_add(row.live_bytes);
        self.cached_blocks = self.cached_blocks.saturating_add(row.cached_blocks);
        if row.runs > 0 {
            self.slabs = self.slabs.saturating_add(row.runs);
            self.slab_bytes = self.slab_bytes.saturating_add(row.run_bytes);
            self.slab_live_bytes = self.slab_live_bytes.saturating_add(row.live_bytes);
        }
    }

    /// The sum of lines.
    pub fn sum<'a>(lines: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for line in lines {
            sum.live_blocks = sum.live_blocks.saturating_add(line.live_blocks);
            sum.live_bytes = sum.live_bytes.saturating_add(line.live_bytes);
            sum.cached_blocks = sum.cached_blocks.saturating_add(line.cached_blocks);
            sum.slabs = sum.slabs.saturating_add(line.slabs);
            sum.slab_bytes = sum.slab_bytes.saturating_add(line.slab_bytes);
            sum.slab_live_bytes = sum.slab_live_bytes.saturating_add(line.slab_live_bytes);
        }
        sum
    }
}

/// Where the blocks of a line are; what is absent is summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The arena.
    pub shard: Option<u32>,
    /// The size class.
    pub size_bytes: Option<u64>,
}

/// Which parts of a place tell lines apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// One line a size class, over all arenas.
    Class,
    /// One line an arena, over all size classes.
    Arena,
    /// One line a size class of an arena.
    Both,
}

/// The lines of an allocator, in ascending order of their places.
pub fn lines(allocator: &AllocatorSummary, by: Grouping) -> Vec<(Place, Line)> {
    let mut lines: BTreeMap<Place, Line> = BTreeMap::new();
    for shard in &allocator.shards {
        let id = matches!(by, Grouping::Arena | Grouping::Both).then_some(shard.id);
        for row in &shard.classes {
            let size_bytes = matches!(by, Grouping::Class | Grouping::Both).then_some(row.size_bytes);
            lines.entry(Place { shard: id, size_bytes }).or_default().add(row);
        }
    }
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::schema::Shard;

    fn allocator() -> AllocatorSummary {
        let row = |size_bytes, live_blocks, runs| ClassRow {
            size_bytes,
            live_blocks,
            live_bytes: size_bytes * live_blocks,
            cached_blocks: 1,
            runs,
            run_bytes: 4096 * runs.max(1),
            ..ClassRow::default()
        };
        let shard = |id, classes| Shard { id, classes, ..Shard::default() };
        serde_json::from_value(serde_json::json!({
            "name": "jemalloc", "version": "5.3.0", "provenance": "probed", "complete": true,
            "verified": true, "anomalies": [], "live_blocks": 0, "live_bytes": 0, "cached_blocks": 0,
            "cached_bytes": 0, "metadata_bytes": 0,
            "shards": [shard(0, vec![row(16, 5, 1), row(16384, 1, 0)]), shard(3, vec![row(16, 7, 2)])],
        }))
        .unwrap()
    }

    #[test]
    fn every_grouping_has_the_same_sum() {
        let allocator = allocator();
        let sums = [Grouping::Class, Grouping::Arena, Grouping::Both].map(|by| {
            let lines = lines(&allocator, by);
            (lines.len(), Line::sum(lines.iter().map(|(_, line)| line)))
        });
        assert_eq!(sums.map(|(count, _)| count), [2, 2, 3]);
        assert!(sums.iter().all(|(_, sum)| *sum == sums[0].1));
        assert_eq!(sums[0].1.live_bytes, 12 * 16 + 16384);
        assert_eq!(sums[0].1.slab_live_bytes, 12 * 16);
        assert_eq!(sums[0].1.slab_bytes, 3 * 4096);
    }
}
