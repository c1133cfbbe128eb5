//! PHP's heap: chunks of 2 MiB in a circle, as `Zend/zend_alloc.c` makes them.

use super::{KnownHeap, has_text, places};
use crate::allocator::AddressSpace;
use crate::memory::{Memory, MemoryExt};
use crate::module::Module;
use heaptap_platform::AddressRange;

/// Bytes of a chunk, and what its address is a multiple of.
const CHUNK_BYTES: u64 = 2 << 20;
/// Most chunks that are followed.
const CHUNKS_MAX: usize = 1 << 20;

/// PHP, as a program or a library.
pub fn find(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<KnownHeap> {
    if !has_text(module, &["zend_mm_heap corrupted"]) {
        return None;
    }
    let regions = places(space, CHUNK_BYTES).find_map(|chunk| circle(memory, chunk))?;
    let evidence = "its chunks form a circle; blocks above 2 MiB lie elsewhere".to_owned();
    Some(KnownHeap::new("PHP heap", "php_heap", module, evidence, regions))
}

/// All chunks of the circle that `first` is in: each begins with the heap's address, the next and the one before; the
/// heap lies in the main one.
fn circle(memory: &dyn Memory, first: u64) -> Option<Vec<AddressRange>> {
    let heap = memory.read_u64(first).ok()?;
    let main = heap & !(CHUNK_BYTES - 1);
    let is_chunk = |chunk: u64| memory.read_u64(chunk).is_ok_and(|word| word == heap);
    if heap == main || heap - main > 4096 || !is_chunk(main) {
        return None;
    }
    let mut chunks = Vec::new();
    let mut chunk = main;
    loop {
        chunks.push(AddressRange::with_len(chunk, CHUNK_BYTES)?);
        let next = memory.read_u64(chunk + 8).ok()?;
        let is_linked = next.is_multiple_of(CHUNK_BYTES)
            && is_chunk(next)
            && memory.read_u64(next.checked_add(16)?).is_ok_and(|before| before == chunk);
        if !is_linked || chunks.len() > CHUNKS_MAX {
            return None;
        }
        if next == main {
            return Some(chunks);
        }
        chunk = next;
    }
}
