//! V8's heap: chunks at multiples of 256 KiB, as `src/heap/basic-memory-chunk.h` and its successors lay them out.

use super::{KnownHeap, has_text, places};
use crate::allocator::AddressSpace;
use crate::memory::{Memory, MemoryExt};
use crate::module::Module;
use heaptap_platform::AddressRange;
use std::collections::HashMap;

/// What the address of a chunk is a multiple of.
const ALIGNMENT_BYTES: u64 = 256 << 10;
/// A chunk's head before its objects is smaller than this.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Fewer chunks may be chance.
const CHUNKS_MIN: usize = 4;

/// V8 in Node.js or another program.
pub fn find(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<KnownHeap> {
    if !has_text(module, &["FatalProcessOutOfMemory"]) {
        return None;
    }
    let mut by_heap: HashMap<u64, Vec<AddressRange>> = HashMap::new();
    for place in places(space, ALIGNMENT_BYTES) {
        if let Some((heap, chunk)) = chunk(space, memory, place) {
            by_heap.entry(heap).or_default().push(chunk);
        }
    }
    // Each isolate has a heap; each worker has an isolate.
    by_heap.retain(|_, chunks| chunks.len() >= CHUNKS_MIN);
    if by_heap.is_empty() {
        return None;
    }
    let regions: Vec<AddressRange> = by_heap.values().flatten().copied().collect();
    let evidence = format!("{} chunks name {} isolates' heaps", regions.len(), by_heap.len());
    Some(KnownHeap::new("V8 heap", "v8_heap", module, evidence, regions))
}

/// The heap that a chunk belongs to, and its extent: size, flags, heap, and where its objects begin and end.
fn chunk(space: AddressSpace<'_>, memory: &dyn Memory, place: u64) -> Option<(u64, AddressRange)> {
    let words = memory.read_words(place, 5).ok()?;
    let [size_bytes, _flags, heap, area_start, area_end] = words.try_into().ok()?;
    let range = AddressRange::with_len(place, size_bytes)?;
    let is_whole = size_bytes.is_multiple_of(4096) && size_bytes >= 4096;
    let is_area = area_start > place && area_start - place < HEAD_BYTES_MAX && area_start < area_end;
    let fits = is_whole && is_area && area_end <= range.end && range.end - area_end < HEAD_BYTES_MAX;
    (fits && heap != 0 && heap.is_multiple_of(8) && space.holds_records(heap)).then_some((heap, range))
}
