//! Heaps that are recognised but not walked: allocators without support, and the managed heaps of language runtimes.
//!
//! A heap is recognised by what its code or its memory holds; a file's name alone tells only of shared libraries. Where
//! its regions can be told from others', they are: what is resident there is booked under the heap's own name. It is
//! never said what of it is in use.

mod content;
mod go;
mod java;
mod musl;
mod php;
mod ruby;
mod v8;

use super::AddressSpace;
use crate::memory::Memory;
use crate::module::Module;
use heaptap_platform::{AddressRange, merge_ranges};

/// A heap that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHeap {
    /// What it is, as in `Go heap`.
    pub name: &'static str,
    /// Its row in the account of resident memory.
    pub kind: &'static str,
    /// File name of the module that it belongs to.
    pub module: String,
    /// How it was recognised, and its regions found; a sentence.
    pub evidence: String,
    /// Whether the program's own `malloc` may be there, so that blocks are missing from every count.
    pub is_malloc: bool,
    /// Address space that it holds, in address order; empty where that could not be told.
    pub regions: Vec<AddressRange>,
}

impl KnownHeap {
    fn new(
        name: &'static str,
        kind: &'static str,
        module: &Module,
        evidence: String,
        regions: Vec<AddressRange>,
    ) -> Self {
        let regions = merge_ranges(regions, 0);
        Self { name, kind, module: module.name(), evidence, is_malloc: false, regions }
    }

    /// Address space that it holds.
    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(AddressRange::len_bytes).sum()
    }

    /// That it is there and not walked, as a sentence.
    pub fn sentence(&self) -> String {
        format!("{} in {}, which this version does not walk", self.name, self.module)
    }
}

/// Looks for them in all modules and what is mapped beside those.
pub fn find(space: AddressSpace<'_>, memory: &dyn Memory) -> Vec<KnownHeap> {
    let mut found: Vec<KnownHeap> = Vec::new();
    for module in space.modules {
        let heaps = [
            go::find(module, space),
            java::find(module, memory),
            v8::find(module, space, memory),
            php::find(module, space, memory),
            ruby::find(module, space, memory),
            musl::find(module, space, memory),
        ];
        for heap in heaps.into_iter().flatten().chain(content::find(module, space)) {
            // Several modules may have the code of one heap.
            if !found.iter().any(|known| known.name == heap.name && (known.regions == heap.regions)) {
                found.push(heap);
            }
        }
    }
    found
}

/// Whether a module's file has one of `texts` in what it only reads.
fn has_text(module: &Module, texts: &[&str]) -> bool {
    let Some(image) = &module.image else { return false };
    let parts = image.read_only();
    texts.iter().any(|text| {
        let finder = memchr::memmem::Finder::new(text);
        parts.iter().any(|(_, bytes)| finder.find(bytes).is_some())
    })
}

/// Where a chunk may begin: multiples of `step_bytes` in private memory without a file that can be written to.
fn places(space: AddressSpace<'_>, step_bytes: u64) -> impl Iterator<Item = u64> {
    let mut ranges: Vec<AddressRange> = space
        .mappings
        .iter()
        .filter(|mapping| mapping.is_private_anonymous() && mapping.readable && mapping.writable)
        .map(|mapping| mapping.range)
        .collect();
    ranges = merge_ranges(ranges, 0);
    ranges.into_iter().flat_map(move |range| {
        let first = range.start.next_multiple_of(step_bytes);
        (first..range.end).step_by(usize::try_from(step_bytes).unwrap_or(usize::MAX))
    })
}
