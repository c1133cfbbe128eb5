//! Thread caches: for each size class a list of free objects. All caches are linked to each other.

use super::layout::{Layout, free_list};
use super::size_map::SizeMap;
use crate::allocator::{AddressSpace, Data};
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use heaptap_platform::AddressRange;
use std::collections::HashSet;

/// Most caches that are followed.
const CACHES_MAX: usize = 1 << 18;

/// One size class's list in a thread cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeList {
    /// The size class.
    pub class: u64,
    /// Where its head is.
    pub address: u64,
    /// The first object.
    pub first: u64,
    /// Objects by its own count.
    pub length: u64,
}

/// One thread cache at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadCache {
    /// Where it is.
    pub address: u64,
    /// Its lists, but for that of class 0.
    pub lists: Vec<FreeList>,
    /// The next cache, 0 at the end.
    next: u64,
    /// The one before, 0 at the beginning.
    previous: u64,
}

impl ThreadCache {
    /// The cache at `address`; `None` if the sizes in its lists are not those of the classes.
    pub fn read(memory: &dyn Memory, layout: &Layout, sizes: &SizeMap, address: u64) -> Option<Self> {
        let bytes = memory.read_vec(address, usize::try_from(layout.cache_bytes()).ok()?).ok()?;
        let mut lists = Vec::with_capacity(sizes.classes.len());
        for (class, size) in (0..).zip(&sizes.classes) {
            let offset = class * free_list::STRIDE;
            let word = |field: u64| u32_at(&bytes, usize::try_from(offset + field).ok()?).map(u64::from);
            if word(free_list::SIZE)? != size.size_bytes {
                return None;
            }
            let first = u64_at(&bytes, usize::try_from(offset).ok()?)?;
            lists.push(FreeList {
                class,
                address: address + offset,
                first,
                length: word(free_list::LENGTH)?,
            });
        }
        let at = |offset: u64| u64_at(&bytes, usize::try_from(offset).ok()?);
        Some(Self {
            address,
            lists: lists.split_off(1),
            next: at(layout.cache_next)?,
            previous: at(layout.cache_next + 8)?,
        })
    }
}

/// All caches of a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThreadCaches {
    /// Youngest first.
    pub list: Vec<ThreadCache>,
    /// The links led from one end to the other.
    pub whole: bool,
}

impl ThreadCaches {
    /// All caches that are linked with the one that some of `slots` points to.
    pub fn gather(memory: &dyn Memory, layout: &Layout, sizes: &SizeMap, slots: &[u64]) -> Self {
        let pointers =
            slots.iter().filter_map(|slot| memory.read_u64(*slot).ok()).filter(|pointer| *pointer != 0);
        let chains = pointers.map(|pointer| Self::around(memory, layout, sizes, pointer));
        chains.max_by_key(|chain| (chain.whole, chain.list.len())).unwrap_or_default()
    }

    fn around(memory: &dyn Memory, layout: &Layout, sizes: &SizeMap, pointer: u64) -> Self {
        let read = |address| ThreadCache::read(memory, layout, sizes, address);
        let mut seen = HashSet::new();
        let (mut first, mut whole) = (pointer, true);
        while let Some(before) = read(first).map(|cache| cache.previous).filter(|before| *before != 0) {
            if !seen.insert(first) || seen.len() > CACHES_MAX {
                whole = false;
                break;
            }
            if read(before).is_none_or(|cache| cache.next != first) {
                whole = false;
                break;
            }
            first = before;
        }
        let mut list: Vec<ThreadCache> = Vec::new();
        let (mut address, mut before) = (first, None);
        seen.clear();
        while address != 0 {
            let cache = read(address).filter(|cache| before.is_none_or(|before| cache.previous == before));
            let Some(cache) = cache.filter(|_| seen.insert(address) && seen.len() <= CACHES_MAX) else {
                whole = false;
                break;
            };
            before = Some(address);
            address = cache.next;
            list.push(cache);
        }
        Self { whole: whole && !list.is_empty(), list }
    }
}

/// Where a module's data points to caches.
pub fn slots(
    data: &Data,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    layout: &Layout,
    sizes: &SizeMap,
) -> Vec<u64> {
    let second = sizes.classes.get(1).map_or(0, |class| class.size_bytes);
    let size_at = free_list::STRIDE + free_list::SIZE;
    let is_cache = |address: u64| {
        let size = address.checked_add(size_at).and_then(|at| memory.read_u32(at).ok());
        size.map(u64::from) == Some(second) && ThreadCache::read(memory, layout, sizes, address).is_some()
    };
    let pointers = data.words().filter(|(_, word)| word.is_multiple_of(8) && space.holds_records(*word));
    pointers.filter(|(_, word)| is_cache(*word)).map(|(slot, _)| slot).collect()
}

/// The ranges of caches that a walk reads.
pub fn ranges(caches: &ThreadCaches, layout: &Layout) -> impl Iterator<Item = AddressRange> {
    let len_bytes = layout.cache_bytes();
    caches.list.iter().filter_map(move |cache| AddressRange::with_len(cache.address, len_bytes))
}
