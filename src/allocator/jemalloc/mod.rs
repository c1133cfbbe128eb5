//! jemalloc 5.x: extents in a radix tree, slabs with bitmaps, thread caches.
//!
//! The radix tree is the only complete list of what jemalloc holds; everything else here explains, completes
//! or contradicts it. This folder uses jemalloc's own words; the neutral ones are in the parent.

pub mod arena;
pub mod classes;
pub mod constants;
mod counters;
pub mod dwarf;
pub mod extent;
pub mod identify;
pub mod layout;
mod probe;
mod profile;
pub mod proof;
pub mod rtree;
pub mod tcache;
mod version;
mod walk;

use self::arena::Arena;
use self::classes::SizeClasses;
use self::layout::{Layout, Version};
use self::rtree::{Leaf, Rtree};
use self::tcache::{BinHead, Caches, Places, Source};
use super::{Allocator, CacheHead, OwnProfile, Provenance, Sink, ThreadPointer, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::AddressRange;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Thread-local storage below a thread pointer that is searched for jemalloc's data.
const THREAD_STORAGE_BYTES: u64 = 1 << 16;

/// A jemalloc in a target, with a proved layout.
#[derive(Debug, Clone)]
pub struct Jemalloc {
    /// Path of its module.
    pub module: String,
    /// Where that module is mapped.
    pub module_range: AddressRange,
    /// Its version, where its text was found.
    pub version: Option<Version>,
    /// Where its fields are.
    pub layout: Layout,
    /// Its size classes.
    pub classes: SizeClasses,
    /// Its radix tree.
    pub tree: Rtree,
    /// The static array of arenas.
    pub arenas_array: Option<u64>,
    /// Head of the ring of threads' data.
    pub ring: Option<u64>,
    /// Offset of a thread's data from its thread pointer.
    pub thread_offset: Option<i64>,
    /// The word that says how often its profiler takes a sample, as far as a symbol names it.
    pub lg_sample: Option<u64>,
    /// What its profiler keeps is part of its records.
    pub keeps_profile: bool,
    /// Where the module's bytes are that showed it, its version and its size classes.
    pub signs: Vec<AddressRange>,
    /// How it was found and proved.
    pub evidence: Vec<String>,
}

impl Jemalloc {
    fn arenas(&self, memory: &dyn Memory) -> Vec<Arena> {
        self.arenas_array.map_or_else(Vec::new, |array| Arena::all(memory, &self.layout, array))
    }

    /// The extents' records one by one, for builds whose base blocks cannot be reached.
    fn extent_records(&self, memory: &dyn Memory, leaves: &[Leaf]) -> Vec<AddressRange> {
        const RECORD_BYTES: u64 = 64 + 8192 / 8;
        let mut records = BTreeSet::new();
        for leaf in leaves {
            self.tree.elements(memory, &self.layout, *leaf, &mut |_, element| {
                records.insert(element.extent);
                ControlFlow::Continue(())
            });
        }
        records.into_iter().filter_map(|start| AddressRange::with_len(start, RECORD_BYTES)).collect()
    }

    fn places(&self) -> Places<'_> {
        Places {
            layout: &self.layout,
            classes: &self.classes,
            ring: self.ring,
            thread_offset: self.thread_offset,
            module: self.module_range,
        }
    }

    fn caches(&self, memory: &dyn Memory, arenas: &[Arena], threads: &[ThreadPointer]) -> Caches {
        Caches::gather(self.places(), memory, arenas, threads)
    }

    /// Where the caches are, without what is in them.
    fn cache_places(&self, memory: &dyn Memory, arenas: &[Arena], threads: &[ThreadPointer]) -> Caches {
        Caches::survey(self.places(), memory, arenas, threads)
    }
}

impl Allocator for Jemalloc {
    fn name(&self) -> &'static str {
        "jemalloc"
    }

    fn version(&self) -> String {
        self.version.map_or_else(|| format!("like {}", self.layout.table), |version| version.to_string())
    }

    fn module(&self) -> &str {
        &self.module
    }

    fn provenance(&self) -> Provenance {
        self.layout.provenance
    }

    fn evidence(&self) -> Vec<String> {
        self.evidence.clone()
    }

    fn needs_thread_pointers(&self, memory: &dyn Memory) -> bool {
        self.thread_offset.is_none()
            && self.cache_places(memory, &self.arenas(memory), &[]).source == Source::None
    }

    fn learn_threads(&mut self, memory: &dyn Memory, threads: &[ThreadPointer]) {
        let pointers: Vec<u64> = threads.iter().map(|thread| thread.thread_pointer).collect();
        let (leaves, _) = self.tree.leaves(memory);
        let arenas = self.arenas(memory);
        self.thread_offset =
            probe::thread_offset(memory, &self.layout, &arenas, &leaves, &pointers, THREAD_STORAGE_BYTES);
        self.evidence.push(match self.thread_offset {
            Some(offset) => format!("each thread's data lies {offset} bytes from its thread pointer"),
            None => "no thread's data was found: blocks in thread caches count as live".to_owned(),
        });
    }

    fn metadata(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let (leaves, mut ranges) = self.tree.leaves(memory);
        ranges.extend(leaves.iter().flat_map(|leaf| self.tree.leaf_parts(memory, *leaf)));
        ranges.extend(
            self.arenas_array.map(|start| AddressRange { start, end: start + arena::ARENAS_MAX * 8 }),
        );
        // What a reader without the module's file needs to find it again.
        ranges.extend(&self.signs);
        let head = self.layout.rtree_root;
        ranges.push(AddressRange { start: self.tree.root.saturating_sub(head), end: self.tree.root });
        let arenas = self.arenas(memory);
        for arena in &arenas {
            ranges.extend(arena.base_blocks(memory, &self.layout).0);
        }
        if arenas.is_empty() {
            ranges.extend(self.extent_records(memory, &leaves));
        }
        let caches = self.cache_places(memory, &arenas, threads);
        if caches.source == Source::Ring {
            ranges.extend(self.ring.and_then(|start| AddressRange::with_len(start, 8)));
        }
        ranges.extend(caches.ranges);
        if self.keeps_profile {
            ranges.extend(profile::records(self, memory));
        }
        ranges
    }

    fn include_profile(&mut self) {
        self.keeps_profile = true;
    }

    fn profile(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Option<OwnProfile> {
        Some(profile::read(self, memory, threads))
    }

    fn cache_heads(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<CacheHead> {
        let heads = self.cache_places(memory, &self.arenas(memory), threads).heads;
        // A thread's data lies in its static storage, which ends at its thread pointer.
        let owner = |address: u64| {
            let distance = |thread: &&ThreadPointer| thread.thread_pointer.wrapping_sub(address);
            threads.iter().filter(|thread| distance(thread) < THREAD_STORAGE_BYTES).min_by_key(distance)
        };
        let head = |head: &BinHead| {
            Some(CacheHead {
                tid: owner(head.address)?.tid,
                address: head.address,
                block_bytes: self.classes.size_bytes(head.szind)?,
                form: head.form,
            })
        };
        heads.iter().filter_map(head).collect()
    }

    fn lock_words(&self, memory: &dyn Memory) -> Vec<u64> {
        let bins = |arena: &Arena| arena.bins(memory, &self.layout, &self.classes);
        let arenas = self.arenas(memory);
        arenas.iter().flat_map(bins).map(|bin| bin.address.wrapping_add(self.layout.bin_lock)).collect()
    }

    fn walk(&self, memory: &dyn Memory, threads: &[ThreadPointer], sink: &mut dyn Sink) -> WalkOutcome {
        walk::walk(self, memory, threads, sink)
    }
}
