//! The walk: every extent of the tree once, with its invariants, its cached blocks taken off, its place claimed.

use super::Jemalloc;
use super::arena::Arena;
use super::counters::{self, Counted};
use super::extent::{ACTIVE, Bitmap, DIRTY, Extent, MUZZY, RETAINED};
use super::proof;
use super::rtree::Element;
use super::tcache::{CachedBlock, Caches, Source};
use crate::allocator::{Anomalies, Block, Claim, ClaimKind, Overhead, Run, Sink, ThreadPointer, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::{AddressRange, merge_ranges};
use std::ops::ControlFlow;

/// Walks everything that `memory` shows of `jemalloc`.
pub fn walk(
    jemalloc: &Jemalloc,
    memory: &dyn Memory,
    threads: &[ThreadPointer],
    sink: &mut dyn Sink,
) -> WalkOutcome {
    let arenas = jemalloc.arenas(memory);
    let caches = jemalloc.caches(memory, &arenas, threads);
    let mut walk = Walk {
        jemalloc,
        memory,
        sink,
        page_bytes: jemalloc.classes.page_bytes,
        pad_bytes: pad_bytes(jemalloc, memory),
        cached: caches.blocks.iter().map(|block| (*block, false)).collect(),
        own: sorted(&caches.own),
        counted: Counted::default(),
        anomalies: Anomalies::default(),
        outcome: WalkOutcome { complete: true, ..WalkOutcome::default() },
        last_end: 0,
        bitmap: Bitmap::default(),
        cached_bits: Bitmap::default(),
    };
    walk.extents();
    walk.finish(&arenas, &caches)
}

struct Walk<'a> {
    jemalloc: &'a Jemalloc,
    memory: &'a dyn Memory,
    sink: &'a mut dyn Sink,
    page_bytes: u64,
    /// What cache-oblivious builds add to a large extent.
    pad_bytes: u64,
    /// Cached blocks by address, each with whether its place was met.
    cached: Vec<(CachedBlock, bool)>,
    /// Addresses inside allocations that jemalloc made for itself.
    own: Vec<(u64, &'static str)>,
    counted: Counted,
    anomalies: Anomalies,
    outcome: WalkOutcome,
    /// End of the last active extent, to see overlaps: the tree is visited in address order.
    last_end: u64,
    bitmap: Bitmap,
    cached_bits: Bitmap,
}

impl Walk<'_> {
    fn extents(&mut self) {
        let (tree, layout, memory) = (self.jemalloc.tree, self.jemalloc.layout, self.memory);
        let branches = tree.branches(memory);
        for address in branches.broken {
            self.anomalies.add(address, "a part of the radix tree cannot be read, or is led to twice");
            self.outcome.complete = false;
        }
        let mut last = 0;
        for leaf in branches.leaves {
            let whole = tree.leaf_range(leaf);
            if whole.is_none_or(|whole| memory.present(whole).is_empty()) {
                self.anomalies.add(leaf.address, "a leaf of the radix tree was not captured");
                self.outcome.complete = false;
                continue;
            }
            if !tree.is_readable(memory, leaf) {
                self.anomalies.add(leaf.address, "a leaf of the radix tree cannot be read");
                self.outcome.complete = false;
            }
            tree.elements(memory, &layout, leaf, &mut |page, element| {
                // A slab is filed under each of its pages, one after the other.
                if element.extent != last {
                    last = element.extent;
                    self.element(page, element);
                }
                ControlFlow::Continue(())
            });
        }
    }

    fn element(&mut self, page: u64, element: Element) {
        let extent = match Extent::read(self.memory, &self.jemalloc.layout, self.page_bytes, element.extent) {
            Ok(extent) => extent,
            Err(fault) => {
                self.anomalies.add(fault.address, "an extent's record was not captured");
                self.outcome.complete = false;
                return;
            }
        };
        if extent.state != ACTIVE {
            self.inactive(page, &extent);
            return;
        }
        if extent.szind == self.jemalloc.classes.nsizes() {
            // Pages that the huge page allocator keeps at hand: active for it, in use by nobody.
            if extent.first_page(self.page_bytes) == page {
                self.claim(&extent, ClaimKind::Dirty);
            }
            return;
        }
        if extent.first_page(self.page_bytes) != page && extent.holds(page, self.page_bytes) {
            // Large extents are filed under their last page too.
            return;
        }
        self.outcome.structures_checked += 1;
        let kept = proof::check(
            self.memory,
            &self.jemalloc.layout,
            &self.jemalloc.classes,
            self.page_bytes,
            page,
            element,
            &extent,
            &mut self.bitmap,
        );
        if let Err(broken) = kept {
            self.anomalies.add(extent.record, broken);
            self.outcome.structures_broken += 1;
            return;
        }
        self.active(&extent);
    }

    fn active(&mut self, extent: &Extent) {
        let start = extent.first_page(self.page_bytes);
        if start < self.last_end {
            self.anomalies.add(extent.record, "it overlaps the extent before it");
            self.outcome.structures_broken += 1;
            return;
        }
        self.last_end = start.saturating_add(extent.size_bytes);
        self.outcome.active_bytes = self.outcome.active_bytes.saturating_add(extent.size_bytes);
        self.claim(extent, ClaimKind::InUse);
        if extent.slab { self.slab(extent) } else { self.large(extent) }
    }

    fn slab(&mut self, extent: &Extent) {
        let Some(bin) = self.jemalloc.classes.bin(extent.szind).copied() else { return };
        self.counted.slab(extent.arena, extent.szind, u64::from(bin.nregs) - extent.nfree);
        self.cached_bits.clear_like(&self.bitmap);
        let end = extent.address.saturating_add(extent.size_bytes);
        let first = self.cached.partition_point(|(block, _)| block.address < extent.address);
        for (block, met) in self.cached.iter_mut().skip(first).take_while(|(block, _)| block.address < end) {
            let offset = block.address - extent.address;
            let index = usize::try_from(offset / bin.reg_bytes).unwrap_or(usize::MAX);
            if !offset.is_multiple_of(bin.reg_bytes) || block.szind != extent.szind {
                self.anomalies.add(block.address, "a cached block does not fit the slab that it lies in");
            } else if self.bitmap.take(index) {
                *met = true;
                self.cached_bits.put(index);
            } else {
                // Freed in the slab and not yet taken off the cache's stack, or the other way round.
                *met = true;
                self.outcome.blocks_in_motion_max += 1;
            }
        }
        self.slab_overhead(extent, bin.reg_bytes, end);
        self.sink.run(Run {
            address: extent.address,
            class: u16::try_from(extent.szind).unwrap_or(u16::MAX),
            shard: extent.arena,
            serial: extent.serial,
            live: self.bitmap.words(),
            cached: self.cached_bits.words(),
        });
    }

    /// Regions that jemalloc uses itself.
    fn slab_overhead(&mut self, extent: &Extent, reg_bytes: u64, end: u64) {
        let first = self.own.partition_point(|(own, _)| *own < extent.address);
        for (own, what) in self.own.iter().skip(first).take_while(|(own, _)| *own < end) {
            let index = (own - extent.address) / reg_bytes;
            if self.bitmap.take(usize::try_from(index).unwrap_or(usize::MAX)) {
                self.outcome.overhead.push(Overhead {
                    address: extent.address + index * reg_bytes,
                    usable_bytes: reg_bytes,
                    class_bytes: reg_bytes,
                    shard: extent.arena,
                    what,
                });
            }
        }
    }

    fn large(&mut self, extent: &Extent) {
        let classes = &self.jemalloc.classes;
        let Some(class_bytes) = classes.size_bytes(extent.szind) else { return };
        let sampled = extent.szind < classes.nbins();
        let usable_bytes = if self.jemalloc.layout.large_unrounded && !sampled {
            class_bytes.min(extent.size_bytes.saturating_sub(self.pad_bytes))
        } else {
            class_bytes
        };
        self.counted.large(extent.arena, extent.szind, classes.nbins());
        let found = self.cached.binary_search_by_key(&extent.address, |(block, _)| block.address);
        let cached = found.ok().and_then(|index| self.cached.get_mut(index)).is_some_and(|(block, met)| {
            *met = true;
            block.szind == extent.szind
        });
        let end = extent.address.saturating_add(usable_bytes);
        let own = self.own.partition_point(|(own, _)| *own < extent.address);
        if let Some((_, what)) = self.own.get(own).filter(|(own, _)| *own < end) {
            self.outcome.overhead.push(Overhead {
                address: extent.address,
                usable_bytes,
                class_bytes,
                shard: extent.arena,
                what,
            });
            return;
        }
        self.sink.block(Block {
            address: extent.address,
            usable_bytes,
            held_bytes: extent.size_bytes,
            class_bytes,
            shard: extent.arena,
            serial: extent.serial,
            cached,
        });
    }

    /// Free extents are filed under their first and last page; what lies in between may be stale.
    fn inactive(&mut self, page: u64, extent: &Extent) {
        if extent.address != page {
            return;
        }
        match extent.state {
            DIRTY => self.claim(extent, ClaimKind::Dirty),
            MUZZY => self.claim(extent, ClaimKind::Muzzy),
            RETAINED => self.claim(extent, ClaimKind::Retained),
            _ => self.outcome.extents_in_transit += 1,
        }
    }

    fn claim(&mut self, extent: &Extent, kind: ClaimKind) {
        let start = extent.first_page(self.page_bytes);
        if let Some(end) = start.checked_add(extent.size_bytes) {
            self.outcome.claims.push(Claim { range: AddressRange { start, end }, kind });
        }
    }

    fn finish(mut self, arenas: &[Arena], caches: &Caches) -> WalkOutcome {
        let strangers = self.cached.iter().filter(|(_, met)| !met).map(|(block, _)| block.address);
        for address in strangers {
            self.anomalies.add(address, "a thread cache names a block that is in no slab");
            self.outcome.blocks_in_motion_max += 1;
        }
        for address in &caches.broken {
            self.anomalies.add(*address, "a thread cache or a list of them does not make sense");
            self.outcome.complete = false;
        }
        self.outcome.thread_caches = caches.count as u64;
        self.base_claims(arenas);
        let comparison = counters::compare(self.jemalloc, self.memory, arenas, &self.counted);
        if caches.source == Source::None && self.outcome.structures_checked > 0 {
            self.no_caches(arenas, comparison.cells > 0);
        }
        self.outcome.cells_compared = comparison.cells;
        self.outcome.cells_differing = comparison.differing;
        self.outcome.locked_bins = comparison.locked;
        self.outcome.blocks_in_motion_max =
            self.outcome.blocks_in_motion_max.max(comparison.blocks_in_motion_max);
        self.outcome.notes.extend(comparison.notes);
        self.note_own_use(arenas);
        self.outcome.run_classes = self.jemalloc.classes.run_classes();
        self.outcome.shards = self.counted.shards(arenas);
        self.outcome.anomalies = self.anomalies.into_vec();
        self.outcome
    }

    /// Arenas list their threads' caches in builds with statistics: only there are empty lists a proof.
    fn no_caches(&mut self, arenas: &[Arena], statistics_kept: bool) {
        let tcache = self.jemalloc.layout.tcache;
        let listed = statistics_kept && tcache.arena_descriptors.or(tcache.arena_tcaches).is_some();
        let note = if arenas.is_empty() {
            "the arenas were not found: blocks in thread caches count as live"
        } else if listed {
            "no thread has a cache: the target may have switched them off"
        } else {
            "no thread's cache was found: unless the target has switched them off, the blocks in them count as live"
        };
        self.outcome.notes.push(note.to_owned());
        self.outcome.caches_unknown = !listed;
    }

    /// jemalloc counts what it hands out to itself. What of that was not met as overhead cannot be told from the
    /// program's blocks, but its sum is known.
    fn note_own_use(&mut self, arenas: &[Arena]) {
        let layout = &self.jemalloc.layout;
        let own = arenas.iter().filter_map(|arena| arena.internal_bytes(self.memory, layout));
        let counted = own.fold(0, u64::saturating_add);
        let met = self.outcome.overhead.iter().map(|block| block.usable_bytes).fold(0, u64::saturating_add);
        if counted > met {
            self.outcome.notes.push(format!(
                "of the live bytes {} are jemalloc's own, as the records of its profiler are, by its own count",
                counted - met
            ));
        } else if counted == 0 && self.counted.has_sampled() {
            self.outcome.notes.push("the profiler is on: its own records count as live".to_owned());
        }
    }

    /// Where no arena leads to the base blocks: the pages with records that the tree leads to. Base blocks are of
    /// whole pages, which nothing but records lie on.
    fn record_claims(&mut self) {
        let tree = self.jemalloc.tree;
        let (leaves, _) = tree.leaves(self.memory);
        let mut records: Vec<AddressRange> =
            leaves.iter().filter_map(|leaf| tree.leaf_range(*leaf)).collect();
        let extents = self.jemalloc.extent_records(self.memory, &leaves);
        records.extend(extents.iter().filter_map(|record| AddressRange::with_len(record.start, 1)));
        let claims = pages_of(&records, self.page_bytes)
            .into_iter()
            .map(|range| Claim { range, kind: ClaimKind::Metadata });
        self.outcome.claims.extend(claims);
    }

    fn base_claims(&mut self, arenas: &[Arena]) {
        if arenas.is_empty() {
            self.record_claims();
        }
        for arena in arenas {
            let (blocks, ended) = arena.base_blocks(self.memory, &self.jemalloc.layout);
            if !ended {
                self.anomalies.add(arena.address, "the list of an arena's base blocks does not end");
                self.outcome.complete = false;
            }
            let claims = blocks.into_iter().map(|range| Claim { range, kind: ClaimKind::Metadata });
            self.outcome.claims.extend(claims);
        }
    }
}

/// The whole pages that hold `records`, each once.
fn pages_of(records: &[AddressRange], page_bytes: u64) -> Vec<AddressRange> {
    let whole = records.iter().map(|record| AddressRange {
        start: record.start - record.start % page_bytes,
        end: record.end.checked_next_multiple_of(page_bytes).unwrap_or(record.end),
    });
    merge_ranges(whole.collect(), 0)
}

fn sorted(own: &[(u64, &'static str)]) -> Vec<(u64, &'static str)> {
    let mut sorted = own.to_vec();
    sorted.sort_unstable();
    sorted
}

/// What cache-oblivious builds add to each large extent: a page, so that blocks can start anywhere in the
/// first one. It shows in extents that are a page larger than their class, or do not start on a page.
fn pad_bytes(jemalloc: &Jemalloc, memory: &dyn Memory) -> u64 {
    const LARGE_SAMPLE: u32 = 64;
    let page_bytes = jemalloc.classes.page_bytes;
    let (mut seen, mut padded) = (0, false);
    for leaf in jemalloc.tree.leaves(memory).0 {
        let mut last = 0;
        jemalloc.tree.elements(memory, &jemalloc.layout, leaf, &mut |_, element| {
            if element.slab || element.extent == last || element.szind < jemalloc.classes.nbins() {
                return ControlFlow::Continue(());
            }
            last = element.extent;
            let extent = Extent::read(memory, &jemalloc.layout, page_bytes, element.extent);
            let Some(extent) = extent.ok().filter(|extent| extent.state == ACTIVE && !extent.slab) else {
                return ControlFlow::Continue(());
            };
            let Some(class) = jemalloc.classes.size_bytes(extent.szind) else {
                return ControlFlow::Continue(());
            };
            seen += 1;
            padded = extent.address % page_bytes != 0 || extent.size_bytes == class + page_bytes;
            if padded || seen >= LARGE_SAMPLE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if padded || seen >= LARGE_SAMPLE {
            break;
        }
    }
    if padded { page_bytes } else { 0 }
}
