//! What there is: segments or the page map, the pages in them, and the heaps that own those.

use super::page::Page;
use super::segment::Segment;
use super::{Mimalloc, Root, heap, page_map, segment};
use crate::memory::Memory;
use heaptap_platform::AddressRange;

/// What a walk finds before it looks at blocks.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Segments, in address order; none in 3.x.
    pub segments: Vec<Segment>,
    /// Pages in use, in address order.
    pub pages: Vec<Page>,
    /// Records that cannot be those of a page or a segment: where, and of which address space as far as known.
    pub broken: Vec<(u64, AddressRange)>,
    /// Records that were read, apart from users' blocks.
    pub records: Vec<AddressRange>,
    /// Heaps that own pages, in address order, the main one first where it is known.
    pub heaps: Vec<u64>,
    /// Blocks that other threads freed and that wait in lists of heaps, in address order.
    pub delayed: Vec<u64>,
    /// Heaps whose list could not be followed to its end.
    pub broken_heaps: Vec<u64>,
}

impl Inventory {
    /// Everything that `memory` shows of `mimalloc`.
    pub fn of(memory: &dyn Memory, mimalloc: &Mimalloc) -> Self {
        let mapped = memory.anonymous();
        let regions = if mapped.is_empty() { &mimalloc.regions } else { mapped };
        let mut inventory = Self::default();
        match mimalloc.root {
            Root::Heap { cookie, .. } => {
                let (segments, broken) = segment::all(memory, &mimalloc.layout, cookie, regions);
                inventory.segments = segments;
                inventory.broken.extend(broken.iter().map(|start| (*start, AddressRange::default())));
                for segment in &inventory.segments {
                    inventory.records.push(segment.record);
                    inventory.pages.extend(&segment.pages);
                }
            }
            Root::Map { at, root } => {
                let found = page_map::all(memory, &mimalloc.layout, root, regions);
                inventory.pages = found.pages;
                inventory.broken = found.broken;
                inventory.records = found.records;
                inventory.records.extend(AddressRange::with_len(at, 8));
            }
        }
        let (pages, contradictory) =
            inventory.pages.iter().partition::<Vec<Page>, _>(|page| page.contradiction().is_none());
        inventory.pages = pages;
        inventory.pages.sort_unstable_by_key(|page| page.area.start);
        inventory.broken.extend(contradictory.iter().map(|page| (page.record, page.area)));
        inventory.find_heaps(memory, mimalloc);
        inventory
    }

    fn find_heaps(&mut self, memory: &dyn Memory, mimalloc: &Mimalloc) {
        let main = match mimalloc.root {
            Root::Heap { main, .. } => Some(main),
            Root::Map { .. } => None,
        };
        let mut heaps: Vec<u64> = self.pages.iter().map(|page| page.heap).filter(|heap| *heap != 0).collect();
        heaps.sort_unstable();
        heaps.dedup();
        heaps.retain(|heap| Some(*heap) != main);
        self.heaps = main.into_iter().chain(heaps).collect();
        let Some(fields) = &mimalloc.layout.heap else { return };
        for heap in &self.heaps {
            self.records.extend(heap::range(fields, *heap));
            let is_block = |block: u64| {
                let page = self.pages.get(self.pages.partition_point(|page| page.area.end <= block));
                page.is_some_and(|page| page.index_of(block).is_some())
            };
            let (blocks, is_whole) = heap::delayed(memory, &mimalloc.layout, fields, *heap, is_block);
            if !is_whole {
                self.broken_heaps.push(*heap);
            }
            self.delayed.extend(blocks);
        }
        self.delayed.sort_unstable();
        self.delayed.dedup();
    }

    /// Blocks that lists may lead through: of pages with lists, and those that wait in lists of heaps.
    pub fn linked_blocks(&self) -> Vec<AddressRange> {
        let pages = self.pages.iter().filter(|page| page.has_lists()).map(Page::blocks);
        let delayed = self.delayed.iter().filter_map(|block| AddressRange::with_len(*block, 8));
        pages.chain(delayed).collect()
    }

    /// The number that a heap has as a shard: the main one 0, what no thread owns 1, all others by address.
    pub fn shard(&self, heap: u64) -> u32 {
        const NOBODY: u32 = 1;
        if heap == 0 {
            return NOBODY;
        }
        let (Some(first), others) = (self.heaps.first(), self.heaps.get(1..).unwrap_or_default()) else {
            return NOBODY;
        };
        if *first == heap {
            return 0;
        }
        let place = others.binary_search(&heap).ok().and_then(|place| u32::try_from(place).ok());
        place.map_or(NOBODY, |place| place + 2)
    }
}
