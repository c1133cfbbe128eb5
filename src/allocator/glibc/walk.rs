//! The walk: every chunk of every piece once, told free or not by its neighbour, matched with all lists.

use super::Glibc;
use super::arena::Arena;
use super::chunk::{HEADER_BYTES, Header, OVERHEAD_BYTES, PREVIOUS_IN_USE, class_bytes};
use super::free_list::FreeLists;
use super::heap::{self, FENCE_BYTES, Piece};
use super::layout::CHUNK_BYTES_MIN;
use super::proof;
use super::tcache::{self, Caches};
use crate::allocator::records::RecordMap;
use crate::allocator::{Anomalies, Block, Claim, ClaimKind, Overhead, Run, Sink, ThreadPointer, WalkOutcome};
use crate::memory::{Memory, MemoryExt};
use heaptap_platform::AddressRange;

/// Free chunks from this size on are told apart from free memory between blocks in use.
const FREE_PAGES_BYTES_MIN: u64 = 4096;

/// What the walk adds up in the library's own terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes walked of each arena, by index: pieces and the gaps between them.
    pub walked_bytes: Vec<u64>,
    /// Chunks found free, and their bytes.
    pub free: (u64, u64),
    /// Chunks in fastbins, and their bytes.
    pub fast: (u64, u64),
    /// Bytes of all top chunks, and of the main arena's.
    pub top: (u64, u64),
    /// Bytes that no chunk could be found in.
    pub lost_bytes: u64,
    /// Blocks in use that carry the mark of cached ones.
    pub marked_live: u64,
    /// Chunks that may have changed between two reads.
    pub doubtful: u64,
    /// The first of them.
    pub first_doubt: Option<u64>,
}

/// Walks everything that `memory` shows of `glibc`.
pub fn walk(
    glibc: &Glibc,
    memory: &dyn Memory,
    threads: &[ThreadPointer],
    sink: &mut dyn Sink,
) -> WalkOutcome {
    run(glibc, memory, threads, sink, None)
}

/// Where the size words of all chunks lie, and the links of those in lists.
pub fn records(glibc: &Glibc, memory: &dyn Memory, threads: &[ThreadPointer]) -> RecordMap {
    struct Nowhere;
    impl Sink for Nowhere {
        fn run(&mut self, _run: Run<'_>) {}
        fn block(&mut self, _block: Block) {}
    }
    let mut records = RecordMap::default();
    run(glibc, memory, threads, &mut Nowhere, Some(&mut records));
    records
}

fn run(
    glibc: &Glibc,
    memory: &dyn Memory,
    threads: &[ThreadPointer],
    sink: &mut dyn Sink,
    records: Option<&mut RecordMap>,
) -> WalkOutcome {
    let mut anomalies = Anomalies::default();
    let arenas = Arena::all(memory, &glibc.layout, glibc.main_arena);
    let mut outcome = WalkOutcome { complete: arenas.is_some(), ..WalkOutcome::default() };
    if arenas.is_none() {
        anomalies.add(glibc.main_arena, "the circle of arenas does not close");
    }
    let arenas = arenas.unwrap_or_default();
    let lists = FreeLists::gather(memory, &glibc.layout, &arenas, &mut anomalies);
    let caches = glibc.slots.map_or_else(Caches::default, |slots| {
        Caches::gather(memory, &glibc.layout, slots, threads, &mut anomalies)
    });
    outcome.structures_broken = lists.broken + caches.broken;
    let mut anchors: Vec<u64> =
        lists.binned.keys().chain(lists.fast.keys()).chain(caches.chunks.keys()).copied().collect();
    anchors.sort_unstable();
    let tally = Tally { walked_bytes: vec![0; arenas.len()], ..Tally::default() };
    let mut walk = Walk {
        glibc,
        memory,
        blocks: Vec::new(),
        lists,
        caches,
        anchors,
        maybe_caches: Vec::new(),
        locked: arenas
            .iter()
            .filter(|arena| memory.read_u32(arena.address).is_ok_and(|mutex| mutex != 0))
            .map(|arena| arena.index)
            .collect(),
        records,
        anomalies,
        outcome,
        tally,
    };
    for arena in &arenas {
        walk.arena(arena, &arenas);
    }
    walk.mmapped();
    walk.orphans();
    walk.blocks.iter().for_each(|block| sink.block(*block));
    walk.finish(&arenas)
}

struct Walk<'a> {
    glibc: &'a Glibc,
    memory: &'a dyn Memory,
    blocks: Vec<Block>,
    lists: FreeLists,
    caches: Caches,
    /// Chunks that lists name, in address order: where a walk goes on behind corruption.
    anchors: Vec<u64>,
    /// Chunks in use that are as large as a thread cache.
    maybe_caches: Vec<u64>,
    /// Arenas whose lock was held.
    locked: Vec<u32>,
    /// Where to note the places of records, if they are asked for.
    records: Option<&'a mut RecordMap>,
    anomalies: Anomalies,
    outcome: WalkOutcome,
    tally: Tally,
}

/// A chunk whose neighbour has not yet told whether it is in use.
#[derive(Debug, Clone, Copy)]
struct Pending {
    chunk: u64,
    bytes: u64,
}

/// What the bytes at a place are.
enum Step {
    Chunk(Header),
    Top(Header),
    /// The end of a piece, and whether the chunk before belongs to it.
    Fence {
        end: u64,
        with_last: bool,
    },
    Broken(&'static str),
}

impl Walk<'_> {
    fn arena(&mut self, arena: &Arena, arenas: &[Arena]) {
        if !arena.has_memory(&self.glibc.layout) {
            return;
        }
        if arena.index == 0 {
            self.main_arena(arena, arenas);
            return;
        }
        let (pieces, whole) = heap::of_thread_arena(self.memory, &self.glibc.layout, arena);
        if !whole {
            self.anomalies.add(arena.address, "the chain of an arena's heaps breaks off");
            self.outcome.complete = false;
            self.outcome.structures_broken += 1;
        }
        for piece in pieces {
            let header = AddressRange { start: piece.range.start, end: piece.first };
            self.claim(header, ClaimKind::Metadata);
            self.piece(&piece, arena.top);
            self.walked(arena.index, piece.range.len_bytes());
        }
    }

    fn main_arena(&mut self, arena: &Arena, arenas: &[Arena]) {
        let Some(place) = self.glibc.main_place(self.memory, arena) else {
            self.anomalies.add(arena.address, "where the main arena's heap begins is not known");
            self.outcome.complete = false;
            return;
        };
        let mut from = heap::aligned(place.start);
        let mut last_end = place.start;
        while from < place.end {
            let range = AddressRange { start: from, end: place.end };
            last_end = self.piece(&Piece { arena: 0, range, first: from }, arena.top);
            if last_end >= place.end {
                break;
            }
            let Some(next) = heap::next_in_break(self.memory, last_end, place.end, arena.top) else { break };
            from = next.start;
        }
        self.walked(0, last_end.saturating_sub(place.start));
        if arena.noncontiguous {
            let known = self.glibc.known_ranges(self.memory, arenas, place);
            let regions = super::without(&self.glibc.regions, &known);
            for range in heap::elsewhere(self.memory, &regions, arena.top) {
                self.piece(&Piece { arena: 0, range, first: range.start }, arena.top);
                self.walked(0, range.len_bytes());
            }
        }
    }

    fn walked(&mut self, arena: u32, bytes: u64) {
        if let Some(sum) =
            usize::try_from(arena).ok().and_then(|index| self.tally.walked_bytes.get_mut(index))
        {
            *sum += bytes;
        }
    }

    /// Walks the chunks of a piece; returns where it ends.
    fn piece(&mut self, piece: &Piece, top: u64) -> u64 {
        let (mut chunk, mut pending) = (piece.first, None::<Pending>);
        let mut claimed = piece.first;
        // All sizes that led here were read in the stop: an older one may lead into the middle of what is there since.
        let mut is_sure = true;
        loop {
            let step = self.step(piece, chunk, top, pending);
            match step {
                Step::Chunk(header) => {
                    self.settle(piece.arena, pending, header.has(PREVIOUS_IN_USE), &mut claimed);
                    let bytes = header.size_bytes();
                    is_sure &= self.memory.is_of_the_moment(chunk + 8);
                    pending = Some(Pending { chunk, bytes });
                    chunk += bytes;
                }
                Step::Top(header) => {
                    self.settle(piece.arena, pending, header.has(PREVIOUS_IN_USE), &mut claimed);
                    let end = chunk.saturating_add(header.size_bytes());
                    self.top(piece.arena, chunk, end, claimed);
                    return end;
                }
                Step::Fence { end, with_last } => {
                    let before = pending.filter(|_| !with_last);
                    let in_use = before.is_none_or(|before| !self.lists.binned.contains_key(&before.chunk));
                    self.settle(piece.arena, before, in_use, &mut claimed);
                    self.claim(AddressRange { start: claimed, end }, ClaimKind::InUse);
                    return end;
                }
                Step::Broken(why) => {
                    let in_use =
                        pending.is_some_and(|pending| !self.lists.binned.contains_key(&pending.chunk));
                    // In an arena whose lock is held a change is under way.
                    if is_sure
                        && self.memory.is_of_the_moment(chunk + 8)
                        && !self.locked.contains(&piece.arena)
                    {
                        self.broken(chunk, pending, why);
                    } else {
                        self.doubt(chunk);
                        is_sure = self.memory.is_of_one_moment();
                    }
                    self.settle(piece.arena, pending.take(), in_use, &mut claimed);
                    let anchor = self.anchor_behind(chunk, piece.range.end, top);
                    let limit = anchor.unwrap_or(piece.range.end);
                    let Some(anchor) = heap::resume(self.memory, chunk, limit).or(anchor) else {
                        self.tally.lost_bytes += piece.range.end.saturating_sub(chunk);
                        self.claim(AddressRange { start: claimed, end: piece.range.end }, ClaimKind::InUse);
                        return piece.range.end;
                    };
                    self.tally.lost_bytes += anchor - chunk;
                    chunk = anchor;
                }
            }
        }
    }

    /// What lies at `chunk`.
    fn step(&self, piece: &Piece, chunk: u64, top: u64, pending: Option<Pending>) -> Step {
        let Ok(header) = Header::read(self.memory, chunk) else {
            return Step::Broken("the header of a chunk is not in the captured memory");
        };
        if chunk == top {
            return if chunk.saturating_add(header.size_bytes()) <= piece.range.end {
                Step::Top(header)
            } else {
                Step::Broken("the size of the top chunk leads out of its heap")
            };
        }
        if piece.arena != 0 && header.size_bytes() == 0 && pending.is_some() {
            return Step::Fence { end: chunk + HEADER_BYTES, with_last: true };
        }
        if header.size_bytes() == FENCE_BYTES {
            if piece.arena != 0 {
                // The header of size 0 that must follow ends the piece.
                return Step::Chunk(header);
            }
            return match heap::fence_end(self.memory, chunk) {
                Some(end) => Step::Fence { end, with_last: false },
                None => Step::Broken("the size field of a chunk is impossible"),
            };
        }
        if !header.is_plausible() {
            return Step::Broken("the size field of a chunk is impossible");
        }
        if chunk.saturating_add(header.size_bytes()) > piece.range.end {
            return Step::Broken("the size of a chunk leads out of its heap");
        }
        match pending {
            Some(before)
                if !header.has(PREVIOUS_IN_USE)
                    && header.previous_bytes != before.bytes
                    && !self.lists.binned.contains_key(&before.chunk) =>
            {
                Step::Broken("a chunk says that the one before it is free, but has another size for it")
            }
            _ => Step::Chunk(header),
        }
    }

    fn broken(&mut self, chunk: u64, last_good: Option<Pending>, why: &str) {
        self.outcome.structures_broken += 1;
        self.outcome.complete = false;
        let culprit = last_good.map_or_else(
            || "no good chunk lies before it".to_owned(),
            |last| {
                format!(
                    "the last good chunk is {:#x} of {} bytes: its user probably wrote past its end",
                    last.chunk, last.bytes
                )
            },
        );
        self.anomalies.add(chunk, &format!("{why}; {culprit}"));
    }

    fn anchor_behind(&self, chunk: u64, limit: u64, top: u64) -> Option<u64> {
        let next = self.anchors.get(self.anchors.partition_point(|anchor| *anchor <= chunk)).copied();
        let next = next.filter(|anchor| *anchor < limit);
        let top = (top > chunk && top < limit).then_some(top);
        match (next, top) {
            (Some(next), Some(top)) => Some(next.min(top)),
            (next, top) => next.or(top),
        }
    }

    /// Books a chunk, now that it is known whether it is in use.
    fn settle(&mut self, arena: u32, pending: Option<Pending>, in_use: bool, claimed: &mut u64) {
        let Some(Pending { chunk, bytes }) = pending else { return };
        self.outcome.structures_checked += 1;
        self.record(chunk, bytes, !in_use);
        if !self.memory.is_certain(chunk + 8) {
            self.doubt(chunk);
        }
        if in_use {
            self.used(arena, chunk, bytes);
            return;
        }
        self.tally.free.0 += 1;
        self.tally.free.1 += bytes;
        match self.lists.binned.get_mut(&chunk) {
            Some((_, met)) => *met = true,
            None => {
                self.contradiction(chunk, "a free chunk is in no bin");
            }
        }
        if bytes >= FREE_PAGES_BYTES_MIN {
            self.claim(AddressRange { start: *claimed, end: chunk }, ClaimKind::InUse);
            self.claim(AddressRange { start: chunk, end: chunk + bytes }, ClaimKind::Dirty);
            *claimed = chunk + bytes;
        }
    }

    /// Notes where a chunk's records are: the size word, and the links if it is in a list.
    fn record(&mut self, chunk: u64, bytes: u64, is_free: bool) {
        /// Free memory that may be cut into chunks soon.
        const CUT_BYTES_MAX: u64 = 1 << 20;
        let Some(records) = self.records.as_deref_mut() else { return };
        records.mark(chunk + 8, is_free);
        if is_free {
            records.mark(chunk + 16, true);
            records.mark(chunk + 24, true);
            let mut page = (chunk | 0xfff) + 1;
            while page < chunk + bytes.min(CUT_BYTES_MAX) {
                records.note_page(page);
                page += 4096;
            }
        } else if self.caches.chunks.contains_key(&chunk) || self.lists.fast.contains_key(&chunk) {
            records.mark(chunk + 16, true);
        }
    }

    /// A list and a chunk contradict each other: a change that was under way, or two moments in one capture.
    fn contradiction(&mut self, chunk: u64, what: &str) {
        if self.memory.is_of_one_moment() {
            self.outcome.blocks_in_motion_max += 1;
            self.anomalies.add(chunk, what);
        } else {
            self.doubt(chunk);
        }
    }

    fn doubt(&mut self, chunk: u64) {
        self.tally.doubtful += 1;
        self.tally.first_doubt.get_or_insert(chunk);
    }

    fn used(&mut self, arena: u32, chunk: u64, bytes: u64) {
        let address = chunk + HEADER_BYTES;
        let usable_bytes = bytes - OVERHEAD_BYTES;
        if self.caches.structs.contains(&chunk) {
            let class_bytes = class_bytes(bytes);
            let what = "a thread cache";
            self.outcome.overhead.push(Overhead { address, usable_bytes, class_bytes, shard: arena, what });
            return;
        }
        if let Some((_, met)) = self.lists.binned.get_mut(&chunk) {
            *met = true;
            self.contradiction(chunk, "a chunk in a bin is marked as in use");
        }
        let is_fast = self.lists.fast.remove(&chunk).is_some();
        if is_fast {
            self.tally.fast.0 += 1;
            self.tally.fast.1 += bytes;
        }
        let is_cached = self.caches.chunks.get_mut(&chunk).is_some_and(|met| {
            *met = true;
            true
        });
        let cached = is_fast || is_cached;
        if !cached
            && !self.caches.keys.is_empty()
            && tcache::key(self.memory, address).is_some_and(|word| self.caches.keys.contains(&word))
        {
            self.tally.marked_live += 1;
        }
        if !cached && self.glibc.layout.tcache.is_some_and(|tcache| tcache.fits(bytes)) {
            self.maybe_caches.push(chunk);
        }
        self.blocks.push(Block {
            address,
            usable_bytes,
            held_bytes: bytes,
            class_bytes: class_bytes(bytes),
            shard: arena,
            serial: 0,
            cached,
        });
    }

    fn top(&mut self, arena: u32, chunk: u64, end: u64, claimed: u64) {
        self.outcome.structures_checked += 1;
        self.record(chunk, end - chunk, true);
        self.tally.top.0 += end - chunk;
        if arena == 0 {
            self.tally.top.1 += end - chunk;
        }
        self.claim(AddressRange { start: claimed, end: chunk }, ClaimKind::InUse);
        self.claim(AddressRange { start: chunk, end }, ClaimKind::Dirty);
    }

    fn mmapped(&mut self) {
        let Some(proved) = self.glibc.proved_mmapped(self.memory) else { return };
        for whole in &proved.chunks {
            self.outcome.structures_checked += 1;
            let range = AddressRange { start: whole.start, end: whole.end };
            self.claim(range, ClaimKind::InUse);
            self.blocks.push(Block {
                address: whole.chunk + HEADER_BYTES,
                usable_bytes: whole.usable_bytes,
                held_bytes: range.len_bytes(),
                class_bytes: class_bytes((whole.usable_bytes + OVERHEAD_BYTES).next_multiple_of(16)),
                shard: 0,
                serial: 0,
                cached: false,
            });
        }
    }

    /// Caches of threads that are gone without having emptied them: those of all others after a fork.
    fn orphans(&mut self) {
        self.blocks.sort_unstable_by_key(|block| block.address);
        for chunk in std::mem::take(&mut self.maybe_caches) {
            let orphan =
                tcache::orphan(self.memory, &self.glibc.layout, chunk + HEADER_BYTES, &self.caches.keys);
            let Some(cached) = orphan else { continue };
            self.caches.orphans += 1;
            for address in cached {
                let found = self.blocks.binary_search_by_key(&address, |block| block.address).ok();
                if let Some(block) = found.and_then(|index| self.blocks.get_mut(index)) {
                    self.tally.marked_live -= u64::from(!block.cached).min(self.tally.marked_live);
                    block.cached = true;
                }
            }
            if let Ok(index) =
                self.blocks.binary_search_by_key(&(chunk + HEADER_BYTES), |block| block.address)
            {
                let Block { address, usable_bytes, class_bytes, shard, .. } = self.blocks.remove(index);
                let what = "a thread cache whose thread is gone";
                self.outcome.overhead.push(Overhead { address, usable_bytes, class_bytes, shard, what });
            }
        }
        if self.caches.orphans > 0 {
            self.outcome.notes.push(format!(
                "{} thread caches belong to no thread, as a fork leaves them: their blocks count as cached",
                self.caches.orphans
            ));
        }
    }

    fn claim(&mut self, range: AddressRange, kind: ClaimKind) {
        if !range.is_empty() {
            self.outcome.claims.push(Claim { range, kind });
        }
    }

    fn finish(mut self, arenas: &[Arena]) -> WalkOutcome {
        let unmet = self.lists.binned.iter().filter(|(_, (_, met))| !met).map(|(chunk, _)| *chunk);
        for chunk in unmet.collect::<Vec<u64>>() {
            self.outcome.structures_broken += u64::from(self.memory.is_of_one_moment());
            self.contradiction(chunk, "a bin names a chunk that was not met");
        }
        let strangers = self.caches.chunks.iter().filter(|(_, met)| !**met).map(|(chunk, _)| *chunk);
        let strangers: Vec<u64> = strangers.chain(self.lists.fast.keys().copied()).collect();
        for chunk in strangers {
            self.outcome.structures_broken += u64::from(self.memory.is_of_one_moment());
            self.contradiction(chunk, "a thread cache or fastbin names a chunk that was not met");
        }
        if self.tally.lost_bytes > 0 {
            let lost = self.tally.lost_bytes;
            self.outcome.notes.push(format!("{lost} bytes of heap could not be walked"));
            self.outcome.blocks_in_motion_max += lost / CHUNK_BYTES_MIN;
        }
        self.outcome.thread_caches = self.caches.structs.len() as u64;
        self.tally.doubtful += self.lists.doubtful;
        self.outcome.blocks_in_motion_max += self.caches.in_motion + self.tally.doubtful;
        if let Some(first) = self.tally.first_doubt {
            self.outcome.notes.push(format!(
                "{} of {} chunks were changing and could not be verified, the first at {first:#x}",
                self.tally.doubtful, self.outcome.structures_checked
            ));
        }
        self.outcome.block_header_bytes = OVERHEAD_BYTES;
        self.outcome.shards = arenas.iter().map(|arena| arena.index).collect();
        self.outcome.locked_bins = self.locked.len() as u64;
        proof::compare(self.glibc, self.memory, arenas, &self.tally, &mut self.outcome);
        self.outcome.anomalies = self.anomalies.into_vec();
        self.outcome
    }
}
