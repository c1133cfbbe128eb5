//! `CPython`'s allocator of small objects (pymalloc): arenas, pools, and blocks of up to 512 bytes.
//!
//! Nearly all objects of a Python program live here, in memory that `CPython` maps itself: the malloc beneath sees
//! nothing of them. This folder uses `CPython`'s own words; the neutral ones are in the parent.

mod arena;
pub mod identify;
pub mod layout;
mod pool;
mod walk;

use self::arena::Arena;
use self::layout::{ARENA_RECORD_BYTES, Layout};
use super::records::RecordMap;
use super::{Allocator, Provenance, Sink, ThreadPointer, WalkOutcome};
use crate::memory::{Memory, MemoryExt};
use heaptap_platform::AddressRange;

/// A `CPython` interpreter's allocator in a target, with a proved layout.
#[derive(Debug, Clone)]
pub struct Pymalloc {
    /// Path of its module.
    pub module: String,
    /// How large its parts are.
    pub layout: Layout,
    /// Where the module's data points to the array of arenas.
    pub root: AddressRange,
    /// How its roots were found.
    pub provenance: Provenance,
    /// How it was found and proved.
    pub evidence: Vec<String>,
}

impl Pymalloc {
    /// All arenas, and the range of the array that was read for them.
    fn arenas(&self, memory: &dyn Memory) -> Option<(Vec<Arena>, AddressRange)> {
        let array = memory.read_u64(self.root.start).ok()?;
        let (arenas, count) = Arena::all(memory, &self.layout, array);
        // One more record is looked at.
        let range = AddressRange::with_len(array, (count + 1) * ARENA_RECORD_BYTES)?;
        Some((arenas, range))
    }
}

impl Allocator for Pymalloc {
    fn name(&self) -> &'static str {
        "pymalloc"
    }

    fn version(&self) -> String {
        format!("like CPython {}", self.layout.table)
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

    fn metadata(&self, memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let mut ranges = self.essentials(memory, threads);
        ranges.extend(self.bulk(memory));
        ranges
    }

    fn bulk(&self, memory: &dyn Memory) -> Vec<AddressRange> {
        let (arenas, _) = self.arenas(memory).unwrap_or_default();
        arenas.iter().map(|arena| arena.cut).filter(|cut| !cut.is_empty()).collect()
    }

    fn essentials(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> Vec<AddressRange> {
        std::iter::once(self.root).chain(self.arenas(memory).map(|(_, array)| array)).collect()
    }

    fn records(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> RecordMap {
        walk::records(self, memory)
    }

    fn records_hold_data(&self) -> bool {
        true
    }

    /// It has none: the interpreter's own lock lets one thread at a time come here.
    fn lock_words(&self, _memory: &dyn Memory) -> Vec<u64> {
        Vec::new()
    }

    fn walk(&self, memory: &dyn Memory, _threads: &[ThreadPointer], sink: &mut dyn Sink) -> WalkOutcome {
        walk::walk(self, memory, sink)
    }
}
