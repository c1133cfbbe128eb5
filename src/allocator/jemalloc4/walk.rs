//! The walk: every chunk and huge block of the tree once, with its invariants, its cached blocks taken off, its place claimed.

use super::arena::Arena;
use super::chunks::{Filed, Node};
use super::counters::{self, Counted};
use super::runs::{Header, PAGE_BYTES, Pages};
use super::tcache::{CachedBlock, Caches};
use super::{Held, Jemalloc4};
use crate::allocator::jemalloc::classes::large_classes;
use crate::allocator::{Anomalies, Block, Claim, ClaimKind, Overhead, Run, Sink, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::{AddressRange, merge_ranges};
use std::collections::{BTreeMap, BTreeSet};

const CACHE: &str = "a thread cache";
const HUGE_NODE: &str = "the record of a huge block";

/// Walks everything that `memory` shows of `jemalloc`.
pub fn walk(jemalloc: &Jemalloc4, memory: &dyn Memory, sink: &mut dyn Sink) -> WalkOutcome {
    let held = jemalloc.held(memory);
    let arenas = jemalloc.arenas(memory, &held);
    let caches = Caches::gather(memory, &jemalloc.layout, &arenas);
    let own_caches = caches.caches.iter().map(|cache| (cache.start, CACHE));
    let own: BTreeMap<u64, &'static str> =
        own_caches.chain(held.huge.iter().map(|(filed, _)| (filed.node, HUGE_NODE))).collect();
    let mut walk = Walk {
        jemalloc,
        memory,
        sink,
        arenas: arenas.iter().map(|arena| (arena.address, arena.index)).collect(),
        pad_bytes: pad_bytes(jemalloc, memory, &held),
        cached: caches.blocks.iter().map(|block| (*block, false)).collect(),
        own,
        counted: Counted::default(),
        anomalies: Anomalies::default(),
        outcome: WalkOutcome { complete: true, ..WalkOutcome::default() },
        free: Vec::new(),
    };
    for (filed, node) in &held.chunks {
        walk.chunk(*filed, *node);
    }
    for (filed, node) in &held.huge {
        walk.huge(*filed, *node);
    }
    walk.finish(&held, &arenas, &caches)
}

struct Walk<'a> {
    jemalloc: &'a Jemalloc4,
    memory: &'a dyn Memory,
    sink: &'a mut dyn Sink,
    /// Numbers of arenas by their addresses.
    arenas: BTreeMap<u64, u32>,
    /// What cache-oblivious builds add to a large run.
    pad_bytes: u64,
    /// Cached blocks by address, each with whether its place was met.
    cached: Vec<(CachedBlock, bool)>,
    /// Addresses of what jemalloc has allocated for itself.
    own: BTreeMap<u64, &'static str>,
    counted: Counted,
    anomalies: Anomalies,
    outcome: WalkOutcome,
    /// One bit a region of the run at hand, set where it is free.
    free: Vec<u64>,
}

impl Walk<'_> {
    fn chunk(&mut self, filed: Filed, node: Node) {
        let (layout, form, bins) = (&self.jemalloc.layout, &self.jemalloc.form, &self.jemalloc.bins);
        let header = Header::read(self.memory, form, filed.start);
        self.outcome.structures_checked += 1;
        // A chunk that contradicts itself delivers nothing.
        let mut runs = Vec::new();
        if let Err(why) = header.visit(layout, form, bins, &mut |range, pages| runs.push((range, pages))) {
            let is_missing = self.memory.present(form.header(filed.start)).is_empty();
            self.anomalies
                .add(filed.start, if is_missing { "a chunk's header was not captured" } else { why });
            self.outcome.structures_broken += u64::from(!is_missing);
            self.outcome.complete = false;
            return;
        }
        let arena = self.arena(node.arena);
        self.claim(form.header(filed.start), ClaimKind::Metadata);
        for (range, pages) in runs {
            match pages {
                Pages::Free { is_dirty: true } => self.claim(range, ClaimKind::Dirty),
                Pages::Free { is_dirty: false } => self.claim(range, ClaimKind::Retained),
                Pages::Small { bin, nfree, bitmap } => self.run(&header, range, arena, bin, nfree, bitmap),
                Pages::Large { sampled_bin } => self.large(range, arena, sampled_bin),
            }
        }
    }

    fn arena(&mut self, address: u64) -> u32 {
        if let Some(index) = self.arenas.get(&address) {
            return *index;
        }
        self.anomalies.add(address, "a chunk names an arena that is none");
        u32::MAX
    }

    fn in_use(&mut self, range: AddressRange) {
        self.outcome.active_bytes = self.outcome.active_bytes.saturating_add(range.len_bytes());
        self.claim(range, ClaimKind::InUse);
    }

    fn run(&mut self, header: &Header, range: AddressRange, arena: u32, bin: u64, nfree: u64, bitmap: usize) {
        let Some(class) = self.jemalloc.bins.get(bin).copied() else { return };
        let mut live = std::mem::take(&mut self.free);
        if header.free_bits(bitmap, class.nregs, &mut live).is_none() {
            return;
        }
        self.in_use(range);
        self.counted.run(arena, bin, u64::from(class.nregs).saturating_sub(nfree));
        for (index, word) in live.iter_mut().enumerate() {
            let regions = (u64::from(class.nregs) - index as u64 * 64).min(64);
            *word = !*word & (u64::MAX >> (64 - regions));
        }
        let start = range.start + class.reg0;
        let region = |address: u64| {
            let offset = address.checked_sub(start)?;
            let index = usize::try_from(offset / class.reg_bytes).ok()?;
            (offset.is_multiple_of(class.reg_bytes) && index < class.nregs as usize).then_some(index)
        };
        let mut cached = vec![0; live.len()];
        let first = self.cached.partition_point(|(block, _)| block.address < range.start);
        for (block, met) in self.cached.iter_mut().skip(first) {
            if block.address >= range.end {
                break;
            }
            let bit = region(block.address).filter(|_| block.szind == bin);
            *met = bit.is_some_and(|index| take(&mut live, index) && set(&mut cached, index));
        }
        let own: Vec<(u64, &'static str)> =
            self.own.range(range.start..range.end).map(|(address, what)| (*address, *what)).collect();
        for (address, what) in own {
            if region(address).is_some_and(|index| take(&mut live, index)) {
                self.overhead(address, class.reg_bytes, class.reg_bytes, arena, what);
            }
        }
        let class = u16::try_from(bin).unwrap_or(u16::MAX);
        self.sink.run(Run { address: start, class, shard: arena, serial: 0, live: &live, cached: &cached });
        self.free = live;
    }

    fn large(&mut self, range: AddressRange, arena: u32, sampled_bin: Option<u64>) {
        self.in_use(range);
        let sampled = sampled_bin.and_then(|bin| self.jemalloc.bins.get(bin)).map(|bin| bin.reg_bytes);
        let counted_bytes = range.len_bytes().saturating_sub(self.pad_bytes);
        self.counted.larger(arena, counted_bytes);
        let usable_bytes = sampled.unwrap_or(counted_bytes);
        let first_page = range.start..range.start + PAGE_BYTES;
        let own = self.own.range(first_page.clone()).next().map(|(_, what)| *what);
        if let Some(what) = own {
            self.overhead(range.start, usable_bytes, counted_bytes, arena, what);
            return;
        }
        let at = self.cached.partition_point(|(block, _)| block.address < range.start);
        let cached = self.cached.get_mut(at).filter(|(block, _)| first_page.contains(&block.address));
        let cached = cached.map(|(_, met)| *met = true).is_some();
        self.sink.block(Block {
            address: range.start,
            usable_bytes,
            held_bytes: range.len_bytes(),
            class_bytes: usable_bytes,
            shard: arena,
            serial: 0,
            cached,
        });
    }

    fn huge(&mut self, filed: Filed, node: Node) {
        let chunk_bytes = self.jemalloc.form.chunk_bytes;
        self.outcome.structures_checked += 1;
        let held_bytes = node.size_bytes.checked_next_multiple_of(chunk_bytes).filter(|bytes| *bytes > 0);
        let range = held_bytes.and_then(|bytes| AddressRange::with_len(filed.start, bytes));
        let (Some(range), Some(held_bytes)) = (range, held_bytes) else {
            self.anomalies.add(filed.node, "a huge block has no length that can be");
            self.outcome.structures_broken += 1;
            self.outcome.complete = false;
            return;
        };
        let arena = self.arena(node.arena);
        self.in_use(range);
        self.counted.larger(arena, node.size_bytes);
        self.sink.block(Block {
            address: filed.start,
            usable_bytes: node.size_bytes,
            held_bytes,
            class_bytes: node.size_bytes,
            shard: arena,
            serial: 0,
            cached: false,
        });
    }

    fn overhead(
        &mut self,
        address: u64,
        usable_bytes: u64,
        class_bytes: u64,
        shard: u32,
        what: &'static str,
    ) {
        self.outcome.overhead.push(Overhead { address, usable_bytes, class_bytes, shard, what });
    }

    fn claim(&mut self, range: AddressRange, kind: ClaimKind) {
        self.outcome.claims.push(Claim { range, kind });
    }

    fn finish(mut self, held: &Held, arenas: &[Arena], caches: &Caches) -> WalkOutcome {
        for address in &held.broken {
            self.anomalies.add(*address, "a part of the tree of chunks, or a node in it, cannot be read");
            self.outcome.complete = false;
        }
        for address in &caches.broken {
            self.anomalies.add(*address, "a thread cache or a list of them does not make sense");
            self.outcome.complete = false;
        }
        let strangers = self.cached.iter().filter(|(_, met)| !met).map(|(block, _)| block.address);
        for address in strangers {
            self.anomalies.add(address, "a thread cache names a block that is in no run");
            self.outcome.blocks_in_motion_max += 1;
        }
        self.unused(held, arenas);
        self.outcome.thread_caches = caches.caches.len() as u64;
        let comparison = counters::compare(self.jemalloc, self.memory, arenas, &self.counted);
        if !caches.are_listed {
            let keeps_lists = comparison.cells > 0;
            self.outcome.caches_unknown = !keeps_lists;
            self.outcome.notes.push(if keeps_lists {
                "no thread has a cache: the target may have switched them off".to_owned()
            } else {
                "no thread's cache was found: unless the target has switched them off, the blocks in them count as live".to_owned()
            });
        }
        if !held.chunks.is_empty() {
            self.outcome.notes.push("large blocks stand with the address of their first page: where in it they begin is recorded nowhere".to_owned());
        }
        self.note_own_use(arenas);
        self.outcome.cells_compared = comparison.cells;
        self.outcome.cells_differing = comparison.differing;
        self.outcome.locked_bins = comparison.locked;
        self.outcome.blocks_in_motion_max =
            self.outcome.blocks_in_motion_max.max(comparison.blocks_in_motion_max);
        self.outcome.notes.extend(comparison.notes);
        self.outcome.run_classes = self.jemalloc.bins.run_classes();
        self.outcome.shards = arenas.iter().map(|arena| arena.index).collect();
        self.outcome.anomalies = self.anomalies.into_vec();
        self.outcome
    }

    /// What arenas have handed out to jemalloc itself, but for what was met as overhead.
    fn note_own_use(&mut self, arenas: &[Arena]) {
        let layout = &self.jemalloc.layout;
        let own = arenas.iter().filter_map(|arena| arena.internal_bytes(self.memory, layout));
        let counted = own.fold(0, u64::saturating_add);
        let met = self.outcome.overhead.iter().map(|block| block.class_bytes).fold(0, u64::saturating_add);
        if let Some(rest) = counted.checked_sub(met).filter(|rest| *rest > 0) {
            self.outcome.notes.push(format!("of the live bytes {rest} are jemalloc's own, by its own count"));
        }
    }

    /// Claims chunks that are kept unused, and those in which jemalloc's own records lie: they come in whole chunks.
    fn unused(&mut self, held: &Held, arenas: &[Arena]) {
        let (nodes, broken) = self.jemalloc.unused_chunks(self.memory, arenas);
        for root in broken {
            self.anomalies.add(root, "a tree of unused chunks cannot be read");
            self.outcome.complete = false;
        }
        for (_, node, is_retained) in &nodes {
            let kind = if *is_retained { ClaimKind::Retained } else { ClaimKind::Dirty };
            if let Some(range) = AddressRange::with_len(node.start, node.size_bytes) {
                self.claim(range, kind);
            }
        }
        let chunk_bytes = self.jemalloc.form.chunk_bytes;
        let records = arenas.iter().map(|arena| arena.address);
        let records = records.chain(nodes.iter().map(|(address, ..)| *address));
        let own_tree = held.contents.ranges.iter().skip(1).map(|range| range.start);
        let chunks: BTreeSet<u64> =
            records.chain(own_tree).map(|address| address - address % chunk_bytes).collect();
        let mut taken: Vec<AddressRange> = self.outcome.claims.iter().map(|claim| claim.range).collect();
        taken = merge_ranges(taken, 0);
        for start in chunks {
            let range = AddressRange { start, end: start.saturating_add(chunk_bytes) };
            let behind = taken.partition_point(|other| other.end <= range.start);
            if taken.get(behind).is_none_or(|other| other.start >= range.end) {
                self.claim(range, ClaimKind::Metadata);
            }
        }
    }
}

/// Clears a bit; tells whether it was set.
fn take(bits: &mut [u64], index: usize) -> bool {
    let Some(word) = bits.get_mut(index / 64) else { return false };
    let was = *word >> (index % 64) & 1 == 1;
    *word &= !(1 << (index % 64));
    was
}

fn set(bits: &mut [u64], index: usize) -> bool {
    let Some(word) = bits.get_mut(index / 64) else { return false };
    *word |= 1 << (index % 64);
    true
}

/// What cache-oblivious builds, which is the default, add to each large run: a page. Without it some run is as long as a
/// class to which a page cannot be added.
fn pad_bytes(jemalloc: &Jemalloc4, memory: &dyn Memory, held: &Held) -> u64 {
    const CHUNKS_MAX: usize = 64;
    let classes: BTreeSet<u64> = large_classes(jemalloc.bins.largest_bytes()).into_iter().collect();
    let is_class = |bytes: u64| classes.contains(&bytes);
    let mut pad_bytes = PAGE_BYTES;
    for (filed, _) in held.chunks.iter().take(CHUNKS_MAX) {
        let header = Header::read(memory, &jemalloc.form, filed.start);
        let mut look = |range: AddressRange, pages: Pages| {
            let len_bytes = range.len_bytes();
            let is_large = matches!(pages, Pages::Large { sampled_bin: None });
            if is_large && is_class(len_bytes) && !is_class(len_bytes - PAGE_BYTES) {
                pad_bytes = 0;
            }
        };
        if header.visit(&jemalloc.layout, &jemalloc.form, &jemalloc.bins, &mut look).is_err() {
            continue;
        }
    }
    pad_bytes
}
