//! Growth by type: what random blocks of each class were at two moments, with the error of that.

use super::schema::TypeGrowth;
use super::track::Track;
use crate::snapshot::Summary;
use std::collections::BTreeMap;

/// Standard errors of a 95 % interval.
const SIGMAS: f64 = 1.96;

/// The types of all classes at both moments; none where one of them was taken without types.
pub(super) fn types(first: &Summary, last: &Summary, tracks: &[Track]) -> Vec<TypeGrowth> {
    if first.types.is_empty() || last.types.is_empty() {
        return Vec::new();
    }
    let label = |moment: fn(&Track) -> Option<usize>, allocator: u32| {
        let is_it = |track: &&Track| moment(track) == usize::try_from(allocator).ok();
        tracks.iter().find(is_it).map(|track| track.label.as_str())
    };
    let of_first = |track: &Track| track.index.first().copied().flatten();
    let of_last = |track: &Track| track.index.last().copied().flatten();
    let mut sums: BTreeMap<(&str, u64, &str), (f64, f64)> = BTreeMap::new();
    let rows = first.types.iter().map(|row| (row, label(of_first, row.allocator), -1.0));
    let rows = rows.chain(last.types.iter().map(|row| (row, label(of_last, row.allocator), 1.0)));
    for (row, allocator, sign) in rows {
        let (blocks, error) = row.estimate();
        let key = (allocator.unwrap_or_default(), row.size_bytes, row.type_name.as_str());
        let sum = sums.entry(key).or_default();
        *sum = (sum.0 + sign * blocks, sum.1.hypot(error));
    }
    let mut types: Vec<TypeGrowth> = sums
        .into_iter()
        .filter(|(_, (blocks, _))| blocks.round() != 0.0)
        .map(|((allocator, size_bytes, type_name), (blocks, error))| TypeGrowth {
            allocator: allocator.to_owned(),
            size_bytes,
            type_name: type_name.to_owned(),
            delta_blocks: blocks.round() as i64,
            delta_blocks_error: error * SIGMAS,
            delta_bytes: (blocks * size_bytes as f64).round() as i64,
        })
        .collect();
    types.sort_by_key(|row| std::cmp::Reverse(row.delta_bytes));
    types
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::schema::TypeRow;

    fn summary(blocks: u64, read_blocks: u64, live_blocks: u64) -> Summary {
        let row = |type_name: &str, blocks| TypeRow {
            allocator: 0,
            size_bytes: 48,
            live_blocks,
            read_blocks,
            type_name: type_name.to_owned(),
            blocks,
        };
        let types = vec![row("Bid", blocks), row("text", read_blocks - blocks)];
        Summary { types, ..Summary::default() }
    }

    fn growth(first: &Summary, last: &Summary) -> Vec<(String, i64, f64)> {
        let track = Track { label: "jemalloc".to_owned(), index: vec![Some(0), Some(0)] };
        let rows = types(first, last, &[track]);
        rows.into_iter().map(|row| (row.type_name, row.delta_blocks, row.delta_blocks_error)).collect()
    }

    #[test]
    fn classes_read_as_a_whole_are_exact() {
        let rows = growth(&summary(100, 150, 150), &summary(300, 350, 350));
        assert_eq!(rows, [("Bid".to_owned(), 200, 0.0)]);
    }

    #[test]
    fn parts_are_scaled_and_have_an_error() {
        let rows = growth(&summary(100, 1000, 10_000), &summary(500, 1000, 10_000));
        assert_eq!((rows[0].0.as_str(), rows[0].1), ("Bid", 4000));
        assert!(rows[0].2 > 200.0 && rows[0].2 < 500.0, "{rows:?}");
        assert_eq!((rows[1].0.as_str(), rows[1].1), ("text", -4000));
    }

    #[test]
    fn without_types_at_both_moments_nothing_is_told() {
        assert!(growth(&Summary::default(), &summary(1, 2, 2)).is_empty());
    }
}
