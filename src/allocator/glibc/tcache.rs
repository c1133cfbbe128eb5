//! Thread caches: where each thread keeps its own, and which chunks are in it.
//!
//! A thread's cache hangs on a pointer in thread-local storage. Without debug information the place of that pointer
//! is found by its neighbour, the thread's arena: both lie at the same distance from every thread's thread pointer.

use super::chunk::{HEADER_BYTES, Header, class_bytes};
use super::free_list::reveal;
use super::layout::{Layout, TCACHE_SMALL_BINS, TcacheLayout};
use crate::allocator::{Anomalies, CacheHead, HeadForm, ThreadPointer};
use crate::memory::{Memory, MemoryExt, u16_at, u64_at, words};
use heaptap_platform::AddressRange;
use std::collections::{BTreeMap, HashMap};

/// Thread-local storage below a thread pointer that is searched.
const THREAD_STORAGE_BYTES: u64 = 1 << 16;
/// How far the pointer to the cache lies from the pointer to the arena, at most.
const NEIGHBOURHOOD_BYTES: u64 = 256;
/// Most blocks of one bin: the limit that the library has for its tunable.
const BIN_BLOCKS_MAX: usize = 1 << 16;

/// What all thread caches hold.
#[derive(Debug, Default)]
pub struct Caches {
    /// The chunks of the caches themselves.
    pub structs: Vec<u64>,
    /// Cached chunks, each with whether the walk has met it.
    pub chunks: HashMap<u64, bool>,
    /// The mark that cached blocks carry, where they do and any was seen.
    pub keys: Vec<u64>,
    /// Caches that belong to no thread.
    pub orphans: u64,
    /// Lists that broke off.
    pub broken: u64,
    /// Bins whose counter and list differ by one: a thread was stopped between the two.
    pub in_motion: u64,
    /// The first pointers of all lists that hold blocks of one size.
    pub heads: Vec<CacheHead>,
}

/// Where the two pointers lie below a thread pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// Distance to the pointer to the arena.
    pub arena: u64,
    /// Distance to the pointer to the cache; absent where no thread has one.
    pub tcache: Option<u64>,
}

impl Slots {
    /// Where the threads' slots say that their caches are; not proved.
    pub fn structs(self, memory: &dyn Memory, threads: &[ThreadPointer]) -> impl Iterator<Item = u64> {
        let slot = move |thread: &ThreadPointer| {
            let address = memory.read_u64(thread.thread_pointer.wrapping_sub(self.tcache?)).ok()?;
            (address != 0).then_some(address)
        };
        threads.iter().filter_map(slot)
    }
}

/// One cache's counters and list heads.
#[derive(Debug, Clone)]
struct Tcache {
    counts: Vec<u64>,
    heads: Vec<u64>,
}

impl Tcache {
    /// The cache at `address`, if there is a chunk of the right size around it.
    fn read(memory: &dyn Memory, layout: &TcacheLayout, address: u64) -> Option<Self> {
        let chunk = address.checked_sub(HEADER_BYTES).filter(|chunk| chunk % 16 == 0)?;
        let header = Header::read(memory, chunk).ok()?;
        if !header.is_plausible() || !layout.fits(header.size_bytes()) {
            return None;
        }
        let bytes = memory.read_vec(address, usize::try_from(layout.struct_bytes()).ok()?).ok()?;
        let (counts, heads) = bytes.split_at_checked(usize::try_from(layout.entries()).ok()?)?;
        let counts: Vec<u64> = match layout.count_bytes {
            1 => counts.iter().map(|count| u64::from(*count)).collect(),
            _ => (0..counts.len()).step_by(2).filter_map(|at| u16_at(counts, at).map(u64::from)).collect(),
        };
        let tcache = Self { counts, heads: words(heads).collect() };
        tcache.heads.iter().all(|head| head % 16 == 0).then_some(tcache)
    }

    /// The blocks of one bin, and whether the list ended as it should.
    fn bin(&self, memory: &dyn Memory, layout: &Layout, bin: usize) -> (Vec<u64>, bool) {
        let mut blocks: Vec<u64> = Vec::new();
        let mut block = self.heads.get(bin).copied().unwrap_or_default();
        while block != 0 {
            let fits = block % 16 == 0
                && block >= HEADER_BYTES
                && blocks.len() < BIN_BLOCKS_MAX
                && fits_bin(memory, bin, block - HEADER_BYTES);
            let Some(stored) = memory.read_u64(block).ok().filter(|_| fits) else {
                return (blocks, false);
            };
            blocks.push(block);
            block = reveal(layout.safe_linking, block, stored);
        }
        (blocks, true)
    }

    /// Blocks of lists that are whole, less those lists that are not: few, as the target may run meanwhile.
    fn score(&self, memory: &dyn Memory, layout: &Layout) -> i64 {
        let bins = (0..self.heads.len()).map(|bin| self.bin(memory, layout, bin));
        bins.map(|(blocks, whole)| if whole { i64::try_from(blocks.len()).unwrap_or(0) } else { -4 }).sum()
    }
}

/// Whether a chunk has the size that bin `bin` is for.
fn fits_bin(memory: &dyn Memory, bin: usize, chunk: u64) -> bool {
    let Ok(header) = Header::read(memory, chunk) else { return false };
    let bin = bin as u64;
    let size = header.size_bytes();
    header.is_plausible()
        && if bin < TCACHE_SMALL_BINS { size == (bin + 2) * 16 } else { size > (TCACHE_SMALL_BINS + 1) * 16 }
}

/// The place of the two pointers on which most threads agree, and the layout of those tried under which their
/// caches make most sense.
pub fn find_slots(
    memory: &dyn Memory,
    layouts: &[Layout],
    arenas: &[u64],
    threads: &[ThreadPointer],
) -> Option<(Slots, usize)> {
    let arena = most_voted(threads, |thread| {
        let window = Window::read(memory, thread.thread_pointer, THREAD_STORAGE_BYTES);
        window.slots().filter(|(_, word)| arenas.contains(word)).map(|(distance, _)| distance).collect()
    })?;
    let mut best: Option<(i64, Slots, usize)> = None;
    for (index, layout) in layouts.iter().enumerate() {
        let Some(form) = &layout.tcache else { continue };
        let mut votes: BTreeMap<u64, i64> = BTreeMap::new();
        for thread in threads {
            let middle = thread.thread_pointer.wrapping_sub(arena).wrapping_add(NEIGHBOURHOOD_BYTES);
            let window = Window::read(memory, middle, 2 * NEIGHBOURHOOD_BYTES);
            for (distance, word) in window.slots().filter(|(_, word)| *word != 0) {
                let Some(tcache) = Tcache::read(memory, form, word) else { continue };
                let below = distance.wrapping_add(arena).wrapping_sub(NEIGHBOURHOOD_BYTES);
                *votes.entry(below).or_default() += 10 + tcache.score(memory, layout).max(-8);
            }
        }
        let Some((distance, score)) = votes.into_iter().max_by_key(|(_, score)| *score) else { continue };
        if score > 0 && best.is_none_or(|(most, _, _)| score > most) {
            best = Some((score, Slots { arena, tcache: Some(distance) }, index));
        }
    }
    Some(best.map_or((Slots { arena, tcache: None }, 0), |(_, slots, index)| (slots, index)))
}

fn most_voted(threads: &[ThreadPointer], slots: impl Fn(&ThreadPointer) -> Vec<u64>) -> Option<u64> {
    let mut votes: BTreeMap<u64, u64> = BTreeMap::new();
    for distance in threads.iter().flat_map(slots) {
        *votes.entry(distance).or_default() += 1;
    }
    // Of equals the nearest to the thread pointer: the C library's own storage is next to it.
    votes.into_iter().max_by_key(|(distance, count)| (*count, std::cmp::Reverse(*distance))).map(|(at, _)| at)
}

/// The words below an address.
struct Window {
    end: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Window {
    fn read(memory: &dyn Memory, end: u64, len_bytes: u64) -> Self {
        let range = AddressRange { start: end.saturating_sub(len_bytes), end };
        let read = |present: AddressRange| {
            let bytes = memory.read_vec(present.start, usize::try_from(present.len_bytes()).ok()?).ok()?;
            Some((present.start, bytes))
        };
        Self { end, pieces: memory.present(range).into_iter().filter_map(read).collect() }
    }

    /// Distance from the end, and word.
    fn slots(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pieces.iter().flat_map(|(start, bytes)| {
            (*start..).step_by(8).zip(words(bytes)).map(|(at, word)| (self.end.wrapping_sub(at), word))
        })
    }
}

impl Caches {
    /// The caches of all `threads`.
    pub fn gather(
        memory: &dyn Memory,
        layout: &Layout,
        slots: Slots,
        threads: &[ThreadPointer],
        anomalies: &mut Anomalies,
    ) -> Self {
        let mut caches = Self::default();
        let (Some(distance), Some(form)) = (slots.tcache, &layout.tcache) else { return caches };
        for thread in threads {
            let slot = thread.thread_pointer.wrapping_sub(distance);
            let Ok(address) = memory.read_u64(slot) else { continue };
            // A thread that has none has a null pointer, or from 2.42 on one to an empty cache in read-only data.
            if let Some(tcache) = Tcache::read(memory, form, address) {
                caches.heads.extend(heads(thread.tid, address, form));
                caches.add(memory, layout, form, address, &tcache, anomalies);
            }
        }
        caches
    }

    fn add(
        &mut self,
        memory: &dyn Memory,
        layout: &Layout,
        form: &TcacheLayout,
        address: u64,
        tcache: &Tcache,
        anomalies: &mut Anomalies,
    ) {
        self.structs.push(address - HEADER_BYTES);
        for bin in 0..tcache.heads.len() {
            let (blocks, whole) = tcache.bin(memory, layout, bin);
            let last = blocks.last().copied().unwrap_or(address);
            if !whole && !memory.is_of_one_moment() {
                self.in_motion += 1;
            } else if !whole {
                self.broken += 1;
                anomalies.add(
                    last,
                    &format!(
                        "list {bin} of a thread cache breaks behind this block: its user probably wrote to it \
                         after it was freed"
                    ),
                );
            }
            let count = tcache.counts.get(bin).copied().unwrap_or_default();
            if whole && !form.counts_down && count != blocks.len() as u64 {
                self.in_motion += count.abs_diff(blocks.len() as u64);
            }
            if layout.has_key
                && let Some(key) = blocks.first().and_then(|block| key(memory, *block))
                && !self.keys.contains(&key)
            {
                self.keys.push(key);
            }
            self.chunks.extend(blocks.into_iter().map(|block| (block - HEADER_BYTES, false)));
        }
    }
}

/// The heads of the lists of a cache at `address`, without those that hold blocks of several sizes.
fn heads(tid: i32, address: u64, form: &TcacheLayout) -> impl Iterator<Item = CacheHead> {
    let entries = address.wrapping_add(form.entries());
    (0..TCACHE_SMALL_BINS).map(move |bin| CacheHead {
        tid,
        address: entries.wrapping_add(8 * bin),
        block_bytes: class_bytes((bin + 2) * 16),
        form: HeadForm::List { frees_elsewhere: false },
    })
}

/// The blocks of a supposed cache at `address` that no thread has, if it is one: all lists whole, of the lengths that
/// its counters tell, and every block with the mark of cached ones.
pub fn orphan(memory: &dyn Memory, layout: &Layout, address: u64, keys: &[u64]) -> Option<Vec<u64>> {
    let form = layout.tcache.filter(|_| layout.has_key)?;
    let tcache = Tcache::read(memory, &form, address)?;
    let mut all = Vec::new();
    for bin in 0..tcache.heads.len() {
        let (blocks, whole) = tcache.bin(memory, layout, bin);
        let count = tcache.counts.get(bin).copied()?;
        if !whole || (!form.counts_down && count != blocks.len() as u64) {
            return None;
        }
        all.extend(blocks);
    }
    let mark = key(memory, *all.first()?)?;
    let is_known = keys.is_empty() || keys.contains(&mark) || mark == address;
    (is_known && mark != 0 && all.iter().all(|block| key(memory, *block) == Some(mark))).then_some(all)
}

/// The word behind a block's link.
pub fn key(memory: &dyn Memory, block: u64) -> Option<u64> {
    match memory.slice(block.checked_add(8)?, 8) {
        Some(bytes) => u64_at(bytes, 0),
        None => memory.read_u64(block.checked_add(8)?).ok(),
    }
}
