//! Arenas: what `CPython` takes from the system at once, and cuts into pools.

use super::layout::{ARENA_RECORD_BYTES, Layout};
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use heaptap_platform::AddressRange;

/// Most arenas of one array: 2^20 of 1 MiB.
const ARENAS_MAX: u64 = 1 << 20;
/// Records read at a time.
const RECORDS_AT_ONCE: u64 = 16;

/// One arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arena {
    /// Its place in the array: its pools say it too.
    pub index: u32,
    /// Its address space.
    pub range: AddressRange,
    /// From its first pool to the last that was ever used.
    pub cut: AddressRange,
    /// Pools in use by its own count.
    pub used_pools: u64,
}

impl Arena {
    /// All arenas of the array at `array`, and how many records it was read for. The array ends where no record makes
    /// sense, since nothing near it tells how long it is in all releases.
    pub fn all(memory: &dyn Memory, layout: &Layout, array: u64) -> (Vec<Self>, u64) {
        let mut arenas = Vec::new();
        let mut index = 0;
        while index < ARENAS_MAX {
            let Some(start) = (index * ARENA_RECORD_BYTES).checked_add(array) else { break };
            // Near the end of what is mapped fewer records can be read at once.
            let count = [RECORDS_AT_ONCE, 1].into_iter().find_map(|count| {
                let len_bytes = usize::try_from(count * ARENA_RECORD_BYTES).ok()?;
                memory.read_vec(start, len_bytes).ok()
            });
            let Some(bytes) = count else { break };
            for record in bytes.chunks_exact(usize::try_from(ARENA_RECORD_BYTES).unwrap_or(48)) {
                match Self::parse(layout, record, index) {
                    Ok(arena) => arenas.extend(arena),
                    Err(()) => return (arenas, index),
                }
                index += 1;
            }
        }
        (arenas, index)
    }

    /// What a record says; none where it has no arena.
    fn parse(layout: &Layout, record: &[u8], index: u64) -> Result<Option<Self>, ()> {
        let word = |offset| u64_at(record, offset).ok_or(());
        let (address, next_pool) = (word(0)?, word(8)?);
        let (free, total) = (u32_at(record, 16).ok_or(())?, u32_at(record, 20).ok_or(())?);
        let is_pointer = |word: u64| word.is_multiple_of(8) && word >> 47 == 0;
        if !is_pointer(word(24)?) || !is_pointer(word(32)?) || !is_pointer(word(40)?) {
            return Err(());
        }
        if address == 0 {
            return Ok(None);
        }
        let range = AddressRange::with_len(address, layout.arena_bytes).ok_or(())?;
        let first = address.checked_next_multiple_of(layout.pool_bytes).ok_or(())?;
        let pools = (range.end - first) / layout.pool_bytes;
        let is_arena = address.is_multiple_of(4096)
            && is_pointer(address)
            && u64::from(total) == pools
            && free <= total
            && next_pool.is_multiple_of(layout.pool_bytes)
            && next_pool >= first
            && next_pool <= range.end;
        if !is_arena {
            return Err(());
        }
        let index = u32::try_from(index).map_err(drop)?;
        let cut = AddressRange { start: first, end: next_pool };
        Ok(Some(Self { index, range, cut, used_pools: u64::from(total - free) }))
    }

    /// Where its pools lie that were ever used.
    pub fn pools(&self, layout: &Layout) -> impl Iterator<Item = u64> + use<> {
        (self.cut.start..self.cut.end).step_by(usize::try_from(layout.pool_bytes).unwrap_or(1 << 14))
    }
}
