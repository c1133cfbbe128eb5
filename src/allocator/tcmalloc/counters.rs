//! The page heap's own counters.

use super::page_map::PageMap;
use crate::memory::{Memory, MemoryExt};
use heaptap_platform::AddressRange;

/// Bytes in spans by the page heap's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// All that it has from the system.
    pub system_bytes: u64,
    /// Free, kept.
    pub free_bytes: u64,
    /// Free, given back.
    pub unmapped_bytes: u64,
    /// What is backed by memory.
    pub committed_bytes: u64,
}

/// Where they are.
pub fn range(map: &PageMap) -> AddressRange {
    let start = map.root.saturating_add(map.geometry.root_to_counters());
    AddressRange { start, end: start.saturating_add(32) }
}

impl Counters {
    /// Those behind the page map, or `None` where what lies there are none.
    pub fn read(memory: &dyn Memory, map: &PageMap) -> Option<Self> {
        let words = memory.read_words(range(map).start, 4).ok()?;
        let [system_bytes, free_bytes, unmapped_bytes, committed_bytes] = words.try_into().ok()?;
        let counters = Self { system_bytes, free_bytes, unmapped_bytes, committed_bytes };
        let page_bytes = map.geometry.page_bytes();
        let whole =
            [system_bytes, free_bytes, unmapped_bytes].iter().all(|bytes| bytes.is_multiple_of(page_bytes));
        let fits = free_bytes.checked_add(unmapped_bytes).is_some_and(|bytes| bytes <= system_bytes);
        (whole && fits && system_bytes > 0).then_some(counters)
    }
}
