//! Arenas: the circle that they form, and what each one's record says.

use super::layout::{BIN_WORDS, FASTBINS, Layout};
use crate::memory::{Memory, MemoryExt, u32_at, u64_at, words};

/// Most arenas that are followed; the library makes eight per CPU.
const ARENAS_MAX: usize = 1 << 16;

/// A flag of an arena: its memory is not one piece that `brk` grows.
const NONCONTIGUOUS: u32 = 2;

/// One arena's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// 0 is the main arena; the others are counted in the order in which they were made.
    pub index: u32,
    /// Where its record is.
    pub address: u64,
    /// The chunk at the end of its memory that all others are cut from.
    pub top: u64,
    /// Its memory is in several pieces. Means something for the main arena only.
    pub noncontiguous: bool,
    /// Heads of the fastbins.
    pub fastbins: Vec<u64>,
    /// First and last chunk of each bin.
    pub bins: Vec<u64>,
    /// Bytes that it has from the system, by its own count.
    pub system_bytes: u64,
    /// Whether its record tells how many threads use it (2.23 on).
    pub has_attached_threads: bool,
}

impl Arena {
    /// The record at `address`.
    pub fn read(memory: &dyn Memory, layout: &Layout, index: u32, address: u64) -> Option<Self> {
        let bytes = memory.read_vec(address, usize::try_from(layout.arena_bytes()).ok()?).ok()?;
        let at = |offset: u64| u64_at(&bytes, usize::try_from(offset).ok()?);
        let list = |offset: u64, count: u64| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(count * 8).ok()?)?;
            Some(words(bytes.get(start..end)?).collect::<Vec<u64>>())
        };
        // A count of threads is small; the bytes from the system are whole pages.
        let after_links = at(layout.next() + 16)?;
        let has_attached_threads = after_links < 1 << 16;
        let system_bytes = if has_attached_threads { at(layout.next() + 24)? } else { after_links };
        Some(Self {
            index,
            address,
            top: at(layout.top)?,
            noncontiguous: u32_at(&bytes, 4)? & NONCONTIGUOUS != 0,
            fastbins: layout.fastbins.map_or(Some(Vec::new()), |offset| list(offset, FASTBINS))?,
            bins: list(layout.bins, BIN_WORDS)?,
            system_bytes,
            has_attached_threads,
        })
    }

    /// The records of all arenas of the circle that `main` is in, or `None` if it does not close.
    pub fn all(memory: &dyn Memory, layout: &Layout, main: u64) -> Option<Vec<Self>> {
        let addresses = circle(memory, layout, main)?;
        // New arenas are linked in behind the main one, so the circle has the youngest first.
        let count = u32::try_from(addresses.len()).ok()?;
        let numbered = addresses.iter().zip(0..count).map(|(address, place)| {
            let index = if place == 0 { 0 } else { count - place };
            Self::read(memory, layout, index, *address)
        });
        let mut arenas: Vec<Self> = numbered.collect::<Option<_>>()?;
        arenas.sort_by_key(|arena| arena.index);
        Some(arenas)
    }

    /// What the links of bin `bin` (from 1 on) call their head.
    pub const fn bin_head(&self, layout: &Layout, bin: u64) -> u64 {
        self.address + layout.bins + (bin - 1) * 16 - 16
    }

    /// Whether it has taken any memory yet; its top is a bin as long as it has not.
    pub const fn has_memory(&self, layout: &Layout) -> bool {
        self.top != 0 && self.top != self.bin_head(layout, 1)
    }
}

/// The addresses of the circle that `main` is in, itself first; `None` if it does not close.
pub fn circle(memory: &dyn Memory, layout: &Layout, main: u64) -> Option<Vec<u64>> {
    let mut addresses = vec![main];
    let mut next = memory.read_u64(main.checked_add(layout.next())?).ok()?;
    while next != main {
        if next == 0 || next % 16 != 0 || addresses.len() >= ARENAS_MAX || addresses.last() == Some(&next) {
            return None;
        }
        addresses.push(next);
        next = memory.read_u64(next.checked_add(layout.next())?).ok()?;
    }
    Some(addresses)
}
