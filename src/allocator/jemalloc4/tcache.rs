//! Thread caches: regions that the arenas count as handed out and the program has given back.
//!
//! They hang on lists of the arenas, which only builds with statistics keep.

use super::arena::Arena;
use super::layout::Layout;
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use heaptap_platform::AddressRange;
use std::collections::BTreeSet;

/// Most caches followed on one list.
const CACHES_MAX: usize = 1 << 20;
/// Most blocks in all caches together.
const BLOCKS_MAX: usize = 1 << 26;
/// Bytes of the stack of one bin, at most: 200 blocks (`TCACHE_NSLOTS_SMALL_MAX`).
const STACK_BYTES_MAX: u64 = 200 * 8;
/// Bins of a cache, at most: small classes and the large ones up to `opt.lg_tcache_max`.
const CACHE_BINS_MAX: usize = 128;
/// `tcache_bin_t` (`tcache.h`).
const BIN_BYTES: usize = 32;
const BIN_NCACHED: usize = 16;
const BIN_AVAIL: usize = 24;

/// A block in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CachedBlock {
    /// Its address.
    pub address: u64,
    /// The size class of the bin that it lies in.
    pub szind: u64,
}

/// What all thread caches hold.
#[derive(Debug, Clone, Default)]
pub struct Caches {
    /// Where the caches are, in one piece each with their stacks.
    pub caches: Vec<AddressRange>,
    /// Blocks in them, sorted.
    pub blocks: Vec<CachedBlock>,
    /// Caches and lists that do not make sense.
    pub broken: Vec<u64>,
    /// The arenas keep lists.
    pub are_listed: bool,
}

impl Caches {
    /// Gathers all caches of `arenas`.
    pub fn gather(memory: &dyn Memory, layout: &Layout, arenas: &[Arena]) -> Self {
        let mut caches = Self::default();
        let mut seen = BTreeSet::new();
        for arena in arenas {
            let Ok(first) = memory.read_u64(arena.address.wrapping_add(layout.arena_tcaches)) else {
                caches.broken.push(arena.address);
                continue;
            };
            let mut next = first;
            while next != 0 {
                if next % 8 != 0 || seen.len() >= CACHES_MAX || !seen.insert(next) {
                    caches.broken.push(next);
                    break;
                }
                caches.are_listed = true;
                caches.cache(memory, layout, next);
                match memory.read_u64(next) {
                    Ok(after) if after == first => break,
                    // The list is a circle: an end is a break in it.
                    Ok(after) if after != 0 && caches.blocks.len() < BLOCKS_MAX => next = after,
                    _ => {
                        caches.broken.push(next);
                        break;
                    }
                }
            }
        }
        caches.blocks.sort_unstable();
        caches
    }

    fn cache(&mut self, memory: &dyn Memory, layout: &Layout, address: u64) {
        let stacks = stacks(memory, layout, address);
        let mut end = address;
        for (szind, stack) in (0..).zip(&stacks) {
            end = end.max(stack.cached.end);
            match memory.read_words(stack.cached.start, stack.count) {
                Ok(words) => {
                    self.blocks.extend(words.into_iter().map(|address| CachedBlock { address, szind }));
                }
                Err(_) => self.broken.push(address),
            }
        }
        if stacks.is_empty() {
            self.broken.push(address);
        }
        self.caches.push(AddressRange { start: address, end });
    }
}

/// The blocks of one bin.
struct Stack {
    cached: AddressRange,
    count: usize,
}

/// The stacks of the cache at `address`. Its bins end where the stacks begin, which stand in the order of the bins.
fn stacks(memory: &dyn Memory, layout: &Layout, address: u64) -> Vec<Stack> {
    let mut stacks: Vec<Stack> = Vec::new();
    let bins = address.wrapping_add(layout.tcache_bins);
    let mut avails: Option<(u64, u64)> = None;
    for index in 0..CACHE_BINS_MAX {
        let place = bins.wrapping_add((index * BIN_BYTES) as u64);
        let Ok(bytes) = memory.read_vec(place, BIN_BYTES) else { break };
        let (Some(ncached), Some(avail)) = (u32_at(&bytes, BIN_NCACHED), u64_at(&bytes, BIN_AVAIL)) else {
            break;
        };
        let (first, last) = avails.unwrap_or((avail, place));
        let len_bytes = u64::from(ncached) * 8;
        let room = if avails.is_some() { avail.wrapping_sub(last) } else { STACK_BYTES_MAX };
        let follows = avail > place && avail > last && avail % 8 == 0 && room <= STACK_BYTES_MAX;
        if !follows || place >= first || len_bytes > STACK_BYTES_MAX {
            break;
        }
        avails = Some((first, avail));
        let start = if layout.avail_is_first { avail } else { avail.wrapping_sub(len_bytes) };
        let cached = AddressRange { start, end: start.saturating_add(len_bytes) };
        stacks.push(Stack { cached, count: ncached as usize });
    }
    stacks
}
