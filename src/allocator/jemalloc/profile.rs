//! The profiler's own samples: a sampled block has an extent of its own, which points to the context of the thread that
//! allocated it, which points to the context of all threads with the backtrace.
//!
//! A pointer is believed if the backtrace begins where that context keeps its addresses and is of possible length. How
//! many blocks point to a thread's context is compared with the count that jemalloc keeps there.

use super::Jemalloc;
use super::extent::{ACTIVE, Extent};
use crate::allocator::{OwnProfile, SampledBlock, SampledStack, ThreadPointer};
use crate::memory::{Memory, MemoryExt, u32_at, u64_at, words};
use heaptap_platform::AddressRange;
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

/// Longest backtrace: `PROF_BT_MAX` is 128 by default, and builds can have it at up to twice that.
const ADDRESSES_MAX: u64 = 256;
/// Blocks of one context that may turn out not to be its own, and of how many.
const STALE_MAX: u64 = 3;
const CANDIDATES_MAX: usize = 100;
/// What stands in place of a pointer where a block was not sampled.
const NOT_SAMPLED: u64 = 1;
/// Bytes of a backtrace's descriptor.
const BACKTRACE_BYTES: usize = 16;
/// Powers of two that samples can be apart.
const LG_PERIOD_MAX: u64 = 63;

/// A sampled block and the thread's context that it points to.
struct Sampled {
    block: SampledBlock,
    context: u64,
    /// Only sampled blocks of this class have extents of their own.
    is_small: bool,
}

/// Ranges that [`read`] needs besides what a walk does, as far as `memory` leads to them.
pub fn records(jemalloc: &Jemalloc, memory: &dyn Memory) -> Vec<AddressRange> {
    let layout = &jemalloc.layout.profile;
    let mut ranges: Vec<AddressRange> =
        jemalloc.lg_sample.and_then(|word| AddressRange::with_len(word, 8)).into_iter().collect();
    let contexts: HashSet<u64> = sampled(jemalloc, memory).iter().map(|one| one.context).collect();
    let mut globals = HashSet::new();
    for context in contexts {
        ranges.extend(AddressRange::with_len(context, layout.context_read_bytes));
        let global = memory.read_vec(context.wrapping_add(layout.context_global), 8).ok();
        globals.extend(global.and_then(|bytes| u64_at(&bytes, 0)));
    }
    for global in globals {
        let backtrace = global.wrapping_add(layout.global_backtrace);
        ranges.extend(AddressRange::with_len(backtrace, BACKTRACE_BYTES as u64));
        if let Some((addresses, len)) = addresses_of(jemalloc, memory, global) {
            ranges.extend(AddressRange::with_len(addresses, len * 8));
        }
    }
    ranges
}

/// All sampled blocks in use, by their stacks.
pub fn read(jemalloc: &Jemalloc, memory: &dyn Memory, threads: &[ThreadPointer]) -> OwnProfile {
    let caches = jemalloc.caches(memory, &jemalloc.arenas(memory), threads);
    let cached: HashSet<u64> = caches.blocks.iter().map(|block| block.address).collect();
    let mut by_context: BTreeMap<u64, Vec<Sampled>> = BTreeMap::new();
    // A block in a thread's cache still points to what it was sampled with.
    for one in sampled(jemalloc, memory).into_iter().filter(|one| !cached.contains(&one.block.address)) {
        by_context.entry(one.context).or_default().push(one);
    }
    let mut profile = OwnProfile::default();
    let mut stacks: BTreeMap<u64, SampledStack> = BTreeMap::new();
    let mut periods = Vec::new();
    for (address, mut blocks) in by_context {
        let Some(context) = Context::read(jemalloc, memory, address) else {
            // Of large blocks that were not sampled the place of the pointer may never have been written.
            profile.broken += blocks.iter().filter(|one| one.is_small).count() as u64;
            continue;
        };
        leave_out_stale(&mut blocks, &context);
        if blocks.is_empty() && context.blocks == 0 {
            continue;
        }
        profile.counters_compared += 1;
        let bytes = total_bytes(&blocks);
        let is_same = context.blocks == blocks.len() as u64 && context.bytes == bytes;
        profile.counters_differing += u64::from(!is_same);
        periods.extend(context.scaled_bytes.filter(|_| is_same).and_then(|scaled| period(&blocks, scaled)));
        let stack = stacks.entry(context.global).or_default();
        stack.return_addresses = context.return_addresses;
        stack.blocks.extend(blocks.iter().map(|one| one.block));
    }
    profile.period_bytes = stated_period(jemalloc, memory).or_else(|| most_frequent(&periods));
    profile.stacks = stacks.into_values().collect();
    profile
}

/// A thread's context, proved.
struct Context {
    global: u64,
    blocks: u64,
    bytes: u64,
    scaled_bytes: Option<u64>,
    return_addresses: Vec<u64>,
}

impl Context {
    fn read(jemalloc: &Jemalloc, memory: &dyn Memory, address: u64) -> Option<Self> {
        let layout = &jemalloc.layout.profile;
        let len_bytes = usize::try_from(layout.context_read_bytes).ok()?;
        let bytes = memory.read_vec(address, len_bytes).ok()?;
        let field = |offset: u64| u64_at(&bytes, usize::try_from(offset).ok()?);
        let global = field(layout.context_global)?;
        let (addresses, len) = addresses_of(jemalloc, memory, global)?;
        let return_addresses = memory.read_vec(addresses, usize::try_from(len * 8).ok()?).ok()?;
        Some(Self {
            global,
            blocks: field(layout.context_blocks)?,
            bytes: field(layout.context_bytes)?,
            scaled_bytes: layout.context_scaled_bytes.and_then(field),
            return_addresses: words(&return_addresses).collect(),
        })
    }
}

/// Leaves out blocks that jemalloc made for itself: their extents keep the pointer that they had in an earlier life. So many
/// of them, and of such sizes, that the context's counts are met; none where that cannot be had.
fn leave_out_stale(blocks: &mut Vec<Sampled>, context: &Context) {
    let bytes = total_bytes(blocks);
    let Some(excess) = (blocks.len() as u64).checked_sub(context.blocks).filter(|excess| *excess > 0) else {
        return;
    };
    let Some(excess_bytes) = bytes.checked_sub(context.bytes) else { return };
    let large = (0..).zip(blocks.iter()).filter(|(_, one)| !one.is_small);
    let sizes: Vec<(usize, u64)> = large.map(|(index, one)| (index, one.block.usable_bytes)).collect();
    let Some(stale) = choose(&sizes, excess, excess_bytes) else { return };
    let mut index = 0;
    blocks.retain(|_| {
        index += 1;
        !stale.contains(&(index - 1))
    });
}

fn total_bytes(blocks: &[Sampled]) -> u64 {
    blocks.iter().map(|one| one.block.usable_bytes).fold(0, u64::saturating_add)
}

/// So many of `sizes` that their sum is `bytes`, by their indices.
fn choose(sizes: &[(usize, u64)], count: u64, bytes: u64) -> Option<Vec<usize>> {
    if count == 0 {
        return (bytes == 0).then(Vec::new);
    }
    if count == sizes.len() as u64 {
        let is_all = sizes.iter().map(|(_, size)| *size).fold(0, u64::saturating_add) == bytes;
        return is_all.then(|| sizes.iter().map(|(index, _)| *index).collect());
    }
    // Of many, trying all combinations would take too long.
    if count > STALE_MAX || sizes.len() > CANDIDATES_MAX {
        return None;
    }
    (0..sizes.len()).find_map(|at| {
        let (&(index, size), rest) = sizes.get(at..)?.split_first()?;
        let mut others = choose(rest, count - 1, bytes.checked_sub(size)?)?;
        others.push(index);
        Some(others)
    })
}

/// Where the addresses of a context of all threads are, and how many.
fn addresses_of(jemalloc: &Jemalloc, memory: &dyn Memory, global: u64) -> Option<(u64, u64)> {
    let layout = &jemalloc.layout.profile;
    let bytes = memory.read_vec(global.wrapping_add(layout.global_backtrace), BACKTRACE_BYTES).ok()?;
    let (addresses, len) = (u64_at(&bytes, 0)?, u64::from(u32_at(&bytes, 8)?));
    let is_own = addresses == global.wrapping_add(layout.global_addresses);
    (is_own && (1..=ADDRESSES_MAX).contains(&len)).then_some((addresses, len))
}

/// Blocks in use, or cached, that point to a context.
fn sampled(jemalloc: &Jemalloc, memory: &dyn Memory) -> Vec<Sampled> {
    let (tree, layout) = (jemalloc.tree, &jemalloc.layout);
    let (classes, page_bytes) = (&jemalloc.classes, jemalloc.classes.page_bytes);
    let mut found = Vec::new();
    let mut last = 0;
    for leaf in tree.leaves(memory).0 {
        tree.elements(memory, layout, leaf, &mut |page, element| {
            // Slabs are never sampled, and a large extent is filed under its last page as well.
            if element.slab || element.extent == last {
                return ControlFlow::Continue(());
            }
            last = element.extent;
            let Ok(extent) = Extent::read(memory, layout, page_bytes, element.extent) else {
                return ControlFlow::Continue(());
            };
            let is_block = extent.state == ACTIVE && !extent.slab && extent.szind < classes.nsizes();
            if is_block && extent.first_page(page_bytes) == page {
                found.extend(sampled_block(jemalloc, memory, &extent));
            }
            ControlFlow::Continue(())
        });
    }
    found
}

fn sampled_block(jemalloc: &Jemalloc, memory: &dyn Memory, extent: &Extent) -> Option<Sampled> {
    let place = extent.record.wrapping_add(jemalloc.layout.profile.extent_context);
    let context = u64_at(&memory.read_vec(place, 8).ok()?, 0)?;
    if context <= NOT_SAMPLED || !context.is_multiple_of(8) {
        return None;
    }
    let block = SampledBlock {
        address: extent.address,
        usable_bytes: jemalloc.classes.size_bytes(extent.szind)?,
        shard: extent.arena,
    };
    Some(Sampled { block, context, is_small: extent.szind < jemalloc.classes.nbins() })
}

/// The period by which blocks of one size were scaled: n bytes in place of each block's s, where n = s / (1 - e^(-s/period)).
/// Blocks as large as several periods tell nothing.
fn period(blocks: &[Sampled], scaled_bytes: u64) -> Option<u64> {
    let size = blocks.first()?.block.usable_bytes;
    if blocks.iter().any(|one| one.block.usable_bytes != size) {
        return None;
    }
    let size = size as f64;
    let chance = size * blocks.len() as f64 / scaled_bytes as f64;
    if !(chance > 0.0 && chance < 0.9) {
        return None;
    }
    let lg = (-size / (1.0 - chance).ln()).log2().round();
    (0.0..=LG_PERIOD_MAX as f64).contains(&lg).then(|| 1 << lg as u32)
}

fn most_frequent(periods: &[u64]) -> Option<u64> {
    let count = |period: &u64| periods.iter().filter(|other| *other == period).count();
    let candidates: HashSet<u64> = periods.iter().copied().collect();
    candidates.into_iter().max_by_key(|period| (count(period), *period))
}

/// The period that jemalloc's own variable says.
fn stated_period(jemalloc: &Jemalloc, memory: &dyn Memory) -> Option<u64> {
    let lg = u64_at(&memory.read_vec(jemalloc.lg_sample?, 8).ok()?, 0)?;
    (lg <= LG_PERIOD_MAX).then(|| 1 << lg)
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn those_are_chosen_whose_sum_is_wanted() {
        let sizes = [(0, 16384), (3, 65536), (4, 20480), (7, 65536)];
        assert_eq!(choose(&sizes, 1, 65536), Some(vec![3]));
        assert_eq!(choose(&sizes, 2, 36864), Some(vec![4, 0]));
        assert_eq!(choose(&sizes, 4, 167_936), Some(vec![0, 3, 4, 7]));
        assert_eq!(choose(&sizes, 1, 4096), None);
        assert_eq!(choose(&[], 1, 4096), None);
        assert_eq!(choose(&sizes, 0, 0), Some(vec![]));
    }
}
