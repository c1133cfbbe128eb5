//! Large blocks: each has a place of its own, so that those that came and stayed are known one by one; who made them is
//! told by who touched them first.

use super::touches::Touch;
use crate::allocator::Block;
use crate::attribution::{self, Evidence, Grown, Share};
use crate::content::Shape;
use crate::snapshot::Liveness;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Blocks from this size on count as large: smaller ones come out of thread caches or are too many to be told apart.
pub const LARGE_BYTES_MIN: u64 = 32 * 1024;
/// Fewest blocks that growth must be.
const BLOCKS_MIN: f64 = 3.0;

/// Divides the growth of all large blocks, in bytes, among those who touched the new ones first.
pub fn shares(
    touches: &[Touch],
    first: &[Liveness],
    last: &[Liveness],
    delta_bytes: f64,
    old_before_ns: u64,
) -> Vec<Share<Shape>> {
    let fresh = fresh_blocks(first, last);
    let bytes = fresh.values().map(|block| block.usable_bytes).fold(0, u64::saturating_add);
    let mean_bytes = bytes as f64 / fresh.len().max(1) as f64;
    let delta_blocks = delta_bytes / mean_bytes.max(1.0);
    if delta_blocks < BLOCKS_MIN {
        return Vec::new();
    }
    // Whoever had a part of its place before has touched it, too.
    let mut owners: HashMap<u64, (u64, usize)> = HashMap::new();
    for touch in touches {
        if let Some(block) = containing(&fresh, touch.address) {
            let owner = owners.entry(block.address).or_insert((touch.time_ns, touch.site));
            *owner = (*owner).max((touch.time_ns, touch.site));
        }
    }
    let mut blocks_of: HashMap<usize, BTreeSet<u64>> = HashMap::new();
    owners.iter().for_each(|(block, (_, site))| {
        blocks_of.entry(*site).or_default().insert(*block);
    });
    let is_of = |touch: &Touch| {
        let block = containing(&fresh, touch.address)?;
        owners.get(&block.address).filter(|(_, site)| *site == touch.site)
    };
    let evidence: Vec<Evidence<Shape>> = touches
        .iter()
        .map(|touch| Evidence {
            block_bytes: 0,
            site: touch.site,
            weight: 1.0,
            is_old: touch.time_ns < old_before_ns,
            stayed: is_of(touch).map(|_| Shape::default()),
        })
        .collect();
    let grown = Grown { block_bytes: 0, shape: Shape::default(), delta_blocks };
    let mut shares = attribution::divide(&evidence, &[grown]);
    for share in &mut shares {
        let blocks = blocks_of.get(&share.site).into_iter().flatten().filter_map(|block| fresh.get(block));
        let (count, bytes) = blocks
            .fold((0, 0), |(count, bytes), one| (count + 1, u64::saturating_add(bytes, one.usable_bytes)));
        share.block_bytes = bytes / u64::max(count, 1);
        // Touches count pages, so that the part is one of bytes.
        share.delta_blocks = share.share * delta_bytes / share.block_bytes.max(1) as f64;
    }
    shares
}

/// Large blocks that are there at the end and were not at the beginning, by address.
fn fresh_blocks<'l>(first: &[Liveness], last: &'l [Liveness]) -> BTreeMap<u64, &'l Block> {
    let is_large = |block: &&Block| !block.cached && block.class_bytes >= LARGE_BYTES_MIN;
    let before: BTreeMap<u64, u64> = first
        .iter()
        .flat_map(|table| table.large.blocks.iter().filter(is_large))
        .map(|block| (block.address, block.usable_bytes))
        .collect();
    let now = last.iter().flat_map(|table| table.large.blocks.iter().filter(is_large));
    now.filter(|block| before.get(&block.address) != Some(&block.usable_bytes))
        .map(|block| (block.address, block))
        .collect()
}

fn containing<'l>(blocks: &BTreeMap<u64, &'l Block>, address: u64) -> Option<&'l Block> {
    // The header of a block may lie before it on the same page.
    let (_, block) = blocks.range(..=address | 0xfff).next_back()?;
    let end = block.address.saturating_add(block.usable_bytes);
    ((block.address & !0xfff)..end).contains(&address).then_some(*block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(addresses: impl Iterator<Item = u64>) -> Vec<Liveness> {
        let blocks = addresses.map(|address| Block {
            address,
            usable_bytes: 200_000,
            held_bytes: 200_704,
            class_bytes: 229_360,
            shard: 0,
            serial: 0,
            cached: false,
        });
        let mut liveness = Liveness::default();
        liveness.large.blocks = blocks.collect();
        vec![liveness]
    }

    #[test]
    fn those_who_touched_what_stays_are_named_and_those_who_touched_what_went_are_not() {
        let place = |index: u64| 0x7000_0000_0010 + index * 0x10_0000;
        let first = table((0..5).map(place));
        let last = table((0..45).map(place));
        let touch = |index: u64, site| Touch { tid: 1, time_ns: index, address: place(index) + 0x3000, site };
        // Site 1 made what is new, site 2 had other places, and some of the old blocks' pages.
        let touches: Vec<Touch> =
            (5..45).map(|index| touch(index, 1)).chain((100..300).map(|index| touch(index, 2))).collect();
        let shares = shares(&touches, &first, &last, 40.0 * 200_000.0, u64::MAX);
        assert_eq!(shares.iter().map(|share| share.site).collect::<Vec<_>>(), [1]);
        assert_eq!((shares[0].block_bytes, shares[0].delta_blocks), (200_000, 40.0));
    }
}
