//! gperftools tcmalloc, 2.10 to 2.18: spans of pages, size classes, thread caches.
//!
//! The page map lists all spans, so nothing is missed. Which of a span's objects are free only lists tell, that run
//! through the free objects themselves: the span's own, the transfer cache's, and one a thread and class. What is on none
//! is live. Google's other tcmalloc, with caches for each CPU, is not this one. This folder uses the allocator's own
//! words; the neutral ones are in the parent.

pub mod central;
mod counters;
pub mod identify;
pub mod layout;
mod objects;
pub mod page_map;
mod proof;
pub mod size_map;
pub mod span;
pub mod thread_cache;
mod version;
mod walk;

use self::central::CentralLists;
use self::layout::{Layout, Version};
use self::page_map::PageMap;
use self::size_map::SizeMap;
use self::walk::Heap;
use super::records::RecordMap;
use super::{Allocator, Anomalies, Provenance, Sink, ThreadPointer, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::AddressRange;

/// A tcmalloc in a target, with a proved layout.
#[derive(Debug, Clone)]
pub struct Tcmalloc {
    /// Path of its module.
    pub module: String,
    /// Its version, where its text was found.
    pub version: Option<Version>,
    /// Where its fields are.
    pub layout: Layout,
    /// How its roots were found.
    pub provenance: Provenance,
    /// Its size classes.
    pub sizes: SizeMap,
    /// Its central lists.
    pub central: CentralLists,
    /// Its page map.
    pub page_map: PageMap,
    /// Words of its module that point to thread caches.
    pub cache_slots: Vec<u64>,
    /// The page heap's lock, where it was found.
    pub page_heap_lock: Option<u64>,
    /// Its code, where that can be told from others': a thread that is there may be in the middle of a change.
    pub code: Option<AddressRange>,
    /// How it was found and proved.
    pub evidence: Vec<String>,
}

impl Tcmalloc {
    /// What is read but for the links of spans' own lists.
    fn essentials_of(&self, heap: &Heap, memory: &dyn Memory) -> Vec<AddressRange> {
        let mut ranges = vec![self.sizes.range(), self.central.range(), self.page_map.root_range()];
        ranges.push(counters::range(&self.page_map));
        let word = |address: &u64| AddressRange::with_len(*address, 8);
        ranges.extend(self.cache_slots.iter().filter_map(word));
        // What precedes the lock tells whether it is one.
        ranges
            .extend(self.page_heap_lock.and_then(|lock| AddressRange::with_len(lock.saturating_sub(8), 16)));
        ranges.extend(self.page_map.leaves(memory).into_iter().map(|(_, leaf)| leaf));
        ranges.extend(&heap.spans.records);
        ranges.extend(thread_cache::ranges(&heap.caches, &self.layout));
        heap.cached_objects(self, memory, &mut |object| ranges.extend(word(&object)));
        ranges
    }

    fn bulk_of(heap: &Heap) -> Vec<AddressRange> {
        heap.linked_spans().map(|span| span.range(heap.spans.page_shift)).collect()
    }

    fn heap(&self, memory: &dyn Memory) -> Heap {
        Heap::gather(self, memory, &mut Anomalies::default())
    }

    /// All locks that are known.
    fn locks(&self) -> Vec<u64> {
        self.central.locks().chain(self.page_heap_lock).collect()
    }

    fn is_in_code(&self, program_counter: u64) -> bool {
        self.code.is_some_and(|code| code.contains(program_counter))
    }
}

impl Allocator for Tcmalloc {
    fn name(&self) -> &'static str {
        "tcmalloc"
    }

    fn version(&self) -> String {
        self.version.map_or_else(|| format!("like {}", self.layout.table), |version| version.to_string())
    }

    fn module(&self) -> &str {
        &self.module
    }

    fn provenance(&self) -> Provenance {
        self.provenance
    }

    fn evidence(&self) -> Vec<String> {
        self.evidence.clone()
    }

    fn needs_thread_pointers(&self, _memory: &dyn Memory) -> bool {
        false
    }

    fn learn_threads(&mut self, _memory: &dyn Memory, _threads: &[ThreadPointer]) {}

    fn metadata(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let heap = self.heap(memory);
        let mut ranges = self.essentials_of(&heap, memory);
        ranges.extend(Self::bulk_of(&heap));
        ranges
    }

    fn bulk(&self, memory: &dyn Memory) -> Vec<AddressRange> {
        Self::bulk_of(&self.heap(memory))
    }

    fn essentials(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> Vec<AddressRange> {
        self.essentials_of(&self.heap(memory), memory)
    }

    fn records(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> RecordMap {
        walk::records(self, memory)
    }

    fn records_hold_data(&self) -> bool {
        true
    }

    fn lock_words(&self, _memory: &dyn Memory) -> Vec<u64> {
        self.locks()
    }

    /// Thread caches are changed without a lock; in a process of many threads some would nearly always be at it.
    fn is_at_work(&self, threads: &[ThreadPointer]) -> bool {
        matches!(threads, [only] if self.is_in_code(only.program_counter))
    }

    fn walk(&self, memory: &dyn Memory, threads: &[ThreadPointer], sink: &mut dyn Sink) -> WalkOutcome {
        walk::walk(self, memory, threads, sink)
    }
}
