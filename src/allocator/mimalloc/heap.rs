//! Heaps: one or more a thread, each owns pages. In 1.x and 2.x each has a list of blocks that others freed.

use super::layout::{HeapFields, Layout};
use super::list::Links;
use crate::allocator::Data;
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::AddressRange;
use std::collections::HashSet;

/// Most blocks of one heap's list that are followed.
const DELAYED_MAX: usize = 1 << 22;

/// Words of the blocks of the first queues, by the size classes that all builds have.
const CLASS_WORDS: [u64; 24] =
    [1, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112];

/// Queues of pages in a module's data: only heaps have them, with the sizes of their blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// Where the first one is.
    pub address: u64,
    /// Bytes of one: 24 with a first and a last page and a block size (1.x, 2.x), 32 with a count (3.x).
    pub stride_bytes: u64,
}

/// All queues in a module's data. Those of the heap that a thread has before it has one are among them.
pub fn queues(data: &Data) -> Vec<Queues> {
    let mut found = Vec::new();
    for (start, bytes) in data.pieces() {
        let words: Vec<u64> = words(bytes).collect();
        for stride in [3_usize, 4] {
            for size_at in 0..words.len().saturating_sub(stride * CLASS_WORDS.len()) {
                let is_size = |(index, class): (usize, &u64)| {
                    words.get(size_at + index * stride).is_some_and(|word| *word == class * 8)
                };
                if words.get(size_at) == Some(&8) && CLASS_WORDS.iter().enumerate().all(is_size) {
                    let size_offset = (stride as u64 - 1) * 8;
                    let address = (start + size_at as u64 * 8).saturating_sub(size_offset);
                    found.push(Queues { address, stride_bytes: stride as u64 * 8 });
                }
            }
        }
    }
    found
}

/// The blocks that other threads have freed and that wait in `heap`'s list; and whether the list came to its end
/// without naming a place that `is_block` denies.
pub fn delayed(
    memory: &dyn Memory,
    layout: &Layout,
    fields: &HeapFields,
    heap: u64,
    is_block: impl Fn(u64) -> bool,
) -> (HashSet<u64>, bool) {
    let mut blocks = HashSet::new();
    let keys = || {
        let key = |offset| memory.read_u64(heap.wrapping_add(fields.keys + offset)).ok();
        key(0).zip(key(8))
    };
    let links = Links { owner: heap, keys: if layout.encoded { keys() } else { None } };
    let Ok(mut block) = memory.read_u64(heap.wrapping_add(fields.delayed)) else { return (blocks, false) };
    while block != 0 {
        if blocks.len() == DELAYED_MAX || !is_block(block) || !blocks.insert(block) {
            return (blocks, false);
        }
        let Some(next) = links.next(memory, block) else { return (blocks, false) };
        block = next;
    }
    (blocks, true)
}

/// The part of a heap's record that is read.
pub fn range(fields: &HeapFields, heap: u64) -> Option<AddressRange> {
    AddressRange::with_len(heap, fields.bytes())
}
