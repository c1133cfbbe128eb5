//! Thread caches: regions that the arenas count as handed out and the program has given back.
//!
//! Caches are found by the lists that arenas keep of them (builds with statistics), else by the ring of all
//! threads' data (5.2 to 5.3.1), else in each thread's static storage at an offset that all threads share.

use super::arena::Arena;
use super::classes::SizeClasses;
use super::layout::{CACHE_BIN_BYTES, CacheBinForm, Layout};
use crate::allocator::{HeadForm, ThreadPointer};
use crate::memory::{Memory, MemoryExt, u16_at, u32_at, u64_at};
use heaptap_platform::AddressRange;
use std::collections::HashSet;

/// Most caches followed on one list.
const CACHES_MAX: usize = 1 << 20;

/// Most blocks believed to be in one bin: its stack has 16-bit bounds.
const ITEMS_MAX: u64 = 1 << 13;

/// What jemalloc allocates for itself.
const STACKS: &str = "stacks of a thread cache";
const TICKERS: &str = "decay tickers of a thread";

/// How the caches were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// No cache was found.
    #[default]
    None,
    /// By the arenas' lists.
    Lists,
    /// By the ring of threads' data.
    Ring,
    /// In the threads' static storage.
    ThreadStorage,
}

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
    /// How they were found.
    pub source: Source,
    /// Caches found.
    pub count: usize,
    /// Blocks, ordered by address once the gathering is done.
    pub blocks: Vec<CachedBlock>,
    /// Memory that was read: the caches and their stacks.
    pub ranges: Vec<AddressRange>,
    /// Addresses inside allocations that jemalloc made for itself, with what they are.
    pub own: Vec<(u64, &'static str)>,
    /// Lists that did not close, bins that make no sense.
    pub broken: Vec<u64>,
    /// Bins of which one word moves with each allocation and each free.
    pub heads: Vec<BinHead>,
}

/// The word of a bin that tells how much is in it: `stack_head` from 5.3 on, before that `ncached`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinHead {
    /// Its address.
    pub address: u64,
    /// The size class of the bin.
    pub szind: u64,
    /// What it is.
    pub form: HeadForm,
}

/// Where caches may be looked for.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Layout of the build.
    pub layout: &'a Layout,
    /// Size classes of the build.
    pub classes: &'a SizeClasses,
    /// Address of the ring's head, where one was found.
    pub ring: Option<u64>,
    /// Offset of a thread's data from its thread pointer, where it was learnt.
    pub thread_offset: Option<i64>,
    /// The module that jemalloc lives in: bins that point into it are switched off.
    pub module: AddressRange,
}

impl Caches {
    /// Finds all caches and what they hold.
    pub fn gather(
        places: Places<'_>,
        memory: &dyn Memory,
        arenas: &[Arena],
        threads: &[ThreadPointer],
    ) -> Self {
        let mut caches = Self::find(places, memory, arenas, threads, true);
        caches.blocks.sort_unstable();
        caches
    }

    /// Finds all caches, but not which blocks are in them: that takes most of the time, and a stopped target may be
    /// waiting.
    pub fn survey(
        places: Places<'_>,
        memory: &dyn Memory,
        arenas: &[Arena],
        threads: &[ThreadPointer],
    ) -> Self {
        Self::find(places, memory, arenas, threads, false)
    }

    fn find(
        places: Places<'_>,
        memory: &dyn Memory,
        arenas: &[Arena],
        threads: &[ThreadPointer],
        with_blocks: bool,
    ) -> Self {
        let mut caches = Self::default();
        let arenas_set = arenas.iter().map(|arena| arena.address).collect();
        let mut gather = Gather { places, memory, arenas: arenas_set, with_blocks, caches: &mut caches };
        gather.lists(arenas);
        if gather.caches.count == 0 {
            gather.ring();
        }
        if gather.caches.count == 0 {
            gather.thread_storage(threads);
        }
        caches
    }
}

struct Gather<'a> {
    places: Places<'a>,
    memory: &'a dyn Memory,
    arenas: HashSet<u64>,
    with_blocks: bool,
    caches: &'a mut Caches,
}

impl Gather<'_> {
    /// Follows each arena's list of descriptors, or of caches where descriptors do not exist yet.
    fn lists(&mut self, arenas: &[Arena]) {
        let tcache = self.places.layout.tcache;
        let Some(head_offset) = tcache.arena_descriptors.or(tcache.arena_tcaches) else { return };
        let link = if tcache.arena_descriptors.is_some() { 0 } else { tcache.tcache_link };
        for arena in arenas {
            for element in self.circle(arena.address.wrapping_add(head_offset), link) {
                self.caches.source = Source::Lists;
                match tcache.descriptor_bins {
                    Some(offset) => self.descriptor(element, offset),
                    None => self.cache(element),
                }
            }
        }
    }

    /// The elements of a circular list whose head is the word at `head`; its links are at `link`.
    fn circle(&mut self, head: u64, link: u64) -> Vec<u64> {
        let mut elements = Vec::new();
        let mut seen = HashSet::new();
        let Ok(first) = self.memory.read_u64(head) else { return elements };
        let mut next = first;
        while next != 0 && elements.len() < CACHES_MAX && seen.insert(next) {
            elements.push(next);
            self.want(next.wrapping_add(link), 16);
            match self.memory.read_u64(next.wrapping_add(link)) {
                Ok(after) if after == first => return elements,
                Ok(after) => next = after,
                Err(_) => {
                    self.caches.broken.push(next);
                    return elements;
                }
            }
        }
        if first != 0 {
            self.caches.broken.push(head);
        }
        elements
    }

    fn ring(&mut self) {
        let (Some(head), Some(link)) = (self.places.ring, self.places.layout.tcache.tsd_link) else { return };
        for tsd in self.circle(head, link) {
            self.caches.source = Source::Ring;
            self.thread_data(tsd);
        }
    }

    fn thread_storage(&mut self, threads: &[ThreadPointer]) {
        let Some(offset) = self.places.thread_offset else { return };
        let arena = self.places.layout.tcache.tsd_arena;
        for thread in threads {
            let tsd = thread.thread_pointer.wrapping_add_signed(offset);
            self.want(tsd, self.places.layout.tcache.tsd_bytes);
            // A thread that never allocated has no arena yet.
            if self.memory.read_u64(tsd.wrapping_add(arena)).is_ok_and(|arena| arena != 0) {
                self.caches.source = Source::ThreadStorage;
                self.thread_data(tsd);
            }
        }
    }

    fn thread_data(&mut self, tsd: u64) {
        self.want(tsd, self.places.layout.tcache.tsd_bytes);
        self.cache(tsd.wrapping_add(self.places.layout.tcache.tsd_tcache));
    }

    /// A cache at a known place; large bins follow the small ones or are apart.
    fn cache(&mut self, cache: u64) {
        let tcache = self.places.layout.tcache;
        let small = cache.wrapping_add(tcache.tcache_bins);
        let large = tcache.tcache_bins_large.map(|offset| cache.wrapping_add(offset));
        self.bins(small, large);
    }

    fn descriptor(&mut self, descriptor: u64, bins_offset: u64) {
        self.want(descriptor, 32);
        let Ok(small) = self.memory.read_u64(descriptor.wrapping_add(bins_offset)) else { return };
        let large_offset = self.places.layout.tcache.descriptor_bins_large;
        let large =
            large_offset.and_then(|offset| self.memory.read_u64(descriptor.wrapping_add(offset)).ok());
        self.bins(small, large);
    }

    fn bins(&mut self, small: u64, large: Option<u64>) {
        self.caches.count += 1;
        let nbins = self.places.classes.nbins();
        match self.places.layout.tcache.form {
            CacheBinForm::Counted => {
                self.tickers(small);
                self.counted_bins(small, 0, nbins);
                if let Some(large) = large {
                    let count = u64::from(self.places.layout.tcache.bins_max) - nbins;
                    self.counted_bins(large, nbins, count);
                }
            }
            CacheBinForm::LowBits => self.low_bits_bins(small),
        }
    }

    /// The decay tickers of the thread that a cache belongs to; caches that the program made belong to none.
    fn tickers(&mut self, small: u64) {
        let tcache = self.places.layout.tcache;
        let Some(offset) = tcache.tsd_tickers else { return };
        let tsd = small.wrapping_sub(tcache.tcache_bins).wrapping_sub(tcache.tsd_tcache);
        self.want(tsd, tcache.tsd_tcache);
        let arena = self.memory.read_u64(tsd.wrapping_add(tcache.tsd_arena));
        if arena.is_ok_and(|arena| self.arenas.contains(&arena))
            && let Ok(tickers) = self.memory.read_u64(tsd.wrapping_add(offset))
            && tickers != 0
        {
            self.caches.own.push((tickers, TICKERS));
        }
    }

    fn counted_bins(&mut self, start: u64, first_szind: u64, count: u64) {
        let Some(bytes) = self.array(start, count) else { return };
        let numbered = (first_szind..).zip(bytes.chunks_exact(24)).zip((start..).step_by(24));
        for ((szind, bin), address) in numbered {
            let (Some(cached), Some(avail)) = (u32_at(bin, 4), u64_at(bin, 16)) else { return };
            // Bins beyond those in use were never written.
            if avail == 0 {
                return;
            }
            let cached = u64::from(cached);
            if cached > ITEMS_MAX {
                self.caches.broken.push(start);
                return;
            }
            if szind == 0 {
                self.caches.own.push((avail.wrapping_sub(8), STACKS));
            }
            let form = HeadForm::StackCount { end: avail, blocks_max: ITEMS_MAX };
            self.caches.heads.push(BinHead { address: address.wrapping_add(4), szind, form });
            self.items(avail.wrapping_sub(cached * 8), cached, szind);
        }
    }

    /// Bins whose stacks grow down, laid out one behind the other in one allocation.
    fn low_bits_bins(&mut self, start: u64) {
        let tcache = self.places.layout.tcache;
        self.want(start.wrapping_sub(tcache.tcache_bins), 8);
        let slow = self.memory.read_u64(start.wrapping_sub(tcache.tcache_bins)).ok();
        let count = match (tcache.slow_nbins, slow) {
            (Some(offset), Some(slow)) => {
                self.want(slow, offset + 4);
                self.memory.read_u32(slow.wrapping_add(offset)).map_or(0, u64::from)
            }
            _ => u64::from(tcache.bins_max),
        };
        let stacks = tcache.slow_stacks.zip(slow).and_then(|(offset, slow)| {
            self.want(slow.wrapping_add(offset), 16);
            self.memory.read_u64(slow.wrapping_add(offset)).ok().filter(|stacks| *stacks != 0)
        });
        self.caches.own.extend(stacks.map(|stacks| (stacks, STACKS)));
        let Some(bytes) = self.array(start, count.min(u64::from(tcache.bins_max))) else { return };
        // The first stack begins behind one word that is never used.
        let mut last_end = stacks.map_or(0, |stacks| stacks.wrapping_add(8));
        for ((szind, bin), address) in (0..).zip(bytes.chunks_exact(24)).zip((start..).step_by(24)) {
            if !self.low_bits_bin(bin, szind, address, &mut last_end) {
                break;
            }
        }
    }

    /// One bin; `false` once what follows is no bin any more.
    fn low_bits_bin(&mut self, bin: &[u8], szind: u64, address: u64, last_end: &mut u64) -> bool {
        let (Some(head), Some(full), Some(empty)) = (u64_at(bin, 0), u16_at(bin, 18), u16_at(bin, 20)) else {
            return false;
        };
        if head == 0 {
            return self.places.layout.tcache.slow_nbins.is_some();
        }
        if self.places.module.contains(head) {
            return true;
        }
        let low = head.to_le_bytes();
        let low = u16::from_le_bytes([low[0], low[1]]);
        let cached_bytes = u64::from(empty.wrapping_sub(low));
        let room_bytes = u64::from(empty.wrapping_sub(full));
        let end = head.wrapping_add(cached_bytes);
        if cached_bytes > room_bytes
            || cached_bytes % 8 != 0
            || (self.places.layout.tcache.slow_nbins.is_none() && end <= *last_end)
        {
            return false;
        }
        let full = end.wrapping_sub(room_bytes);
        let bound = self.stack_bound(bin, *last_end, end);
        *last_end = end;
        self.want(full, room_bytes);
        let form = HeadForm::StackPointer(AddressRange { start: full, end });
        self.caches.heads.push(BinHead { address, szind, form });
        self.items(head, cached_bytes / 8, szind);
        // Freed blocks that a build with detection of late uses keeps below the stack.
        if let Some(bound) = bound.filter(|bound| *bound < full && (full - bound) / 8 <= ITEMS_MAX) {
            self.items(bound, (full - bound) / 8, szind);
        }
        true
    }

    /// Where a bin's stack begins: from 5.3.1 on each bin knows its length, before that one follows the other.
    fn stack_bound(&self, bin: &[u8], last_end: u64, end: u64) -> Option<u64> {
        if self.places.layout.tcache.slow_nbins.is_some() {
            return u16_at(bin, 22).map(|room| end.wrapping_sub(u64::from(room) * 8));
        }
        (last_end != 0).then_some(last_end)
    }

    /// The bytes of an array of bins. Its end is often never written to, and then has no pages.
    fn array(&mut self, start: u64, count: u64) -> Option<Vec<u8>> {
        let len_bytes = count.checked_mul(CACHE_BIN_BYTES)?;
        self.want(start, len_bytes);
        let present = self.memory.present(AddressRange::with_len(start, len_bytes)?);
        let mut bytes = vec![0; usize::try_from(len_bytes).ok()?];
        let mut whole = present.first().is_some_and(|first| first.start == start);
        for piece in present {
            let from = usize::try_from(piece.start - start).ok()?;
            let part = bytes.get_mut(from..from + usize::try_from(piece.len_bytes()).ok()?)?;
            whole &= self.memory.read(piece.start, part).is_ok();
        }
        if !whole {
            self.caches.broken.push(start);
        }
        whole.then_some(bytes)
    }

    fn items(&mut self, start: u64, count: u64, szind: u64) {
        if count == 0 {
            return;
        }
        self.want(start, count * 8);
        if !self.with_blocks {
            return;
        }
        match self.memory.read_words(start, usize::try_from(count).unwrap_or(0)) {
            Ok(addresses) => {
                let blocks = addresses.into_iter().map(|address| CachedBlock { address, szind });
                self.caches.blocks.extend(blocks);
            }
            Err(_) => self.caches.broken.push(start),
        }
    }

    fn want(&mut self, start: u64, len_bytes: u64) {
        if let Some(end) = start.checked_add(len_bytes) {
            self.caches.ranges.push(AddressRange { start, end });
        }
    }
}
