//! Is the growth between two moments what counting every block by itself gives, and does it add up?

mod blocks;

use blocks::{Heap, Place, heap, heap_and_later, process};
use heaptap::growth::{self, Group, Growth, GrowthOptions, Observation, Row};
use heaptap::snapshot::Snapshot;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

/// Delta of blocks and bytes, live blocks and bytes, born, died, stayed.
type Figures = (i64, i64, u64, u64, Option<u64>, Option<u64>, Option<u64>);
type Rows = BTreeMap<(Option<u32>, u64), Figures>;

fn key(place: &Place, group: Group) -> (Option<u32>, u64) {
    match group {
        Group::ShardAndClass => (Some(place.2), place.3),
        Group::Class => (None, place.3),
        Group::Shard => (Some(place.2), 0),
    }
}

/// The rows by sets of places.
fn counted(first: &Heap, last: &Heap, group: Group) -> Rows {
    let (first, last): (HashSet<Place>, HashSet<Place>) =
        (first.places().into_iter().collect(), last.places().into_iter().collect());
    let mut rows: Rows = BTreeMap::new();
    for place in first.union(&last) {
        let row = rows.entry(key(place, group)).or_insert((0, 0, 0, 0, Some(0), Some(0), Some(0)));
        let bytes = place.4 as i64;
        let more = |count: &mut Option<u64>| *count = count.map(|count| count + 1);
        match (first.contains(place), last.contains(place)) {
            (true, true) => more(&mut row.6),
            (true, false) => {
                (row.0, row.1) = (row.0 - 1, row.1 - bytes);
                more(&mut row.5);
            }
            _ => {
                (row.0, row.1) = (row.0 + 1, row.1 + bytes);
                more(&mut row.4);
            }
        }
        if last.contains(place) {
            (row.2, row.3) = (row.2 + 1, row.3 + place.4);
        }
    }
    rows
}

fn figures(growth: &Growth) -> Rows {
    let figures = |row: &Row| {
        let Row { delta_blocks, delta_bytes, live_blocks, live_bytes, .. } = *row;
        (
            delta_blocks,
            delta_bytes,
            live_blocks,
            live_bytes,
            row.born_blocks,
            row.died_blocks,
            row.stayed_blocks,
        )
    };
    let rows: Rows = growth.rows.iter().map(|row| ((row.shard, row.size_bytes), figures(row))).collect();
    assert_eq!(rows.len(), growth.rows.len(), "one row for each cell");
    rows
}

fn grown(first: &Snapshot, last: &Snapshot, group: Group) -> Growth {
    let options = GrowthOptions { group, large_blocks_max: usize::MAX, ..GrowthOptions::default() };
    let moments = [Observation::of("first", first), Observation::of("last", last)];
    growth::between(&moments, &options).expect("moments of one process")
}

fn between(first: &Heap, last: &Heap, group: Group) -> Growth {
    grown(&first.snapshot(process(7), 10.0), &last.snapshot(process(7), 20.0), group)
}

const GROUPS: [Group; 3] = [Group::ShardAndClass, Group::Class, Group::Shard];

proptest! {
    #[test]
    fn rows_are_what_counting_every_block_gives((first, last) in heap_and_later()) {
        for group in GROUPS {
            prop_assert_eq!(figures(&between(&first, &last, group)), counted(&first, &last, group));
        }
    }

    #[test]
    fn nothing_grows_between_a_moment_and_itself(heap in heap()) {
        let growth = between(&heap, &heap, Group::ShardAndClass);
        prop_assert!(growth.large_blocks.is_empty());
        prop_assert_eq!((growth.total_delta_bytes, growth.total_delta_blocks), (0, 0));
        for row in &growth.rows {
            prop_assert_eq!((row.delta_blocks, row.delta_bytes), (0, 0));
            prop_assert_eq!((row.born_blocks, row.died_blocks), (Some(0), Some(0)));
            prop_assert_eq!(row.stayed_blocks, Some(row.live_blocks));
        }
    }

    #[test]
    fn the_way_back_is_the_opposite((first, last) in heap_and_later()) {
        let there = figures(&between(&first, &last, Group::ShardAndClass));
        let back = figures(&between(&last, &first, Group::ShardAndClass));
        prop_assert!(there.keys().eq(back.keys()));
        for (there, back) in there.values().zip(back.values()) {
            prop_assert_eq!((there.0, there.1), (-back.0, -back.1));
            prop_assert_eq!((there.4, there.5, there.6), (back.5, back.4, back.6));
        }
    }

    #[test]
    fn rows_add_up_to_the_summaries((first, last) in heap_and_later()) {
        let live = |heap: &Heap| heap.places().iter().map(|place| place.4 as i64).sum::<i64>();
        for group in GROUPS {
            let growth = between(&first, &last, group);
            prop_assert_eq!(growth.total_delta_bytes, live(&last) - live(&first));
            prop_assert_eq!(growth.total_delta_bytes, growth.rows.iter().map(|row| row.delta_bytes).sum::<i64>());
            prop_assert_eq!(growth.total_delta_blocks, growth.rows.iter().map(|row| row.delta_blocks).sum::<i64>());
            for row in &growth.rows {
                let [born, died, stayed] = [row.born_blocks, row.died_blocks, row.stayed_blocks].map(Option::unwrap);
                prop_assert_eq!(row.delta_blocks, born as i64 - died as i64);
                prop_assert_eq!(row.live_blocks, born + stayed);
                prop_assert_eq!(row.live_blocks as i64 - row.delta_blocks, (died + stayed) as i64);
            }
        }
    }

    #[test]
    fn joined_shards_are_the_sum_of_shards((first, last) in heap_and_later()) {
        let mut sums: BTreeMap<u64, [i64; 7]> = BTreeMap::new();
        let numbers = |row: &Row| {
            let places = [row.born_blocks, row.died_blocks, row.stayed_blocks].map(|count| count.unwrap() as i64);
            let [live_blocks, live_bytes] = [row.live_blocks, row.live_bytes].map(|count| count as i64);
            [row.delta_blocks, row.delta_bytes, live_blocks, live_bytes, places[0], places[1], places[2]]
        };
        for row in &between(&first, &last, Group::ShardAndClass).rows {
            let sum = sums.entry(row.size_bytes).or_default();
            sum.iter_mut().zip(numbers(row)).for_each(|(sum, number)| *sum += number);
        }
        let joined = between(&first, &last, Group::Class);
        prop_assert!(joined.rows.iter().all(|row| row.shard.is_none()));
        let joined: BTreeMap<u64, [i64; 7]> = joined.rows.iter().map(|row| (row.size_bytes, numbers(row))).collect();
        prop_assert_eq!(joined, sums);
    }

    #[test]
    fn the_order_of_delivery_does_not_matter(
        (first, last) in heap_and_later(),
        order in Just((0..40_usize).collect::<Vec<_>>()).prop_shuffle(),
        reversed: bool,
    ) {
        let mut shuffled = last.clone();
        let place = |index: usize| order.iter().position(|&at| at == index);
        let mut runs: Vec<_> = shuffled.runs.drain(..).enumerate().collect();
        runs.sort_by_key(|(index, _)| place(*index));
        shuffled.runs = runs.into_iter().map(|(_, run)| run).collect();
        shuffled.large.reverse();
        let (first, last) = (first.snapshot(process(7), 10.0), last.snapshot(process(7), 20.0));
        let delivered = vec![shuffled.deliver(reversed)];
        let other = Snapshot::checked(last.summary.clone(), delivered).expect("the same blocks");
        if !reversed {
            prop_assert_eq!(&other, &last);
        }
        prop_assert_eq!(grown(&first, &other, Group::ShardAndClass), grown(&first, &last, Group::ShardAndClass));
    }

    #[test]
    fn large_blocks_that_are_new_or_larger_are_listed((first, last) in heap_and_later()) {
        let mut expected: Vec<(u64, i64, i64)> = Vec::new();
        for new in last.large.iter().filter(|block| !block.cached) {
            let old = first.large.iter().find(|old| {
                old.address == new.address && old.serial == new.serial && !old.cached
            });
            match old {
                None => expected.push((new.address, 1, new.usable_bytes as i64)),
                Some(old) if old.usable_bytes < new.usable_bytes => {
                    expected.push((new.address, 0, (new.usable_bytes - old.usable_bytes) as i64));
                }
                Some(_) => {}
            }
        }
        expected.sort_by_key(|(address, _, bytes)| (-bytes, *address));
        let growth = between(&first, &last, Group::Class);
        let listed = |row: &Row| (row.address.unwrap_or_default(), row.delta_blocks, row.delta_bytes);
        let mut found: Vec<_> = growth.large_blocks.iter().map(listed).collect();
        found.sort_by_key(|(address, _, bytes)| (-bytes, *address));
        prop_assert_eq!(&found, &expected);

        let options = GrowthOptions { large_blocks_max: 2, ..GrowthOptions::default() };
        let (first, last) = (first.snapshot(process(7), 10.0), last.snapshot(process(7), 20.0));
        let moments = [Observation::of("first", &first), Observation::of("last", &last)];
        let short = growth::between(&moments, &options).unwrap();
        prop_assert_eq!(short.large_blocks.len(), expected.len().min(2));
        let noted = short.notes.iter().any(|note| note.contains("more large blocks"));
        prop_assert_eq!(noted, expected.len() > 2);
        prop_assert!(short.large_blocks.iter().all(|row| row.delta_bytes >= expected[..2.min(expected.len())].last().unwrap().2));
    }

    #[test]
    fn without_blocks_the_counts_are_the_same((first, last) in heap_and_later()) {
        let (first, last) = (first.snapshot(process(7), 10.0), last.snapshot(process(7), 20.0));
        let exact = grown(&first, &last, Group::ShardAndClass);
        let moments = [Observation::of("first", &first), Observation::totals_only("last", &last.summary)];
        let counted = growth::between(&moments, &GrowthOptions::default()).unwrap();
        let without_places = |row: &Row| Row { born_blocks: None, died_blocks: None, stayed_blocks: None, ..row.clone() };
        prop_assert_eq!(counted.rows, exact.rows.iter().map(without_places).collect::<Vec<_>>());
        prop_assert_eq!(counted.total_delta_bytes, exact.total_delta_bytes);
    }

    #[test]
    fn moments_between_add_a_trend_and_change_no_count((first, last) in heap_and_later(), middle in heap()) {
        let first = first.snapshot(process(7), 10.0);
        let middle = middle.snapshot(process(7), 15.0);
        let last = last.snapshot(process(7), 20.0);
        let two = grown(&first, &last, Group::ShardAndClass);
        let moments = [
            Observation::of("first", &first),
            Observation::totals_only("middle", &middle.summary),
            Observation::of("last", &last),
        ];
        let three = growth::between(&moments, &GrowthOptions::default()).unwrap();
        prop_assert_eq!(three.between.len(), 1);
        prop_assert_eq!(three.between[0].live_bytes, middle.summary.allocators[0].live_bytes);
        let mut rows = figures(&three);
        rows.retain(|_, row| row.2 > 0 || row.0 < 0 || row.5 > Some(0));
        prop_assert_eq!(rows, figures(&two));
        for row in &three.rows {
            // Three moments at equal distances: the middle one has no say in the slope.
            let slope = row.delta_bytes as f64 / 10.0;
            prop_assert!((row.slope_bytes_per_s.unwrap() - slope).abs() < 1e-6);
            prop_assert!(row.steady.is_some());
        }
        prop_assert!(two.rows.iter().all(|row| row.slope_bytes_per_s.is_none() && row.steady.is_none()));
    }
}
