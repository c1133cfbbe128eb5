//! The page map: from the number of a page to the span that it belongs to. A tree of two levels.

use super::layout::Geometry;
use super::span::Span;
use crate::allocator::{AddressSpace, Data};
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::AddressRange;

/// Most leaves that are followed: each covers 2 GiB of address space.
const LEAVES_MAX: usize = 1 << 12;

/// The tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageMap {
    /// Where its root is: an array of pointers to leaves.
    pub root: u64,
    /// Its shape.
    pub geometry: Geometry,
}

impl PageMap {
    /// Looks in a module's data for the root of the tree that names `known` for its own pages.
    pub fn find(
        data: &Data,
        space: AddressSpace<'_>,
        memory: &dyn Memory,
        geometry: Geometry,
        known: &[Span],
    ) -> Option<Self> {
        let first = known.first()?;
        let slot_bytes = 8 * (first.start >> geometry.leaf_bits());
        let names = |map: &Self| {
            data.has_room(map.root, geometry.root_bytes())
                && known.iter().all(|span| map.span(memory, span.start) == Some(span.record))
        };
        let pointers = data.words().filter(|(_, word)| word.is_multiple_of(8) && space.holds_records(*word));
        pointers
            .filter_map(|(slot, _)| Some(Self { root: slot.checked_sub(slot_bytes)?, geometry }))
            .find(names)
    }

    /// The span's record that a page belongs to.
    pub fn span(&self, memory: &dyn Memory, page: u64) -> Option<u64> {
        let leaf_bits = self.geometry.leaf_bits();
        let slot = self.root.checked_add(8 * (page >> leaf_bits))?;
        let leaf = memory.read_u64(slot).ok().filter(|leaf| *leaf != 0)?;
        let entry = leaf.checked_add(8 * (page & ((1 << leaf_bits) - 1)))?;
        memory.read_u64(entry).ok().filter(|record| *record != 0)
    }

    /// The root's own bytes.
    pub fn root_range(&self) -> AddressRange {
        AddressRange { start: self.root, end: self.root.saturating_add(self.geometry.root_bytes()) }
    }

    /// The leaves: the first page of each, and where it is.
    pub fn leaves(&self, memory: &dyn Memory) -> Vec<(u64, AddressRange)> {
        let root_bytes = usize::try_from(self.geometry.root_bytes()).unwrap_or(0);
        let root = memory.read_vec_sparse(self.root, root_bytes);
        let leaf = |(index, address): (u64, u64)| {
            let range = AddressRange::with_len(address, self.geometry.leaf_bytes())?;
            (address != 0 && address.is_multiple_of(8)).then_some((index << self.geometry.leaf_bits(), range))
        };
        (0..).zip(words(&root)).filter_map(leaf).take(LEAVES_MAX).collect()
    }

    /// All pages that have an entry, with the records that those name, in order.
    pub fn entries(&self, memory: &dyn Memory) -> Vec<(u64, u64)> {
        let leaf_bytes = usize::try_from(self.geometry.leaf_bytes()).unwrap_or(0);
        let mut entries = Vec::new();
        for (first, range) in self.leaves(memory) {
            let bytes = memory.read_vec_sparse(range.start, leaf_bytes);
            entries.extend((first..).zip(words(&bytes)).filter(|(_, record)| *record != 0));
        }
        entries
    }
}
