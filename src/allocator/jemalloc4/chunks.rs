//! The radix tree that files chunks and huge blocks by their addresses.
//!
//! It is the only complete list of both. Its root tells itself by its shape: a function, none for the reverse, a height, and a width for each level
//! that add up to all bits above a chunk (`rtree.h`, `rtree.c`, alike from 4.0 to 4.5).

use super::layout::Layout;
use crate::allocator::Data;
use crate::memory::{Memory, MemoryExt, u32_at, u64_at, words};
use heaptap_platform::AddressRange;
use std::collections::HashSet;

/// Length of `rtree_t` with its four levels.
pub const TREE_BYTES: u64 = 104;
const LEVELS: usize = 40;
const LEVEL_BYTES: usize = 16;
const LEVELS_MAX: usize = 4;
/// Bits that each level but the last tells apart.
const LEVEL_BITS: u32 = 16;
/// Node that another thread is about to make.
const BEING_MADE: u64 = 1;
/// Smallest and largest chunks believed: `opt.lg_chunk` is 21 unless the program says otherwise.
const LG_CHUNK_MIN: u32 = 14;
const LG_CHUNK_MAX: u32 = 36;

/// A radix tree in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkTree {
    /// Where its root is.
    pub address: u64,
    /// Logarithm of the length of a chunk.
    pub lg_chunk: u32,
    height: usize,
}

/// What the tree files under one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filed {
    /// The address.
    pub start: u64,
    /// Its `extent_node_t`.
    pub node: u64,
}

/// An `extent_node_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The arena that owns it.
    pub arena: u64,
    /// What it stands for.
    pub start: u64,
    /// Bytes of that; of a huge block those that the program may use.
    pub size_bytes: u64,
    /// It heads a chunk of runs.
    pub is_chunk: bool,
}

impl Node {
    /// Reads one.
    pub fn read(memory: &dyn Memory, layout: &Layout, address: u64) -> Option<Self> {
        let bytes = memory.read_vec(address, usize::try_from(layout.node_bytes).ok()?).ok()?;
        let achunk = *bytes.get(usize::try_from(layout.node_achunk).ok()?)?;
        Some(Self {
            arena: u64_at(&bytes, 0)?,
            start: u64_at(&bytes, 8)?,
            size_bytes: u64_at(&bytes, 16)?,
            is_chunk: achunk == 1,
        })
    }
}

impl ChunkTree {
    /// All roots that `data` seems to hold.
    pub fn find(data: &Data) -> Vec<Self> {
        let of_piece = |(start, bytes): (u64, &[u8])| {
            let offsets = (0..bytes.len()).step_by(8);
            let trees =
                offsets.filter_map(move |offset| Self::parse(start + offset as u64, bytes.get(offset..)?));
            trees.collect::<Vec<_>>()
        };
        data.pieces().flat_map(of_piece).collect()
    }

    /// The root at `address`, if there is one.
    pub fn at(memory: &dyn Memory, address: u64) -> Option<Self> {
        Self::parse(address, &memory.read_vec_sparse(address, usize::try_from(TREE_BYTES).ok()?))
    }

    fn parse(address: u64, bytes: &[u8]) -> Option<Self> {
        let height = usize::try_from(u32_at(bytes, 16)?).ok()?;
        if !(1..=LEVELS_MAX).contains(&height) || u64_at(bytes, 0)? == 0 || u64_at(bytes, 8)? != 0 {
            return None;
        }
        for index in 0..LEVELS_MAX {
            let level = u32_at(bytes, 20 + 4 * index)?;
            if usize::try_from(level).ok()? != (LEVELS_MAX - 1 - index).min(height - 1) {
                return None;
            }
        }
        let mut sum = 0;
        for index in 0..height {
            let level = bytes.get(LEVELS + index * LEVEL_BYTES..)?;
            let bits = u32_at(level, 8)?;
            let fits = if index + 1 < height { bits == LEVEL_BITS } else { (1..=LEVEL_BITS).contains(&bits) };
            if !fits {
                return None;
            }
            sum += bits;
            if u32_at(level, 12)? != sum {
                return None;
            }
        }
        let lg_chunk = 64_u32.checked_sub(sum)?;
        (LG_CHUNK_MIN..=LG_CHUNK_MAX).contains(&lg_chunk).then_some(Self { address, lg_chunk, height })
    }

    /// Bytes of a chunk.
    pub const fn chunk_bytes(&self) -> u64 {
        1 << self.lg_chunk
    }

    /// All that is filed, in address order, and the parts of the tree that were read for it; a part that cannot be
    /// read is in `broken`.
    pub fn filed(&self, memory: &dyn Memory) -> Contents {
        let mut contents = Contents::default();
        contents.ranges.extend(AddressRange::with_len(self.address, TREE_BYTES));
        for level in 0..self.height {
            let place = self.address.wrapping_add((LEVELS + level * LEVEL_BYTES) as u64);
            match memory.read_u64(place) {
                Ok(0 | BEING_MADE) => {}
                Ok(node) => self.level(memory, level, node, 0, &mut contents),
                Err(fault) => contents.broken.push(fault.address),
            }
        }
        contents.filed.sort_unstable_by_key(|filed| filed.start);
        contents
    }

    fn level(&self, memory: &dyn Memory, level: usize, node: u64, prefix: u64, contents: &mut Contents) {
        const NODES_MAX: usize = 1 << 16;
        const READ_BYTES_MAX: usize = 256 << 20;
        const FILED_MAX: usize = 1 << 22;
        let is_leaf = level + 1 == self.height;
        let bits =
            if is_leaf { 64 - self.lg_chunk - LEVEL_BITS * (self.height as u32 - 1) } else { LEVEL_BITS };
        let whole = AddressRange::with_len(node, 8 << bits).filter(|_| node.is_multiple_of(8));
        // A node that is met again closes a circle.
        let has_room = contents.nodes.len() < NODES_MAX
            && contents.read_bytes < READ_BYTES_MAX
            && contents.filed.len() < FILED_MAX;
        let Some(whole) = whole.filter(|_| has_room && contents.nodes.insert(node)) else {
            contents.broken.push(node);
            return;
        };
        contents.ranges.push(whole);
        let shift = if is_leaf { self.lg_chunk } else { 64 - LEVEL_BITS * (level as u32 + 1) };
        for present in memory.present(whole) {
            let len_bytes = usize::try_from(present.len_bytes()).unwrap_or(0);
            let Ok(bytes) = memory.read_vec(present.start, len_bytes) else {
                contents.broken.push(present.start);
                continue;
            };
            contents.read_bytes += len_bytes;
            let first = (present.start - whole.start) / 8;
            for (index, word) in (first..).zip(words(&bytes)).filter(|(_, word)| *word > BEING_MADE) {
                let start = prefix | index << shift;
                if is_leaf {
                    contents.filed.push(Filed { start, node: word });
                } else {
                    self.level(memory, level + 1, word, start, contents);
                }
            }
        }
    }
}

/// What a tree holds.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Chunks and huge blocks.
    pub filed: Vec<Filed>,
    /// Where the tree itself lies.
    pub ranges: Vec<AddressRange>,
    /// Parts of it that could not be read.
    pub broken: Vec<u64>,
    nodes: HashSet<u64>,
    read_bytes: usize,
}

/// The nodes of a red-black tree of unused chunks whose root is at `root`, and whether it ended as it should.
pub fn unused(memory: &dyn Memory, layout: &Layout, root: u64) -> (Vec<(u64, Node)>, bool) {
    const NODES_MAX: usize = 1 << 20;
    let (mut nodes, mut seen) = (Vec::new(), HashSet::new());
    let Ok(first) = memory.read_u64(root) else { return (nodes, false) };
    let mut open = vec![first];
    while let Some(address) = open.pop() {
        // 4.0 ends its trees with a node beside the root.
        if address == 0 || address == root.wrapping_add(8) {
            continue;
        }
        let link = address.wrapping_add(layout.node_tree_link);
        let children = memory.read_words(link, 2);
        let (Some(node), Ok(children)) = (Node::read(memory, layout, address), children) else {
            return (nodes, false);
        };
        if nodes.len() >= NODES_MAX || !seen.insert(address) {
            return (nodes, false);
        }
        nodes.push((address, node));
        open.extend(children.iter().map(|child| child & !1));
    }
    (nodes, true)
}
