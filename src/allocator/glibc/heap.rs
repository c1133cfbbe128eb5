//! Heaps: the pieces of memory that arenas cut chunks from.
//!
//! A thread's arena has heaps of its own, aligned, linked backwards from the one that its top chunk is in. The main
//! arena has what `brk` gave it; where others moved the break, or `brk` failed, it is in several pieces, and nothing
//! tells where the further ones begin: they are found by trying.

use super::arena::Arena;
use super::chunk::{Header, PREVIOUS_IN_USE};
use super::layout::Layout;
use crate::memory::{Memory, MemoryExt, u64_at};
use heaptap_platform::AddressRange;

/// Sizes that heaps can have: the default, and those of the tunable for huge pages of 2 MiB and 1 GiB.
const HEAP_ALIGNMENTS: [u64; 3] = [64 << 20, 8 << 20, 4 << 30];

/// Most heaps of one arena.
const HEAPS_MAX: usize = 1 << 16;

/// Chunks of a supposed piece that are followed before it is given up.
const FOLLOWED_MAX: u64 = 1 << 32;

/// Two chunks of this size end a piece of the main arena.
pub const FENCE_BYTES: u64 = 16;

/// A piece of memory with chunks side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Number of its arena.
    pub arena: u32,
    /// All of it, with a header before the chunks.
    pub range: AddressRange,
    /// The first chunk.
    pub first: u64,
}

/// The next address where a chunk may begin.
pub const fn aligned(address: u64) -> u64 {
    address.saturating_add(15) & !15
}

/// The heaps of an arena that is not the main one, the youngest first; the flag tells whether all were found.
pub fn of_thread_arena(memory: &dyn Memory, layout: &Layout, arena: &Arena) -> (Vec<Piece>, bool) {
    let mut pieces = Vec::new();
    let Some(mut heap) = youngest(memory, layout, arena) else { return (pieces, false) };
    let own = arena.address.wrapping_sub(layout.heap_header_bytes);
    for _ in 0..HEAPS_MAX {
        let Some((arena_address, previous, size_bytes)) = header(memory, heap) else {
            return (pieces, false);
        };
        let Some(range) = AddressRange::with_len(heap, size_bytes) else { return (pieces, false) };
        if arena_address != arena.address || !size_bytes.is_multiple_of(4096) {
            return (pieces, false);
        }
        let first = if heap == own {
            aligned(arena.address + layout.arena_record_bytes(arena.has_attached_threads))
        } else {
            heap + layout.heap_header_bytes
        };
        pieces.push(Piece { arena: arena.index, range, first });
        if heap == own {
            return (pieces, true);
        }
        heap = previous;
    }
    (pieces, false)
}

/// The heap that holds the arena's top chunk.
fn youngest(memory: &dyn Memory, layout: &Layout, arena: &Arena) -> Option<u64> {
    let own = arena.address.wrapping_sub(layout.heap_header_bytes);
    let candidates = HEAP_ALIGNMENTS.iter().filter(|alignment| own.is_multiple_of(**alignment));
    candidates.map(|alignment| arena.top & !(alignment - 1)).find(|heap| {
        header(memory, *heap).is_some_and(|(address, _, size_bytes)| {
            let range = AddressRange::with_len(*heap, size_bytes);
            address == arena.address && range.is_some_and(|range| range.contains(arena.top))
        })
    })
}

/// Whether `arena` lies where the layout says that arenas of threads do.
pub fn holds_arena(memory: &dyn Memory, layout: &Layout, arena: &Arena) -> bool {
    let own = arena.address.wrapping_sub(layout.heap_header_bytes);
    own.is_multiple_of(4096)
        && header(memory, own).is_some_and(|(address, _, _)| address == arena.address)
        && youngest(memory, layout, arena).is_some()
}

/// A heap's arena, the heap before it, and its size.
fn header(memory: &dyn Memory, heap: u64) -> Option<(u64, u64, u64)> {
    let bytes = memory.read_vec(heap, 24).ok()?;
    Some((u64_at(&bytes, 0)?, u64_at(&bytes, 8)?, u64_at(&bytes, 16)?))
}

/// Where the chunks from `first` on lead: past the top chunk, or past the fence at the end of a piece.
///
/// `None` where they lead nowhere within `limit`: then no piece begins at `first`.
pub fn follow(memory: &dyn Memory, first: u64, limit: u64, top: u64) -> Option<u64> {
    let mut chunk = first;
    let mut previous: Option<Header> = None;
    for _ in 0..FOLLOWED_MAX {
        let header = Header::read(memory, chunk).ok()?;
        let is_before_in_use = header.has(PREVIOUS_IN_USE);
        match previous {
            None if !is_before_in_use => return None,
            Some(before) if !is_before_in_use && header.previous_bytes != before.size_bytes() => return None,
            _ => {}
        }
        if header.size_bytes() == FENCE_BYTES && previous.is_some() {
            let end = fence_end(memory, chunk)?;
            return (end.is_multiple_of(4096) && end <= limit).then_some(end);
        }
        if !header.is_plausible() {
            return None;
        }
        let end = chunk.checked_add(header.size_bytes()).filter(|end| *end <= limit)?;
        if chunk == top {
            return Some(end);
        }
        previous = Some(header);
        chunk = end;
    }
    None
}

/// The end of the two chunks that end a piece, of which the first is at `chunk`.
pub fn fence_end(memory: &dyn Memory, chunk: u64) -> Option<u64> {
    let second = Header::read(memory, chunk.checked_add(FENCE_BYTES)?).ok()?;
    (second.size_bytes() == FENCE_BYTES && second.has(PREVIOUS_IN_USE)).then(|| chunk + 2 * FENCE_BYTES)
}

/// The next piece of the main arena from `from` on, where others moved the break in between.
pub fn next_in_break(memory: &dyn Memory, from: u64, limit: u64, top: u64) -> Option<AddressRange> {
    let mut first = aligned(from);
    while first < limit {
        if let Some(end) = follow(memory, first, limit, top) {
            return Some(AddressRange { start: first, end });
        }
        first += 16;
    }
    None
}

/// Pieces of the main arena among `regions`: each begins with a page, and lies where no known range does.
pub fn elsewhere(memory: &dyn Memory, regions: &[AddressRange], top: u64) -> Vec<AddressRange> {
    let mut found = Vec::new();
    for region in regions.iter().flat_map(|region| memory.present(*region)) {
        let mut page = region.start;
        while page < region.end {
            // The piece may go on behind pages that are not in memory: its header tells, not the region.
            match follow(memory, page, u64::MAX, top) {
                Some(end) => {
                    found.push(AddressRange { start: page, end });
                    page = end.next_multiple_of(4096);
                }
                None => page += 4096,
            }
        }
    }
    found
}

/// Where chunks begin again behind `from`: the first place from which several lead on plausibly, or to `limit`.
pub fn resume(memory: &dyn Memory, from: u64, limit: u64) -> Option<u64> {
    const SEARCHED_BYTES: u64 = 64 << 20;
    let end = limit.min(from.saturating_add(SEARCHED_BYTES));
    let mut chunk = from.saturating_add(16);
    while chunk < end {
        if leads_on(memory, chunk, limit) {
            return Some(chunk);
        }
        chunk += 16;
    }
    None
}

fn leads_on(memory: &dyn Memory, first: u64, limit: u64) -> bool {
    const CHUNKS: usize = 8;
    let mut chunk = first;
    let mut before = None;
    for _ in 0..CHUNKS {
        let Ok(header) = Header::read(memory, chunk) else { return false };
        let agrees = header.has(PREVIOUS_IN_USE) || before.is_none_or(|bytes| bytes == header.previous_bytes);
        if !header.is_plausible() || !agrees {
            return false;
        }
        before = Some(header.size_bytes());
        chunk = match chunk.checked_add(header.size_bytes()) {
            Some(end) if end == limit => return true,
            Some(end) if end < limit => end,
            _ => return false,
        };
    }
    true
}
