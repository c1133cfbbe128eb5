//! An allocator's own profile, in use since the program began: sampled blocks scaled to what they stand for, named.
//!
//! A block of `s` bytes is sampled with the chance `1 - e^(-s/period)`, so each stands for the inverse of that. It
//! knows no allocator, and nothing of how the profile is printed.

pub mod schema;

use crate::allocator::{OwnProfile, SampledStack};
use crate::symbolize::Symbolizer;
use crate::unwind::{Frame, Trust};
use schema::{ClassRow, Site};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses of sampled blocks that are told of each site.
const EXAMPLES_MAX: usize = 3;

/// The sites of a profile, most bytes first.
pub fn sites(profile: &OwnProfile, symbolizer: &Symbolizer<'_>) -> Vec<Site> {
    let mut sites: Vec<Site> =
        profile.stacks.iter().map(|stack| site(stack, profile.period_bytes, symbolizer)).collect();
    sites.sort_by_key(|site| (Reverse(site.live_bytes), site.addresses.first().copied()));
    let all: u64 = sites.iter().map(|site| site.live_bytes).fold(0, u64::saturating_add);
    for (site, rank) in sites.iter_mut().zip(1..) {
        site.rank = rank;
        site.share = site.live_bytes as f64 / all.max(1) as f64;
    }
    sites
}

fn site(stack: &SampledStack, period_bytes: Option<u64>, symbolizer: &Symbolizer<'_>) -> Site {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for block in &stack.blocks {
        *counts.entry(block.usable_bytes).or_default() += 1;
    }
    let classes: Vec<ClassRow> =
        counts.into_iter().map(|(size_bytes, blocks)| class(size_bytes, blocks, period_bytes)).collect();
    let shards: BTreeSet<u32> = stack.blocks.iter().map(|block| block.shard).collect();
    let frame = |&address: &u64| Frame {
        program_counter: address,
        stack_pointer: 0,
        trust: Trust::CallFrameInformation,
        is_caller: true,
    };
    let frames = stack.return_addresses.iter().map(frame).flat_map(|frame| symbolizer.frames(&frame));
    // How the allocator found them it does not tell.
    let frames = frames.map(|frame| crate::stacks::schema::Frame { trust: None, ..frame }).collect();
    Site {
        rank: 0,
        live_bytes: classes.iter().map(|class| class.live_bytes).fold(0, u64::saturating_add),
        live_blocks: classes.iter().map(|class| class.live_blocks).fold(0, u64::saturating_add),
        share: 0.0,
        sampled_bytes: stack.blocks.iter().map(|block| block.usable_bytes).fold(0, u64::saturating_add),
        sampled_blocks: stack.blocks.len() as u64,
        classes,
        shards: shards.into_iter().collect(),
        addresses: stack.blocks.iter().take(EXAMPLES_MAX).map(|block| block.address).collect(),
        frames,
    }
}

/// So many sampled blocks of one size, and what they stand for.
fn class(size_bytes: u64, sampled_blocks: u64, period_bytes: Option<u64>) -> ClassRow {
    let scale = period_bytes.map_or(1.0, |period| scale(size_bytes, period));
    let blocks = sampled_blocks as f64 * scale;
    ClassRow {
        size_bytes,
        sampled_blocks,
        live_blocks: blocks.round() as u64,
        live_bytes: (blocks * size_bytes as f64).round() as u64,
    }
}

/// How many blocks of a size one sampled block stands for.
fn scale(size_bytes: u64, period_bytes: u64) -> f64 {
    let chance = -(-(size_bytes as f64) / period_bytes.max(1) as f64).exp_m1();
    if chance > 0.0 { 1.0 / chance } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_blocks_stand_for_many_and_large_ones_for_themselves() {
        // 1 - e^(-1/4) = 0.2212.
        assert!((scale(1024, 4096) - 4.5208).abs() < 1e-3);
        assert!((scale(1 << 20, 4096) - 1.0).abs() < 1e-9);
        assert!((scale(8, 1 << 19) - 65536.5).abs() < 1.0);
        let row = class(1024, 10, Some(4096));
        assert_eq!((row.live_blocks, row.live_bytes, row.sampled_blocks), (45, 46293, 10));
        assert_eq!(class(64, 3, None).live_bytes, 192);
    }
}
