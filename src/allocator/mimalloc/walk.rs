//! The walk: every page once, its blocks told free or not by its lists.

use super::Mimalloc;
use super::inventory::Inventory;
use super::lists::Lists;
use super::page::Page;
use super::segment::Segment;
use crate::allocator::address_space::without;
use crate::allocator::records::RecordMap;
use crate::allocator::{Anomalies, Block, Claim, ClaimKind, Run, RunClass, Sink, WalkOutcome};
use crate::memory::{Memory, MemoryExt};
use heaptap_platform::{AddressRange, merge_ranges};
use std::collections::HashMap;

/// Walks everything that `memory` shows of `mimalloc`.
pub fn walk(mimalloc: &Mimalloc, memory: &dyn Memory, sink: &mut dyn Sink) -> WalkOutcome {
    let inventory = Inventory::of(memory, mimalloc);
    let mut walk = Walk {
        memory,
        inventory: &inventory,
        sink,
        classes: HashMap::new(),
        anomalies: Anomalies::default(),
        outcome: WalkOutcome { complete: true, ..WalkOutcome::default() },
        tally: Tally::default(),
    };
    for page in &inventory.pages {
        walk.page(page);
    }
    walk.damage();
    walk.heaps(mimalloc);
    walk.claims();
    walk.finish()
}

/// Where the links of free blocks lie.
pub fn records(mimalloc: &Mimalloc, memory: &dyn Memory) -> RecordMap {
    let inventory = Inventory::of(memory, mimalloc);
    let mut records = RecordMap::default();
    for page in inventory.pages.iter().filter(|page| page.has_lists()) {
        Lists::of(memory, page, &[], &mut |block| records.mark(block, true));
    }
    inventory.delayed.iter().for_each(|block| records.mark(*block, true));
    records
}

/// What is added up in mimalloc's own terms.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    used_blocks: u64,
    used_bytes: u64,
    doubtful: u64,
}

struct Walk<'a> {
    memory: &'a dyn Memory,
    inventory: &'a Inventory,
    sink: &'a mut dyn Sink,
    classes: HashMap<RunClass, u16>,
    anomalies: Anomalies,
    outcome: WalkOutcome,
    tally: Tally,
}

impl Walk<'_> {
    fn page(&mut self, page: &Page) {
        self.outcome.structures_checked += 1;
        self.tally.used_blocks += page.used;
        self.tally.used_bytes += page.used.saturating_mul(page.block_bytes);
        let lists = Lists::of(self.memory, page, &self.inventory.delayed, &mut |_| {});
        self.tally.doubtful += lists.doubtful;
        if let Some(broken) = lists.broken {
            if broken.is_of_the_moment {
                self.broken(broken.at, broken.why);
                return;
            }
            self.tally.doubtful += page.capacity;
        }
        self.compare(page, &lists);
        self.deliver(page, &lists);
    }

    /// A page counts its blocks; a difference is a change that was under way, or two moments in one capture.
    fn compare(&mut self, page: &Page, lists: &Lists) {
        self.outcome.cells_compared += 1;
        let differing = lists.difference(page).max(lists.contradictory);
        if differing == 0 {
            return;
        }
        if self.memory.is_of_one_moment() {
            self.outcome.cells_differing += 1;
            self.outcome.blocks_in_motion_max += differing;
            self.anomalies
                .add(page.record, "the lists of a page and its counter were in the middle of a change");
        } else {
            self.tally.doubtful += differing;
        }
    }

    fn deliver(&mut self, page: &Page, lists: &Lists) {
        let shard = self.inventory.shard(page.heap);
        let blocks = u32::try_from(page.reserved).unwrap_or(u32::MAX);
        let run_bytes = page.reserved * page.block_bytes;
        let class = RunClass { block_bytes: page.block_bytes, run_bytes, blocks };
        let known = u16::try_from(self.classes.len()).ok();
        let class = if blocks == 1 {
            None
        } else {
            self.classes.get(&class).copied().or(known).map(|at| (class, at))
        };
        let Some((class, index)) = class else {
            self.alone(page, lists, shard);
            return;
        };
        if self.classes.insert(class, index).is_none() {
            self.outcome.run_classes.push(class);
        }
        let words = usize::try_from(page.reserved.div_ceil(64)).unwrap_or(0);
        let whole = |bits: &[u64]| {
            let mut whole = bits.to_vec();
            whole.resize(words, 0);
            whole
        };
        let (live, cached) = (whole(&lists.live), whole(&lists.cached));
        self.sink.run(Run {
            address: page.start,
            class: index,
            shard,
            serial: 0,
            live: &live,
            cached: &cached,
        });
    }

    /// Delivers the blocks of a page one by one.
    fn alone(&mut self, page: &Page, lists: &Lists, shard: u32) {
        let bit = |bits: &[u64], index: u64| {
            let word = usize::try_from(index / 64).ok().and_then(|word| bits.get(word));
            word.is_some_and(|word| word & (1 << (index % 64)) != 0)
        };
        for index in 0..page.capacity {
            let cached = bit(&lists.cached, index);
            if !cached && !bit(&lists.live, index) {
                continue;
            }
            let is_only = page.reserved == 1;
            self.sink.block(Block {
                address: page.start + index * page.block_bytes,
                usable_bytes: page.block_bytes,
                held_bytes: if is_only { page.area.len_bytes() } else { page.block_bytes },
                class_bytes: page.block_bytes,
                shard,
                serial: 0,
                cached,
            });
        }
    }

    fn broken(&mut self, address: u64, why: &str) {
        self.outcome.structures_broken += 1;
        self.outcome.complete = false;
        self.anomalies.add(address, why);
    }

    fn damage(&mut self) {
        let inventory = self.inventory;
        for (record, area) in &inventory.broken {
            self.outcome.structures_checked += 1;
            if self.memory.is_of_the_moment(*record) {
                self.broken(*record, "the record of a page or a segment cannot be read, or makes no sense");
            } else {
                self.tally.doubtful += 1;
            }
            self.claim(*area, ClaimKind::InUse);
        }
        for heap in &inventory.broken_heaps {
            if self.memory.is_of_one_moment() {
                self.broken(
                    *heap,
                    "a heap's list of blocks that other threads freed does not come to its end",
                );
            } else {
                self.tally.doubtful += 1;
            }
        }
    }

    /// A heap counts its pages: whether all of them were met.
    fn heaps(&mut self, mimalloc: &Mimalloc) {
        let Some(fields) = &mimalloc.layout.heap else { return };
        let inventory = self.inventory;
        let mut owned: HashMap<u64, u64> = inventory.heaps.iter().map(|heap| (*heap, 0)).collect();
        for page in &inventory.pages {
            *owned.entry(page.heap).or_default() += 1;
        }
        for heap in &inventory.heaps {
            let Ok(counted) = self.memory.read_u64(heap.wrapping_add(fields.page_count)) else { continue };
            let found = owned.get(heap).copied().unwrap_or_default();
            self.outcome.cells_compared += 1;
            if found == counted {
                continue;
            }
            self.outcome.cells_differing += 1;
            self.outcome
                .notes
                .push(format!("heap {heap:#x}: {found} pages found, {counted} by its own counter"));
            // A thread that is making or giving back a page has counted it too early or too late.
            if counted > found + 1 {
                self.anomalies.add(*heap, "a heap has pages that were not found");
                self.outcome.complete = false;
            }
        }
    }

    fn claims(&mut self) {
        let inventory = self.inventory;
        for page in &inventory.pages {
            self.claim(page.area, if page.used > 0 { ClaimKind::InUse } else { ClaimKind::Dirty });
        }
        for segment in &inventory.segments {
            self.segment(segment);
        }
    }

    /// What of a segment is neither its own record nor a page in use is kept.
    fn segment(&mut self, segment: &Segment) {
        if !segment.is_in_use {
            self.claim(segment.range, ClaimKind::Dirty);
            return;
        }
        self.claim(segment.own, ClaimKind::Metadata);
        let taken = segment.pages.iter().map(|page| page.area).chain([segment.own]);
        for range in without(&[segment.range], &merge_ranges(taken.collect(), 0)) {
            self.claim(range, ClaimKind::Dirty);
        }
    }

    fn claim(&mut self, range: AddressRange, kind: ClaimKind) {
        if !range.is_empty() {
            self.outcome.claims.push(Claim { range, kind });
        }
    }

    fn finish(mut self) -> WalkOutcome {
        if self.tally.doubtful > 0 {
            self.outcome.notes.push(format!(
                "up to {} blocks were changing and could not be verified",
                self.tally.doubtful
            ));
            self.outcome.blocks_in_motion_max += self.tally.doubtful;
        }
        let heaps = self.inventory.heaps.len() as u64;
        let nobodys = self.inventory.pages.iter().filter(|page| page.heap == 0).count() as u64;
        self.outcome.shards = self.inventory.heaps.iter().map(|heap| self.inventory.shard(*heap)).collect();
        self.outcome.thread_caches = heaps;
        self.outcome.own_figures = vec![
            ("pages", self.inventory.pages.len() as u64),
            ("pages_abandoned", nobodys),
            ("segments", self.inventory.segments.iter().filter(|segment| segment.is_in_use).count() as u64),
            ("heaps", heaps),
            ("used_blocks", self.tally.used_blocks),
            ("used_bytes", self.tally.used_bytes),
        ];
        let own = |claim: &&Claim| claim.kind == ClaimKind::Metadata;
        let metadata = self.outcome.claims.iter().filter(own).map(|claim| claim.range.len_bytes());
        let metadata = metadata.fold(0, u64::saturating_add);
        self.outcome.metadata_bytes = self.inventory.segments.first().map(|_| metadata);
        self.outcome.anomalies = self.anomalies.into_vec();
        self.outcome
    }
}
