//! Arenas: their numbers, counters, locks, and lists.

use super::layout::Layout;
use crate::allocator::Data;
use crate::memory::{Memory, MemoryExt, u64_at};
use heaptap_platform::AddressRange;
use std::collections::BTreeMap;

/// Most arenas that are looked for.
pub const ARENAS_MAX: u32 = 4096;
/// `malloc_large_stats_t` and its `curruns`, `malloc_huge_stats_t` and its `curhchunks` (`stats.h`).
const LARGE_STATS_BYTES: usize = 32;
const LARGE_CURRUNS: usize = 24;
const HUGE_STATS_BYTES: usize = 24;
const HUGE_CURCHUNKS: usize = 16;
/// Bytes of an arena with the counters behind it, at most.
const ARENA_BYTES: u64 = 32 << 10;

/// An arena in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arena {
    /// Its number.
    pub index: u32,
    /// Where its record is.
    pub address: u64,
}

/// What an arena counts of one small class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinCount {
    /// Regions handed out.
    pub regions: u64,
    /// Runs.
    pub runs: u64,
    /// The lock is held.
    pub is_locked: bool,
}

impl Arena {
    /// The arena at `address`, if that seems to be one.
    pub fn at(memory: &dyn Memory, address: u64) -> Option<Self> {
        let index = memory.read_u32(address).ok().filter(|index| *index < ARENAS_MAX)?;
        (address != 0 && address.is_multiple_of(16)).then_some(Self { index, address })
    }

    /// The array in which all arenas stand by their numbers; a pointer to it lies in the module's data. Several may
    /// seem to be one where there is one arena alone: any of them leads to it.
    pub fn array(memory: &dyn Memory, data: &Data, seen: &BTreeMap<u32, u64>) -> Option<u64> {
        let (&last, _) = seen.last_key_value()?;
        let leads_to_all = |array: u64| {
            let words = memory.read_words(array, last as usize + 1).unwrap_or_default();
            !words.is_empty() && seen.iter().all(|(index, arena)| words.get(*index as usize) == Some(arena))
        };
        data.words().map(|(_, word)| word).find(|word| word % 8 == 0 && leads_to_all(*word))
    }

    /// All arenas: those of the array, and those that chunks name.
    pub fn all(memory: &dyn Memory, array: Option<u64>, seen: &BTreeMap<u32, u64>) -> Vec<Self> {
        let mut all = seen.clone();
        for index in 0..array.map_or(0, |_| ARENAS_MAX) {
            let place = array.unwrap_or(0).wrapping_add(u64::from(index) * 8);
            let Ok(address) = memory.read_u64(place) else { break };
            if address == 0 {
                continue;
            }
            match Self::at(memory, address).filter(|arena| arena.index == index) {
                Some(arena) => all.entry(index).or_insert(arena.address),
                // The array ends where something else begins.
                None => break,
            };
        }
        all.into_iter().map(|(index, address)| Self { index, address }).collect()
    }

    /// Its record, with the counters that stand behind it.
    pub fn range(&self) -> AddressRange {
        AddressRange { start: self.address, end: self.address.saturating_add(ARENA_BYTES) }
    }

    /// What it counts of the small class `index`.
    pub fn bin(&self, memory: &dyn Memory, layout: &Layout, index: usize) -> Option<BinCount> {
        let bin = self.bin_address(layout, index);
        let bytes = memory.read_vec(bin, usize::try_from(layout.bin_bytes).ok()?).ok()?;
        let field = |offset: u64| u64_at(&bytes, usize::try_from(offset).ok()?);
        Some(BinCount {
            regions: field(layout.bin_curregs)?,
            runs: field(layout.bin_curruns)?,
            is_locked: is_locked(memory, layout, bin),
        })
    }

    /// The run that its small class `index` allocates from.
    pub fn current_run(&self, memory: &dyn Memory, layout: &Layout, index: usize) -> Option<u64> {
        memory.read_u64(self.bin_address(layout, index).wrapping_add(layout.bin_runcur)).ok()
    }

    const fn bin_address(&self, layout: &Layout, index: usize) -> u64 {
        self.address.wrapping_add(layout.arena_bins).wrapping_add(index as u64 * layout.bin_bytes)
    }

    /// Blocks that it counts of each class above the small ones: `large_classes` that fit into a chunk, then `huge_classes`.
    pub fn larger(
        &self,
        memory: &dyn Memory,
        layout: &Layout,
        large_classes: usize,
        huge_classes: usize,
    ) -> Option<Vec<u64>> {
        let place = self.address.wrapping_add(layout.arena_lstats);
        let counts = |list: u64, stride: usize, field: usize, count: usize| {
            let bytes = memory.read_vec_sparse(list, stride.checked_mul(count)?);
            bytes.chunks_exact(stride).map(|element| u64_at(element, field)).collect::<Option<Vec<u64>>>()
        };
        let (large, huge) = (memory.read_u64(place).ok()?, memory.read_u64(place.wrapping_add(8)).ok()?);
        if large == 0 || huge == 0 {
            return None;
        }
        let mut all = counts(large, LARGE_STATS_BYTES, LARGE_CURRUNS, large_classes)?;
        all.extend(counts(huge, HUGE_STATS_BYTES, HUGE_CURCHUNKS, huge_classes)?);
        Some(all)
    }

    /// Bytes that it has handed out to jemalloc itself, by its own count.
    pub fn internal_bytes(&self, memory: &dyn Memory, layout: &Layout) -> Option<u64> {
        memory.read_u64(self.address.wrapping_add(layout.arena_internal)).ok()
    }

    /// Words that are not zero while it changes, as far as they can be reached.
    pub fn lock_words(&self, memory: &dyn Memory, layout: &Layout, bins: usize) -> Vec<u64> {
        let places = (0..bins).map(|index| self.bin_address(layout, index));
        let places = std::iter::once(self.address.wrapping_add(layout.arena_lock)).chain(places);
        places.filter_map(|place| lock_word(memory, layout, place)).collect()
    }
}

/// The word of the lock at `place` that is not zero while it is held.
fn lock_word(memory: &dyn Memory, layout: &Layout, place: u64) -> Option<u64> {
    if layout.lock_is_pointer {
        // The owner's thread is the first word of FreeBSD's lock (`struct umutex`).
        return memory.read_u64(place).ok().filter(|lock| *lock != 0 && lock % 8 == 0);
    }
    Some(place)
}

fn is_locked(memory: &dyn Memory, layout: &Layout, place: u64) -> bool {
    let word = lock_word(memory, layout, place);
    word.is_some_and(|word| memory.read_u32(word).is_ok_and(|lock| lock != 0))
}
