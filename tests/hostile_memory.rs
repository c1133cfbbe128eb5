//! Memory that lies: pages that fault, bits that flip, pointers that lead in circles. A walk of it never panics, does
//! a bounded amount of work, and says so where what it counts is not what the allocator counts.
//!
//! The heaps are recorded ones; each case is made from a seed, which is printed when it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod recorded;

use heaptap::allocator::jemalloc::arena::Arena;
use heaptap::allocator::jemalloc::{Jemalloc, identify};
use heaptap::allocator::{AddressSpace, Allocator, ThreadPointer, WalkOutcome};
use heaptap::capture::core_file;
use heaptap::memory::{Fault, Memory, MemoryExt};
use heaptap::snapshot::Liveness;
use heaptap::target::{Captured, Options, Target};
use heaptap_platform::AddressRange;
use recorded::fixtures;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Numbers that look random and are the same every time (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).unwrap()
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A recorded heap with some of its bytes replaced and some of its pages gone.
struct Hostile<'a> {
    heap: &'a Heap,
    words: BTreeMap<u64, u64>,
    gone: BTreeSet<u64>,
    /// Reads so far, and the bytes that they asked for.
    reads: Cell<(u64, u64)>,
}

const PAGE_BYTES: u64 = 4096;

/// An address and the word there.
type Word = (u64, u64);

impl Memory for Hostile<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let (reads, total) = self.reads.get();
        self.reads.set((reads + 1, total + bytes.len() as u64));
        let end = address.checked_add(bytes.len() as u64).ok_or(Fault { address })?;
        let pages = (address / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(|page| page * PAGE_BYTES);
        if let Some(gone) = pages.into_iter().take(1 << 20).find(|page| self.gone.contains(page)) {
            return Err(Fault { address: gone.max(address) });
        }
        self.heap.captured.capture.memory.read(address, bytes)?;
        for (at, word) in self.words.range(address.saturating_sub(7)..end) {
            for (index, byte) in word.to_le_bytes().into_iter().enumerate() {
                let place =
                    (at + index as u64).checked_sub(address).and_then(|place| usize::try_from(place).ok());
                if let Some(byte_there) = place.and_then(|place| bytes.get_mut(place)) {
                    *byte_there = byte;
                }
            }
        }
        Ok(())
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        self.heap.captured.capture.memory.present(range)
    }
}

/// A recorded heap, and what a walk of it gives.
struct Heap {
    name: String,
    captured: Captured,
    jemalloc: Jemalloc,
    threads: Vec<ThreadPointer>,
    keeps_statistics: bool,
    /// Captured words, by address: those that are pointers to captured bytes, and all others that are not zero.
    pointers: Vec<Word>,
    words: Vec<Word>,
    honest: Walk,
}

/// What came of a walk.
struct Walk {
    outcome: WalkOutcome,
    liveness: Liveness,
    reads: u64,
    read_bytes: u64,
}

impl Walk {
    /// Blocks that the allocator itself calls in use.
    fn in_use(&self) -> u64 {
        let sum = self.liveness.totals().sum();
        sum.live_blocks + sum.cached_blocks + self.outcome.overhead.len() as u64
    }

    /// Whether it says that something is wrong.
    fn complains(&self) -> bool {
        let outcome = &self.outcome;
        !outcome.complete
            || !outcome.anomalies.is_empty()
            || outcome.structures_broken > 0
            || outcome.cells_differing > 0
            || outcome.blocks_in_motion_max > 0
    }
}

impl Heap {
    fn all() -> Vec<Self> {
        fixtures().iter().map(|path| Self::open(path)).collect()
    }

    fn open(path: &Path) -> Self {
        let captured = Target::open(path.to_str().unwrap()).unwrap().capture(&Options::default()).unwrap();
        let threads = captured.capture.thread_pointers();
        let space = AddressSpace { modules: &captured.modules, mappings: &captured.mappings };
        let mut jemalloc = identify::find(space, &captured.capture.memory).found.remove(0);
        if jemalloc.needs_thread_pointers(&captured.capture.memory) {
            jemalloc.learn_threads(&captured.capture.memory, &threads);
        }
        let honest =
            Walk { outcome: WalkOutcome::default(), liveness: Liveness::default(), reads: 0, read_bytes: 0 };
        let mut heap = Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            captured,
            jemalloc,
            threads,
            keeps_statistics: false,
            pointers: Vec::new(),
            words: Vec::new(),
            honest,
        };
        (heap.pointers, heap.words) = heap.words_of_its_records();
        heap.honest = heap.walk(&heap.jemalloc, &heap.hostile());
        heap.keeps_statistics = heap.honest.outcome.cells_compared > 0;
        assert!(!heap.honest.complains(), "{}: {:?}", heap.name, heap.honest.outcome.anomalies);
        heap
    }

    fn hostile(&self) -> Hostile<'_> {
        Hostile { heap: self, words: BTreeMap::new(), gone: BTreeSet::new(), reads: Cell::new((0, 0)) }
    }

    fn words_of_its_records(&self) -> (Vec<Word>, Vec<Word>) {
        let memory = &self.captured.capture.memory;
        let is_captured = |address: u64| memory.read_u64(address).is_ok();
        let ranges = memory.ranges();
        let all = ranges.iter().flat_map(|range| (range.start.next_multiple_of(8)..range.end - 7).step_by(8));
        all.filter_map(|at| Some((at, memory.read_u64(at).ok()?)))
            .filter(|(_, word)| *word != 0)
            .partition(|(_, word)| is_captured(*word))
    }

    fn walk(&self, jemalloc: &Jemalloc, memory: &Hostile<'_>) -> Walk {
        memory.reads.set((0, 0));
        let mut liveness = Liveness::default();
        let outcome = jemalloc.walk(memory, &self.threads, &mut liveness);
        liveness.run_classes.clone_from(&outcome.run_classes);
        liveness.sort();
        let (reads, read_bytes) = memory.reads.get();
        Walk { outcome, liveness, reads, read_bytes }
    }

    /// Walks `memory` and its plan; both must end within bounds.
    fn survive(&self, memory: &Hostile<'_>, case: &str) -> Walk {
        let walk = self.walk(&self.jemalloc, memory);
        let bound = |honest: u64| 40 * honest + 100_000;
        let (reads, read_bytes) = (walk.reads, walk.read_bytes);
        assert!(reads <= bound(self.honest.reads), "{} {case}: {reads} reads", self.name);
        assert!(
            read_bytes <= 100 * bound(self.honest.read_bytes),
            "{} {case}: {read_bytes} bytes read, {} of the heap as it was",
            self.name,
            self.honest.read_bytes
        );
        if self.keeps_statistics && walk.in_use() != self.honest.in_use() {
            assert!(
                walk.complains(),
                "{} {case}: {} blocks in use, {} in truth, and not a word of it",
                self.name,
                walk.in_use(),
                self.honest.in_use()
            );
        }
        self.jemalloc.metadata(memory, &self.threads);
        self.jemalloc.lock_words(memory);
        walk
    }
}

#[test]
fn pages_that_fault() {
    for heap in Heap::all() {
        let ranges = heap.captured.capture.memory.ranges();
        for seed in 0..100 {
            let mut dice = Dice(seed);
            let mut memory = heap.hostile();
            for _ in 0..=dice.below(8) {
                let range = dice.one_of(&ranges);
                let page = range.start / PAGE_BYTES + dice.roll() % range.len_bytes().div_ceil(PAGE_BYTES);
                memory.gone.insert(page * PAGE_BYTES);
            }
            heap.survive(&memory, &format!("faulting pages, seed {seed}"));
        }
    }
}

#[test]
fn bits_that_flip() {
    for heap in Heap::all() {
        for seed in 0..200 {
            let mut dice = Dice(seed);
            let mut memory = heap.hostile();
            let among = if dice.below(2) == 0 { &heap.pointers } else { &heap.words };
            let flips = if seed % 3 == 0 { 1 + dice.below(40) } else { 1 };
            for _ in 0..flips {
                let (at, word) = *dice.one_of(among);
                memory.words.insert(at, word ^ (1 << dice.below(64)));
            }
            heap.survive(&memory, &format!("{flips} flipped bits, seed {seed}"));
        }
    }
}

#[test]
fn pointers_that_lead_elsewhere() {
    for heap in Heap::all() {
        for seed in 0..150 {
            let mut dice = Dice(seed);
            let mut memory = heap.hostile();
            for _ in 0..=dice.below(20) {
                let (at, _) = *dice.one_of(&heap.pointers);
                let (other, target) = *dice.one_of(&heap.pointers);
                let lead = [at, other, target, at & !0xfff, u64::MAX - 7, 8][dice.below(6)];
                memory.words.insert(at, lead);
            }
            heap.survive(&memory, &format!("misled pointers, seed {seed}"));
        }
    }
}

/// Heads and links of every list that is followed, by what the layout says.
fn links(heap: &Heap) -> Vec<u64> {
    let (jemalloc, memory) = (&heap.jemalloc, &heap.captured.capture.memory);
    let (layout, tcache) = (&jemalloc.layout, &jemalloc.layout.tcache);
    let mut links: Vec<u64> = jemalloc.ring.into_iter().collect();
    for arena in Arena::all(memory, layout, jemalloc.arenas_array.unwrap()) {
        let base = memory.read_u64(arena.address + layout.arena_base).unwrap();
        let mut block = base + layout.base_blocks;
        while let Ok(next) = memory.read_u64(block)
            && next != 0
        {
            links.extend([block, next + 8]);
            block = next + 8;
        }
        for head in [tcache.arena_descriptors, tcache.arena_tcaches].into_iter().flatten() {
            let first = memory.read_u64(arena.address + head).unwrap_or(0);
            links.push(arena.address + head);
            links.extend((first != 0).then_some(first));
        }
    }
    links
}

#[test]
fn lists_and_trees_that_lead_in_circles() {
    for heap in Heap::all() {
        let memory = &heap.captured.capture.memory;
        let links = links(&heap);
        assert!(links.len() > 5, "{}", heap.name);
        for link in &links {
            let there = memory.read_u64(*link).unwrap_or(0);
            for lead in links.iter().step_by(7).copied().chain([*link, there, *link & !0xfff]) {
                let mut hostile = heap.hostile();
                hostile.words.insert(*link, lead);
                heap.survive(&hostile, &format!("link {link:#x} leads to {lead:#x}"));
            }
        }
        let (leaves, arrays) = heap.jemalloc.tree.leaves(memory);
        let elements: Vec<u64> = arrays
            .iter()
            .flat_map(|array| memory.present(*array))
            .flat_map(|present| (present.start..present.end).step_by(8))
            .filter(|at| memory.read_u64(*at).is_ok_and(|word| word != 0))
            .collect();
        let places =
            [heap.jemalloc.tree.root, leaves[0].address, arrays[arrays.len() - 1].start, elements[0]];
        for lead in places {
            let mut all = heap.hostile();
            for element in &elements {
                let mut one = heap.hostile();
                one.words.insert(*element, lead);
                heap.survive(&one, &format!("element {element:#x} leads to {lead:#x}"));
                all.words.insert(*element, lead);
            }
            heap.survive(&all, &format!("all elements lead to {lead:#x}"));
            // A root without an empty element.
            for array in &arrays {
                let filled = (array.start..array.end).step_by(8).map(|at| (at, lead));
                all.words.extend(filled.take(1 << 15));
            }
            heap.survive(&all, &format!("a full tree of {lead:#x}"));
        }
    }
}

#[test]
fn discovery_in_memory_that_lies() {
    for heap in Heap::all() {
        let space = AddressSpace { modules: &heap.captured.modules, mappings: &heap.captured.mappings };
        for seed in 0..12 {
            let mut dice = Dice(seed);
            let mut memory = heap.hostile();
            for _ in 0..=dice.below(200) {
                let among = if dice.below(2) == 0 { &heap.pointers } else { &heap.words };
                let (at, word) = *dice.one_of(among);
                memory.words.insert(at, word ^ (1 << dice.below(64)));
            }
            for mut jemalloc in identify::find(space, &memory).found {
                jemalloc.learn_threads(&memory, &heap.threads);
                heap.walk(&jemalloc, &memory);
            }
        }
    }
}

#[test]
fn files_that_were_cut_or_damaged() {
    for path in fixtures() {
        let whole = zstd::decode_all(std::fs::read(&path).unwrap().as_slice()).unwrap();
        let name = Path::new("damaged.core");
        let headers = u64::from_le_bytes(whole[64 + 8..64 + 16].try_into().unwrap());
        let headers = usize::try_from(headers).unwrap();
        for seed in 0..150 {
            let mut dice = Dice(seed);
            let mut bytes = whole.clone();
            if dice.below(3) == 0 {
                bytes.truncate(dice.below(whole.len()));
            }
            for _ in 0..dice.below(20) {
                let place =
                    if dice.below(4) == 0 { dice.below(whole.len()) } else { dice.below(2 * headers) };
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << dice.below(8);
                }
            }
            match core_file::from_bytes(bytes, name) {
                Ok(file) => {
                    let mut first = [0; 8];
                    for range in file.capture.memory.ranges().iter().take(100) {
                        let _ = file.capture.memory.read(range.start, &mut first);
                    }
                }
                Err(error) => {
                    let said = error.to_string();
                    assert!(said.contains("damaged.core"), "{said}");
                    assert!(error.hint().is_some(), "{said}");
                }
            }
        }
    }
}
