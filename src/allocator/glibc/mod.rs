//! The GNU C library's malloc (ptmalloc), 2.17 to 2.43: arenas, chunks side by side, bins, thread caches.
//!
//! Nothing lists what is in use: a block is what the walk of all chunks finds and no free list names. So a walk
//! reads the heap itself. This folder uses the library's own words; the neutral ones are in the parent.

pub mod arena;
pub mod chunk;
mod free_list;
mod heap;
pub mod identify;
pub mod layout;
mod mmapped;
mod parameters;
mod proof;
mod tcache;
mod version;
mod walk;

use self::arena::Arena;
use self::chunk::Header;
use self::layout::{Layout, Version};
use self::mmapped::Proved;
use self::parameters::Parameters;
use self::tcache::{Caches, Slots};
use super::address_space::without;
use super::records::RecordMap;
use super::{Allocator, Anomalies, CacheHead, Provenance, Sink, ThreadPointer, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::{AddressRange, merge_ranges};

/// A glibc malloc in a target, with a proved layout.
#[derive(Debug, Clone)]
pub struct Glibc {
    /// Path of its module.
    pub module: String,
    /// Its version, where its banner was found.
    pub version: Option<Version>,
    /// Where its fields are.
    pub layout: Layout,
    /// Layouts that fit as well, as long as no thread cache was looked at.
    pub alternatives: Vec<Layout>,
    /// How its roots were found.
    pub provenance: Provenance,
    /// The main arena's record.
    pub main_arena: u64,
    /// The parameters.
    pub parameters_at: Option<u64>,
    /// Code of malloc and its relatives: a thread that is there may be in the middle of a change.
    pub code: Option<AddressRange>,
    /// What `brk` grows.
    pub brk_heap: Option<AddressRange>,
    /// Other private memory, where further pieces of the main arena and blocks with a mapping of their own lie.
    pub regions: Vec<AddressRange>,
    /// Where blocks with a mapping of their own may be.
    pub mmapped: Vec<u64>,
    /// Where threads keep their caches.
    pub slots: Option<Slots>,
    /// How it was found and proved.
    pub evidence: Vec<String>,
}

impl Glibc {
    /// What is small and at known places.
    fn roots(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let mut ranges = Vec::new();
        ranges.extend(AddressRange::with_len(self.main_arena, self.layout.arena_bytes()));
        ranges.extend(self.parameters_at.and_then(parameters::range));
        let mmapped = self.proved_mmapped(memory).unwrap_or_default().chunks;
        let mmapped = self.mmapped.iter().copied().chain(mmapped.iter().map(|whole| whole.chunk));
        ranges.extend(mmapped.filter_map(|chunk| AddressRange::with_len(chunk, 16)));
        if let Some(slots) = self.slots {
            for thread in threads {
                let slot = |distance| AddressRange::with_len(thread.thread_pointer.wrapping_sub(distance), 8);
                ranges.extend(slot(slots.arena));
                ranges.extend(slots.tcache.and_then(slot));
            }
        }
        ranges
    }

    fn parameters(&self, memory: &dyn Memory) -> Option<Parameters> {
        Parameters::read(memory, &self.layout.parameters, self.parameters_at?)
    }

    /// The chunks with a mapping of their own: those that were found before, and if they are not all, those that
    /// came since.
    fn proved_mmapped(&self, memory: &dyn Memory) -> Option<Proved> {
        let parameters = self.parameters(memory)?;
        let proved = mmapped::prove(memory, &self.layout, &self.mmapped, &parameters);
        if (proved.count_agrees && proved.bytes_agree) || memory.anonymous().is_empty() {
            return Some(proved);
        }
        let places = proved.chunks.iter().map(|whole| whole.end);
        let places = places.chain(self.regions.iter().flat_map(|region| [region.start, region.end]));
        let mut candidates = mmapped::newcomers(
            memory,
            &self.layout,
            memory.anonymous(),
            places.collect::<Vec<u64>>().into_iter(),
        );
        candidates.extend(&self.mmapped);
        candidates.sort_unstable();
        candidates.dedup();
        Some(mmapped::prove(memory, &self.layout, &candidates, &parameters))
    }

    /// What `brk` gave the main arena: from its beginning to its top chunk's end, or as far as it can reach.
    fn main_place(&self, memory: &dyn Memory, main: &Arena) -> Option<AddressRange> {
        let start = self.parameters(memory)?.sbrk_base;
        let top = Header::read(memory, main.top).ok()?;
        let top_end = main.top.checked_add(top.size_bytes())?;
        let is_in_brk = self.brk_heap.is_some_and(|brk| main.top >= brk.start && main.top < brk.end);
        let end = if !main.noncontiguous || is_in_brk || main.top == start {
            top_end
        } else {
            self.brk_heap.filter(|brk| brk.contains(start)).map_or(top_end, |brk| brk.end)
        };
        AddressRange::new(start, end)
    }

    /// Address space whose use is known without looking for pieces of the main arena.
    fn known_ranges(
        &self,
        memory: &dyn Memory,
        arenas: &[Arena],
        main_place: AddressRange,
    ) -> Vec<AddressRange> {
        let mut known = vec![main_place];
        let others = arenas.iter().filter(|arena| arena.index != 0);
        let heaps = others.flat_map(|arena| heap::of_thread_arena(memory, &self.layout, arena).0);
        known.extend(heaps.map(|piece| piece.range));
        let proved = self.proved_mmapped(memory).unwrap_or_default();
        known.extend(proved.chunks.iter().map(|whole| AddressRange { start: whole.start, end: whole.end }));
        merge_ranges(known, 0)
    }
}

impl Allocator for Glibc {
    fn name(&self) -> &'static str {
        "glibc"
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
        self.slots.is_none() && self.layout.tcache.is_some()
    }

    fn learn_threads(&mut self, memory: &dyn Memory, threads: &[ThreadPointer]) {
        let arenas = arena::circle(memory, &self.layout, self.main_arena).unwrap_or_default();
        let layouts: Vec<Layout> =
            std::iter::once(self.layout).chain(self.alternatives.iter().copied()).collect();
        let Some((slots, index)) = tcache::find_slots(memory, &layouts, &arenas, threads) else {
            self.evidence.push("no thread's data was found".to_owned());
            return;
        };
        if let Some(layout) = layouts.get(index) {
            self.layout = *layout;
        }
        self.evidence.push(match slots.tcache {
            Some(distance) => format!("each thread's cache hangs {distance} bytes below its thread pointer"),
            None => "no thread has a cache".to_owned(),
        });
        self.slots = Some(slots);
    }

    fn metadata(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let mut ranges = self.roots(memory, threads);
        ranges.extend(self.bulk(memory));
        ranges
    }

    fn bulk(&self, memory: &dyn Memory) -> Vec<AddressRange> {
        let mut ranges = Vec::new();
        let arenas = Arena::all(memory, &self.layout, self.main_arena).unwrap_or_default();
        for arena in arenas.iter().filter(|arena| arena.has_memory(&self.layout)) {
            if arena.index != 0 {
                let pieces = heap::of_thread_arena(memory, &self.layout, arena).0;
                ranges.extend(pieces.iter().map(|piece| piece.range));
            } else if let Some(place) = self.main_place(memory, arena) {
                ranges.push(place);
                if arena.noncontiguous {
                    ranges.extend(without(&self.regions, &self.known_ranges(memory, &arenas, place)));
                }
            }
        }
        ranges
    }

    fn essentials(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let mut ranges = self.roots(memory, threads);
        let arenas = Arena::all(memory, &self.layout, self.main_arena).unwrap_or_default();
        for arena in arenas.iter().filter(|arena| arena.has_memory(&self.layout)) {
            ranges.extend(AddressRange::with_len(arena.address, self.layout.arena_bytes()));
            ranges.extend(AddressRange::with_len(arena.top, 16));
            if arena.index != 0 {
                let pieces = heap::of_thread_arena(memory, &self.layout, arena).0;
                let headers =
                    pieces.iter().map(|piece| AddressRange { start: piece.range.start, end: piece.first });
                ranges.extend(headers);
            }
        }
        if let (Some(slots), Some(form)) = (self.slots, &self.layout.tcache) {
            ranges.extend(slots.structs(memory, threads).filter_map(|address| {
                AddressRange::with_len(address.checked_sub(16)?, form.struct_bytes() + 16)
            }));
        }
        ranges
    }

    fn records(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> RecordMap {
        walk::records(self, memory, threads)
    }

    fn records_hold_data(&self) -> bool {
        true
    }

    fn cache_heads(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<CacheHead> {
        let mut ignored = Anomalies::default();
        let caches =
            self.slots.map(|slots| Caches::gather(memory, &self.layout, slots, threads, &mut ignored));
        caches.unwrap_or_default().heads
    }

    fn class_of(&self, memory: &dyn Memory, block: u64) -> Option<u64> {
        let chunk = block.checked_sub(chunk::HEADER_BYTES).filter(|chunk| chunk % 16 == 0)?;
        let header = Header::read(memory, chunk).ok().filter(Header::is_plausible)?;
        Some(chunk::class_bytes(header.size_bytes()))
    }

    fn lock_words(&self, memory: &dyn Memory) -> Vec<u64> {
        arena::circle(memory, &self.layout, self.main_arena).unwrap_or_default()
    }

    /// A process of one thread takes no lock: where that thread is must tell.
    fn is_at_work(&self, threads: &[ThreadPointer]) -> bool {
        let in_code =
            |thread: &ThreadPointer| self.code.is_some_and(|code| code.contains(thread.program_counter));
        matches!(threads, [only] if in_code(only))
    }

    fn walk(&self, memory: &dyn Memory, threads: &[ThreadPointer], sink: &mut dyn Sink) -> WalkOutcome {
        walk::walk(self, memory, threads, sink)
    }
}
