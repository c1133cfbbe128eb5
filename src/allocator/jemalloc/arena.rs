//! Arenas, the base blocks that hold all of jemalloc's records, and the bins with their locks and counters.

use super::classes::SizeClasses;
use super::layout::{BinPlaces, Layout};
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::AddressRange;

/// Slots of the static array of arenas (`MALLOCX_ARENA_LIMIT`, `arena_types.h`).
pub const ARENAS_MAX: u64 = 4095;

/// Most blocks of one base that are followed: each is at least twice as large as those before until 2 GiB.
const BASE_BLOCKS_MAX: usize = 1 << 16;

/// Largest single block of a base that is believed.
const BASE_BLOCK_BYTES_MAX: u64 = 1 << 38;

/// An arena in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arena {
    /// Its number.
    pub index: u32,
    /// Where its record is.
    pub address: u64,
}

/// A bin of one arena, class and shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinPlace {
    /// Size class.
    pub szind: usize,
    /// Where the bin is.
    pub address: u64,
}

impl Arena {
    /// Whether the record at `address` is that of arena `index`: its base must bear the same number.
    pub fn check(memory: &dyn Memory, layout: &Layout, index: u32, address: u64) -> Option<Self> {
        let base = memory.read_u64(address.checked_add(layout.arena_base)?).ok()?;
        if base == 0 || base % 8 != 0 {
            return None;
        }
        let number = memory.read_u32(base.checked_add(layout.base_ind)?).ok()?;
        (number == index).then_some(Self { index, address })
    }

    /// All arenas of the static array at `array`.
    pub fn all(memory: &dyn Memory, layout: &Layout, array: u64) -> Vec<Self> {
        let Some(end) = array.checked_add(ARENAS_MAX * 8) else { return Vec::new() };
        let mut found = Vec::new();
        for present in memory.present(AddressRange { start: array, end }) {
            let Ok(bytes) = memory.read_vec(present.start, usize::try_from(present.len_bytes()).unwrap_or(0))
            else {
                continue;
            };
            let first = u32::try_from((present.start - array) / 8).unwrap_or(u32::MAX);
            for (index, address) in (first..).zip(words(&bytes)) {
                if address != 0
                    && address % 8 == 0
                    && let Some(arena) = Self::check(memory, layout, index, address)
                {
                    found.push(arena);
                }
            }
        }
        found
    }

    /// The blocks of the arena's base, and whether the list ended as it should.
    pub fn base_blocks(&self, memory: &dyn Memory, layout: &Layout) -> (Vec<AddressRange>, bool) {
        let base = memory.read_u64(self.address.wrapping_add(layout.arena_base));
        let Ok(head) = base.and_then(|base| memory.read_u64(base.wrapping_add(layout.base_blocks))) else {
            return (Vec::new(), false);
        };
        let mut blocks: Vec<AddressRange> = Vec::new();
        let mut next = head;
        while next != 0 {
            let (Ok(len_bytes), Ok(after)) = (memory.read_u64(next), memory.read_u64(next.wrapping_add(8)))
            else {
                return (blocks, false);
            };
            let end =
                next.checked_add(len_bytes).filter(|_| len_bytes <= BASE_BLOCK_BYTES_MAX && len_bytes > 0);
            let Some(end) = end else { return (blocks, false) };
            if blocks.len() >= BASE_BLOCKS_MAX || blocks.iter().any(|known| known.start == next) {
                return (blocks, false);
            }
            blocks.push(AddressRange { start: next, end });
            next = after;
        }
        (blocks, true)
    }

    /// All bins of the arena; classes whose bins cannot be reached are left out.
    pub fn bins(&self, memory: &dyn Memory, layout: &Layout, classes: &SizeClasses) -> Vec<BinPlace> {
        let mut places = Vec::new();
        let mut flat = 0;
        for (szind, bin) in classes.bins.iter().enumerate() {
            let index = szind as u64;
            let first = match layout.bins {
                BinPlaces::Inline(offset) => Some(self.address + offset + index * layout.bin_bytes),
                BinPlaces::Pointers(offset) => memory.read_u64(self.address + offset + index * 8).ok(),
                BinPlaces::Flat(offset) => Some(self.address + offset + flat * layout.bin_bytes),
            };
            let shards = match layout.bins {
                BinPlaces::Inline(_) => 1,
                BinPlaces::Pointers(_) | BinPlaces::Flat(_) => u64::from(bin.n_shards),
            };
            flat += shards;
            let Some(first) = first else { continue };
            let shard_places = (0..shards)
                .map(|shard| BinPlace { szind, address: first.wrapping_add(shard * layout.bin_bytes) });
            places.extend(shard_places);
        }
        places
    }

    /// Bytes that jemalloc has handed out to itself from this arena, by its own count.
    pub fn internal_bytes(&self, memory: &dyn Memory, layout: &Layout) -> Option<u64> {
        memory.read_u64(self.address.wrapping_add(layout.arena_internal)).ok()
    }

    /// Extents counted in each large size class, from the arena's statistics.
    pub fn large_counts(&self, memory: &dyn Memory, layout: &Layout, classes: usize) -> Option<Vec<u64>> {
        let stride = usize::try_from(layout.large_stats_bytes).ok()?;
        let start = self.address.wrapping_add(layout.large_stats);
        let bytes = memory.read_vec_sparse(start, stride.checked_mul(classes)?);
        bytes
            .chunks_exact(stride)
            .map(|element| {
                let mut counters = words(element);
                Some(counters.next()?.wrapping_sub(counters.next()?))
            })
            .collect()
    }
}

impl BinPlace {
    /// Whether the bin's lock is held.
    pub fn locked(&self, memory: &dyn Memory, layout: &Layout) -> bool {
        memory.read_u32(self.address.wrapping_add(layout.bin_lock)).is_ok_and(|word| word != 0)
    }

    /// Regions handed out and slabs, by the bin's own counters.
    pub fn counters(&self, memory: &dyn Memory, layout: &Layout) -> Option<(u64, u64)> {
        let bytes = memory.read_vec_sparse(self.address, usize::try_from(layout.bin_bytes).ok()?);
        let at = |offset: u64| crate::memory::u64_at(&bytes, usize::try_from(offset).ok()?);
        Some((at(layout.bin_curregs)?, at(layout.bin_curslabs)?))
    }
}
