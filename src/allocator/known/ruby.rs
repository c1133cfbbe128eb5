//! Ruby's heap: pages of 64 KiB of objects, each with a record elsewhere, as `gc.c` makes them.

use super::{KnownHeap, has_text, places};
use crate::allocator::AddressSpace;
use crate::memory::{Memory, MemoryExt};
use crate::module::Module;
use heaptap_platform::AddressRange;

/// Sizes of a page: what its address is a multiple of. 16 KiB before 3.1.
const PAGE_BYTES: [u64; 2] = [64 << 10, 16 << 10];
/// Words of a page's record among which the address of its first object is.
const RECORD_WORDS: usize = 16;
/// The first object lies so far behind the page's beginning at most.
const HEAD_BYTES_MAX: u64 = 0x200;
/// Fewer pages may be chance.
const PAGES_MIN: usize = 4;

/// Ruby, as a program or a library.
pub fn find(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<KnownHeap> {
    if !has_text(module, &["RUBY_GC_HEAP_GROWTH_FACTOR"]) {
        return None;
    }
    PAGE_BYTES.into_iter().find_map(|page_bytes| {
        let pages = places(space, page_bytes).filter(|page| is_page(space, memory, *page));
        let regions: Vec<AddressRange> =
            pages.filter_map(|page| AddressRange::with_len(page, page_bytes)).collect();
        let evidence =
            format!("each of its {} pages and the page's record point to each other", regions.len());
        (regions.len() >= PAGES_MIN)
            .then(|| KnownHeap::new("Ruby heap", "ruby_heap", module, evidence, regions))
    })
}

/// Whether the page's first word leads to a record that has the address of its first object.
fn is_page(space: AddressSpace<'_>, memory: &dyn Memory, page: u64) -> bool {
    let Ok(record) = memory.read_u64(page) else { return false };
    if record == 0 || !record.is_multiple_of(8) || !space.holds_records(record) {
        return false;
    }
    let first_object = page + 8..page + HEAD_BYTES_MAX;
    memory
        .read_words(record, RECORD_WORDS)
        .is_ok_and(|words| words.iter().any(|word| first_object.contains(word)))
}
