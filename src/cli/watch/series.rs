//! Live bytes of a row at several moments, for its sparkline.

use crate::growth::Row;
use crate::snapshot::Summary;

/// Points that a sparkline is made of.
const POINTS_MAX: usize = 12;

/// At most [`POINTS_MAX`] of the moments, evenly spread, the first and the last among them.
pub(super) fn spread<T: Copy>(moments: &[T]) -> Vec<T> {
    let last = moments.len().saturating_sub(1);
    if last < POINTS_MAX {
        return moments.to_vec();
    }
    (0..POINTS_MAX).filter_map(|point| moments.get(point * last / (POINTS_MAX - 1)).copied()).collect()
}

/// Live bytes of the blocks that a row speaks of.
pub(super) fn live_bytes(summary: &Summary, row: &Row) -> u64 {
    let allocators = summary.allocators.iter().filter(|allocator| allocator.name == row.allocator);
    let shards = allocators
        .flat_map(|allocator| &allocator.shards)
        .filter(|shard| row.shard.is_none_or(|id| shard.id == id));
    let classes = shards.flat_map(|shard| &shard.classes);
    let is_whole_shard = row.size_bytes == 0 && row.shard.is_some();
    classes
        .filter(|class| is_whole_shard || class.size_bytes == row.size_bytes)
        .fold(0, |sum: u64, class| sum.saturating_add(class.live_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_moment_are_always_shown() {
        let all: Vec<u32> = (0..100).collect();
        let shown = spread(&all);
        assert_eq!(shown.len(), POINTS_MAX);
        assert_eq!((shown.first(), shown.last()), (Some(&0), Some(&99)));
        assert!(shown.is_sorted_by(|a, b| a < b));
        assert_eq!(spread(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(spread::<u32>(&[]), Vec::<u32>::new());
    }
}
