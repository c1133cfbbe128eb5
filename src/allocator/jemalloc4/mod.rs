//! jemalloc 4.x: chunks with maps of their pages, runs with bitmaps, thread caches.
//!
//! What 5.0 replaced by extents. FreeBSD 11 has it in its C library. A radix tree of chunks is the only complete list of
//! what jemalloc holds. Where in its first page a large block begins is recorded nowhere: its address here is that page's.
//! This folder uses jemalloc's own words; the neutral ones are in the parent.

mod arena;
mod bins;
mod chunks;
mod counters;
pub mod identify;
mod layout;
mod proof;
mod runs;
mod tcache;
mod walk;

use self::arena::Arena;
use self::bins::Bins;
use self::chunks::{ChunkTree, Contents, Filed, Node, unused};
use self::layout::Layout;
use self::runs::ChunkForm;
use self::tcache::Caches;
use super::jemalloc::layout::Version;
use super::{Allocator, Provenance, Sink, ThreadPointer, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::AddressRange;
use std::collections::BTreeMap;

/// A jemalloc 4.x in a target, with a proved layout.
#[derive(Debug, Clone)]
pub struct Jemalloc4 {
    module: String,
    version: Option<Version>,
    provenance: Provenance,
    layout: Layout,
    bins: Bins,
    tree: ChunkTree,
    form: ChunkForm,
    /// The array of arenas.
    arenas_array: Option<u64>,
    /// The word in the module's data that points to it is not known by its symbol: all that may be it is kept.
    signs: Vec<AddressRange>,
    evidence: Vec<String>,
}

/// The tree's contents, told apart.
struct Held {
    contents: Contents,
    chunks: Vec<(Filed, Node)>,
    huge: Vec<(Filed, Node)>,
    /// Nodes that cannot be read, or stand for something else than they are filed for.
    broken: Vec<u64>,
}

impl Jemalloc4 {
    fn held(&self, memory: &dyn Memory) -> Held {
        let mut contents = self.tree.filed(memory);
        let (mut chunks, mut huge, mut broken) =
            (Vec::new(), Vec::new(), std::mem::take(&mut contents.broken));
        for filed in &contents.filed {
            match Node::read(memory, &self.layout, filed.node).filter(|node| node.start == filed.start) {
                Some(node) if node.is_chunk => chunks.push((*filed, node)),
                Some(node) => huge.push((*filed, node)),
                None => broken.push(filed.node),
            }
        }
        Held { contents, chunks, huge, broken }
    }

    fn arenas(&self, memory: &dyn Memory, held: &Held) -> Vec<Arena> {
        Arena::all(memory, self.arenas_array, &seen_arenas(memory, held.chunks.iter().chain(&held.huge)))
    }

    /// Chunks that are kept unused, each with its node and whether its pages were given back.
    fn unused_chunks(&self, memory: &dyn Memory, arenas: &[Arena]) -> (Vec<(u64, Node, bool)>, Vec<u64>) {
        let (mut all, mut broken) = (Vec::new(), Vec::new());
        for arena in arenas {
            for (offset, is_retained) in
                [(self.layout.arena_cached, false), (self.layout.arena_retained, true)]
            {
                let root = arena.address.wrapping_add(offset);
                let (nodes, ended) = unused(memory, &self.layout, root);
                if !ended {
                    broken.push(root);
                }
                all.extend(nodes.into_iter().map(|(address, node)| (address, node, is_retained)));
            }
        }
        (all, broken)
    }
}

/// The arenas that nodes name, by their numbers.
fn seen_arenas<'a>(
    memory: &dyn Memory,
    nodes: impl Iterator<Item = &'a (Filed, Node)>,
) -> BTreeMap<u32, u64> {
    let mut seen = BTreeMap::new();
    let mut last = 0;
    for (_, node) in nodes {
        if node.arena != last {
            last = node.arena;
            seen.extend(Arena::at(memory, node.arena).map(|arena| (arena.index, arena.address)));
        }
    }
    seen
}

impl Allocator for Jemalloc4 {
    fn name(&self) -> &'static str {
        "jemalloc"
    }

    fn version(&self) -> String {
        self.version.map_or_else(|| format!("like {}", self.layout.table), |version| version.to_string())
    }

    fn module(&self) -> &str {
        &self.module
    }

    fn provenance(&self) -> Provenance {
        self.provenance
    }

    fn evidence(&self) -> Vec<String> {
        self.evidence.clone()
    }

    fn needs_thread_pointers(&self, _memory: &dyn Memory) -> bool {
        false
    }

    fn learn_threads(&mut self, _memory: &dyn Memory, _threads: &[ThreadPointer]) {}

    fn metadata(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let held = self.held(memory);
        let node = |address: u64| AddressRange::with_len(address, self.layout.node_bytes);
        let mut ranges = self.signs.clone();
        ranges.extend(held.chunks.iter().map(|(filed, _)| self.form.header(filed.start)));
        ranges.extend(held.huge.iter().filter_map(|(filed, _)| node(filed.node)));
        let arenas = self.arenas(memory, &held);
        ranges.extend(arenas.iter().map(Arena::range));
        ranges.extend(self.arenas_array.and_then(|array| {
            let count = arenas.last().map_or(0, |arena| u64::from(arena.index) + 2);
            AddressRange::with_len(array, 8 * count)
        }));
        ranges
            .extend(self.unused_chunks(memory, &arenas).0.iter().filter_map(|(address, ..)| node(*address)));
        ranges.extend(Caches::gather(memory, &self.layout, &arenas).caches);
        ranges.extend(held.contents.ranges);
        ranges
    }

    fn lock_words(&self, memory: &dyn Memory) -> Vec<u64> {
        let arenas = self.arenas(memory, &self.held(memory));
        let words = |arena: &Arena| arena.lock_words(memory, &self.layout, self.bins.bins.len());
        arenas.iter().flat_map(words).collect()
    }

    fn walk(&self, memory: &dyn Memory, _threads: &[ThreadPointer], sink: &mut dyn Sink) -> WalkOutcome {
        walk::walk(self, memory, sink)
    }
}
