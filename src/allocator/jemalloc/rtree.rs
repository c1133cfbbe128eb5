//! The radix tree: from a page of the heap to the extent that holds it.
//!
//! It is the only complete list of what jemalloc holds (rtree.h, all of 5.x). This module knows the tree's
//! geometries and how a leaf element is packed; it refuses to judge whether an element is believable.

use super::layout::{Bits, Layout};
use crate::memory::{Memory, MemoryExt, u32_at, words};
use heaptap_platform::{AddressRange, merge_ranges};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Most leaves that a tree is believed to have: a terabyte of heap in the geometry with the smallest ones.
const LEAVES_MAX: usize = 1 << 14;

/// Bytes of a leaf that are looked at in one piece.
const PIECE_BYTES: u64 = 1 << 16;

/// Bytes of an array that are written to, or never were, together.
const PAGE_BYTES: u64 = 4096;

/// Shape of a tree, decided when jemalloc was compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Significant bits of an address.
    pub lg_vaddr: u32,
    /// Logarithm of the page size.
    pub lg_page: u32,
}

/// One level of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    /// Bits of the address that index it.
    bits: u32,
    /// Lowest of those bits.
    shift: u32,
}

impl Geometry {
    /// The geometries met so far for pages of `1 << lg_page` bytes.
    pub fn known(lg_page: u32) -> [Self; 3] {
        [48, 57, 64].map(|lg_vaddr| Self { lg_vaddr, lg_page })
    }

    /// Levels from the root down; the remainder of an uneven split goes to the lower levels.
    fn levels(self) -> Vec<Level> {
        let significant = self.lg_vaddr - self.lg_page;
        let height = if significant <= 36 { 2 } else { 3 };
        let (each, remainder) = (significant / height, significant % height);
        let bits = |level: u32| match (height, level) {
            (2, 1) => each + remainder,
            (3, 1) => each + remainder / 2,
            (3, 2) => each + remainder - remainder / 2,
            _ => each,
        };
        let mut shift = self.lg_vaddr;
        (0..height)
            .map(|level| {
                shift -= bits(level);
                Level { bits: bits(level), shift }
            })
            .collect()
    }

    /// Whether a leaf element is one word with everything packed into it.
    pub const fn compact(self) -> bool {
        64 - self.lg_vaddr >= 8
    }

    /// Bytes of a leaf element.
    pub const fn element_bytes(self) -> u64 {
        if self.compact() { 8 } else { 16 }
    }

    /// Bytes of the root array.
    pub fn root_bytes(self) -> u64 {
        self.levels().first().map_or(0, |level| 8 << level.bits)
    }

    /// Bytes of a leaf.
    pub fn leaf_bytes(self) -> u64 {
        self.levels().last().map_or(0, |level| self.element_bytes() << level.bits)
    }

    /// Bytes of a node between root and leaves; 0 in trees of two levels.
    pub fn node_bytes(self) -> u64 {
        match self.levels().as_slice() {
            [_, node, _] => 8 << node.bits,
            _ => 0,
        }
    }

    /// Bytes of address space under one element of the root.
    pub fn root_reach_bytes(self) -> u64 {
        self.levels().first().map_or(0, |level| 1_u64.checked_shl(level.shift).unwrap_or(0))
    }

    /// Bytes of address space under one leaf.
    pub fn leaf_reach_bytes(self) -> u64 {
        1 << (self.levels().last().map_or(0, |level| level.bits) + self.lg_page)
    }

    /// Bytes of a page.
    pub const fn page_bytes(self) -> u64 {
        1 << self.lg_page
    }

    /// Name for reports, as in `48-bit compact`.
    pub fn describe(self) -> String {
        let kind = if self.compact() { "compact" } else { "wide" };
        format!("{}-bit {kind} radix tree of {} levels", self.lg_vaddr, self.levels().len())
    }
}

/// A leaf of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Where its elements are.
    pub address: u64,
    /// Address of the first heap page that it speaks of.
    pub reach_start: u64,
}

/// One element of a leaf, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// The extent.
    pub extent: u64,
    /// Its size class.
    pub szind: u64,
    /// It is a slab.
    pub slab: bool,
    /// Its state, where leaves carry it.
    pub state: Option<u64>,
}

/// What a tree leads to.
#[derive(Debug, Clone, Default)]
pub struct Branches {
    /// Leaves in address order of what they speak of.
    pub leaves: Vec<Leaf>,
    /// Arrays above them.
    pub arrays: Vec<AddressRange>,
    /// Arrays that cannot be read, and arrays or leaves that are led to twice: no tree has those.
    pub broken: Vec<u64>,
}

/// A tree in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtree {
    /// Address of the root array.
    pub root: u64,
    /// Shape.
    pub geometry: Geometry,
}

impl Rtree {
    /// All leaves, and the ranges of all arrays above them.
    pub fn leaves(&self, memory: &dyn Memory) -> (Vec<Leaf>, Vec<AddressRange>) {
        let branches = self.branches(memory);
        (branches.leaves, branches.arrays)
    }

    /// All that the tree leads to, each array and leaf once.
    pub fn branches(&self, memory: &dyn Memory) -> Branches {
        let levels = self.geometry.levels();
        let mut branches = Branches::default();
        let mut seen = HashSet::from([self.root]);
        let mut nodes = vec![Leaf { address: self.root, reach_start: 0 }];
        for level in levels.iter().take(levels.len().saturating_sub(1)) {
            let mut below = Vec::new();
            for node in &nodes {
                branches.arrays.extend(parts_of_array(memory, *node, *level));
                for child in children(memory, *node, *level, &mut branches.broken) {
                    if seen.insert(child.address) {
                        below.push(child)
                    } else {
                        branches.broken.push(child.address)
                    }
                }
                if below.len() > LEAVES_MAX {
                    below.truncate(LEAVES_MAX);
                    branches.broken.push(node.address);
                    break;
                }
            }
            nodes = below;
        }
        branches.leaves = nodes;
        branches
    }

    /// Whether all of a leaf that is there can be read.
    pub fn is_readable(&self, memory: &dyn Memory, leaf: Leaf) -> bool {
        let parts = self.leaf_parts(memory, leaf);
        parts.iter().flat_map(|part| memory.present(*part)).all(|piece| {
            (piece.start..piece.end).step_by(PIECE_BYTES as usize).all(|start| {
                let len_bytes = usize::try_from((piece.end - start).min(PIECE_BYTES)).unwrap_or(0);
                memory.slice(start, len_bytes).is_some() || memory.read_vec(start, len_bytes).is_ok()
            })
        })
    }

    /// Range of a leaf's elements.
    pub fn leaf_range(&self, leaf: Leaf) -> Option<AddressRange> {
        range(leaf.address, self.geometry.leaf_bytes())
    }

    /// What of a leaf may ever have been written to: all of it, where it is known which pages were.
    pub fn leaf_parts(&self, memory: &dyn Memory, leaf: Leaf) -> Vec<AddressRange> {
        let geometry = self.geometry;
        self.leaf_range(leaf).map_or_else(Vec::new, |whole| {
            parts(memory, whole, leaf.reach_start, geometry.element_bytes(), geometry.page_bytes())
        })
    }

    /// Visits the elements of a leaf that name an extent, with the heap page that each speaks of, until told
    /// to stop.
    ///
    /// Pages of the leaf that are not there are empty: jemalloc never wrote to them.
    pub fn elements(
        &self,
        memory: &dyn Memory,
        layout: &Layout,
        leaf: Leaf,
        visit: &mut dyn FnMut(u64, Element) -> ControlFlow<()>,
    ) {
        let Some(whole) = self.leaf_range(leaf) else { return };
        let parts = self.leaf_parts(memory, leaf);
        for present in parts.iter().flat_map(|part| memory.present(*part)) {
            let mut start = present.start;
            while start < present.end {
                let end = present.end.min(start + PIECE_BYTES);
                let len_bytes = usize::try_from(end - start).unwrap_or(0);
                let copied;
                let bytes = match memory.slice(start, len_bytes) {
                    Some(bytes) => bytes,
                    None => {
                        copied = memory.read_vec(start, len_bytes).unwrap_or_default();
                        &copied
                    }
                };
                let first = (start - whole.start) / self.geometry.element_bytes();
                let page = leaf.reach_start + first * self.geometry.page_bytes();
                if self.unpack(layout, bytes, page, visit).is_break() {
                    return;
                }
                start = end;
            }
        }
    }

    fn unpack(
        &self,
        layout: &Layout,
        bytes: &[u8],
        first_page: u64,
        visit: &mut dyn FnMut(u64, Element) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut page = first_page;
        if self.geometry.compact() {
            for word in words(bytes) {
                if word != 0
                    && let Some(element) = self.compact_element(layout, word)
                {
                    visit(page, element)?;
                }
                page += self.geometry.page_bytes();
            }
        } else {
            for pair in bytes.chunks_exact(16) {
                if let Some(element) = wide_element(layout, pair) {
                    visit(page, element)?;
                }
                page += self.geometry.page_bytes();
            }
        }
        ControlFlow::Continue(())
    }

    /// Unpacks a one-word element; a word without a pointer belongs to a page that was given back.
    fn compact_element(&self, layout: &Layout, word: u64) -> Option<Element> {
        let pointer = Bits { shift: 0, width: self.geometry.lg_vaddr }.of(word) & !(layout.extent_align - 1);
        (pointer != 0).then_some(Element {
            extent: pointer,
            szind: word >> self.geometry.lg_vaddr,
            slab: word & 1 != 0,
            state: layout.leaf_has_state.then_some((word >> 2) & 7),
        })
    }
}

fn wide_element(layout: &Layout, pair: &[u8]) -> Option<Element> {
    let extent = crate::memory::u64_at(pair, 0)?;
    if extent == 0 {
        return None;
    }
    let metadata = u64::from(u32_at(pair, 8)?);
    Some(if layout.leaf_has_state {
        Element { extent, szind: metadata >> 5, slab: metadata & 1 != 0, state: Some((metadata >> 2) & 7) }
    } else {
        Element { extent, szind: metadata, slab: pair.get(12).is_some_and(|slab| *slab != 0), state: None }
    })
}

/// Nodes that the elements of `node` point to.
fn children(memory: &dyn Memory, node: Leaf, level: Level, broken: &mut Vec<u64>) -> Vec<Leaf> {
    let Some(whole) = range(node.address, 8 << level.bits) else { return Vec::new() };
    let mut found = Vec::new();
    let parts = parts_of_array(memory, node, level);
    for present in parts.iter().flat_map(|part| memory.present(*part)) {
        let Ok(bytes) = memory.read_vec(present.start, usize::try_from(present.len_bytes()).unwrap_or(0))
        else {
            broken.push(present.start);
            continue;
        };
        let first = (present.start - whole.start) / 8;
        for (index, child) in (first..).zip(words(&bytes)) {
            if child != 0
                && let Some(offset) = index.checked_shl(level.shift)
            {
                found.push(Leaf { address: child, reach_start: node.reach_start.wrapping_add(offset) });
            }
        }
    }
    found
}

fn parts_of_array(memory: &dyn Memory, node: Leaf, level: Level) -> Vec<AddressRange> {
    let reach_bytes = 1_u64.checked_shl(level.shift).unwrap_or(0);
    range(node.address, 8 << level.bits)
        .map_or_else(Vec::new, |whole| parts(memory, whole, node.reach_start, 8, reach_bytes))
}

/// What of an array may ever have been written to, where its elements speak of `reach_bytes` each from `reach_start` on: those
/// that speak of nothing mapped were not. Its first page always counts, since the array is there.
fn parts(
    memory: &dyn Memory,
    whole: AddressRange,
    reach_start: u64,
    element_bytes: u64,
    reach_bytes: u64,
) -> Vec<AddressRange> {
    if memory.tells_pages() {
        return vec![whole];
    }
    let speaks_of = |at: u64| {
        let first = (at - whole.start) / element_bytes;
        reach_start.saturating_add(first.saturating_mul(reach_bytes))
    };
    let mut parts = Vec::new();
    let mut start = whole.start;
    while start < whole.end {
        let end = whole.end.min((start / PAGE_BYTES + 1).saturating_mul(PAGE_BYTES));
        let reach = AddressRange { start: speaks_of(start), end: speaks_of(end) };
        if start == whole.start || memory.may_be_mapped(reach) {
            parts.push(AddressRange { start, end });
        }
        start = end;
    }
    merge_ranges(parts, 0)
}

fn range(start: u64, len_bytes: u64) -> Option<AddressRange> {
    Some(AddressRange { start, end: start.checked_add(len_bytes)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Fault;
    use std::cell::RefCell;

    /// A tree of the geometry that FreeBSD 15 has, with one leaf, in memory of which no page is known to be there.
    struct Unknown {
        words: Vec<(u64, u64)>,
        mapped: AddressRange,
        read: RefCell<HashSet<u64>>,
    }

    impl Memory for Unknown {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
            let range = AddressRange { start: address, end: address + bytes.len() as u64 };
            self.read.borrow_mut().extend((range.start / PAGE_BYTES)..range.end.div_ceil(PAGE_BYTES));
            bytes.fill(0);
            for (at, word) in self.words.iter().filter(|(at, _)| range.contains(*at)) {
                let place = usize::try_from(at - address).unwrap();
                bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
            }
            Ok(())
        }

        fn tells_pages(&self) -> bool {
            false
        }

        fn may_be_mapped(&self, range: AddressRange) -> bool {
            self.mapped.intersection(&range).is_some()
        }
    }

    #[test]
    fn only_what_speaks_of_mapped_memory_is_read_where_pages_are_not_told() {
        let heap = AddressRange { start: 0x3c_4560_0000, end: 0x3c_4580_0000 };
        let geometry = Geometry { lg_vaddr: 64, lg_page: 12 };
        let (root, node, leaf) = (0x10_0000, 0x100_0000, 0x200_0000);
        // 17 bits, 17 bits, 18 bits, 12 bits of page; elements of a leaf have 16 bytes.
        let (second, third) = (heap.start >> 30 & 0x1_ffff, heap.start >> 12 & 0x3_ffff);
        let words = vec![(root, node), (node + second * 8, leaf), (leaf + third * 16, 0x50_0080)];
        let memory = Unknown { words, mapped: heap, read: RefCell::default() };
        let tree = Rtree { root, geometry };
        let (leaves, arrays) = tree.leaves(&memory);
        assert_eq!(leaves, [Leaf { address: leaf, reach_start: heap.start >> 30 << 30 }]);
        let mut found = Vec::new();
        let layout =
            Layout::v5_3_0_freebsd(super::super::layout::Build { nbins: 36, nlarge: 196, lg_page: 12 });
        tree.elements(&memory, &layout, leaves[0], &mut |page, element| {
            found.push((page, element.extent));
            ControlFlow::Continue(())
        });
        assert_eq!(found, [(heap.start, 0x50_0080)]);
        let read = memory.read.borrow();
        // A page of the root, of the node its first and one more, of the leaf its first and two for two megabytes.
        assert!(read.len() <= 6, "{read:?}");
        let parts = tree.leaf_parts(&memory, leaves[0]);
        let copied: u64 = arrays.iter().chain(&parts).map(AddressRange::len_bytes).sum();
        assert_eq!(copied, read.len() as u64 * PAGE_BYTES, "what is copied is what is read");
    }
}
