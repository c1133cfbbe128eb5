//! mimalloc 1.x, 2.x and 3.x: pages of equal blocks with lists of those that are free.
//!
//! Segments (1.x, 2.x) or a map of pages (3.x) lead to the records of all pages; a block is live if no list names it.
//! Lists run through the free blocks themselves, so a walk reads the pages that have any. This folder uses mimalloc's
//! own words; the neutral ones are in the parent.

mod heap;
pub mod identify;
mod inventory;
pub mod layout;
mod list;
mod lists;
mod page;
mod page_map;
mod proof;
mod segment;
mod walk;

use self::inventory::Inventory;
use self::layout::Layout;
use super::records::RecordMap;
use super::{Allocator, Provenance, Sink, ThreadPointer, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::AddressRange;

/// Where all else is found from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The main heap has the cookie that all segments are marked with.
    Heap {
        /// Its record.
        main: u64,
        /// The cookie.
        cookie: u64,
    },
    /// The map of all pages.
    Map {
        /// Where the module's data points to it.
        at: u64,
        /// Its first level.
        root: u64,
    },
}

/// A mimalloc in a target, with a proved layout.
#[derive(Debug, Clone)]
pub struct Mimalloc {
    /// Path of its module.
    pub module: String,
    /// Where its fields are.
    pub layout: Layout,
    /// How its roots were found.
    pub provenance: Provenance,
    /// Where all else is found from.
    pub root: Root,
    /// Where the module has the signs by which it is recognised.
    pub signs: Vec<AddressRange>,
    /// Private memory, where its pages lie.
    pub regions: Vec<AddressRange>,
    /// How it was found and proved.
    pub evidence: Vec<String>,
}

impl Allocator for Mimalloc {
    fn name(&self) -> &'static str {
        "mimalloc"
    }

    fn version(&self) -> String {
        format!("like {}", self.layout.table)
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
        let inventory = Inventory::of(memory, self);
        let mut ranges = inventory.linked_blocks();
        ranges.extend(&self.signs);
        ranges.extend(inventory.records);
        ranges
    }

    fn bulk(&self, memory: &dyn Memory) -> Vec<AddressRange> {
        Inventory::of(memory, self).linked_blocks()
    }

    fn essentials(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> Vec<AddressRange> {
        let mut ranges = Inventory::of(memory, self).records;
        ranges.extend(&self.signs);
        ranges
    }

    fn records(&self, memory: &dyn Memory, _threads: &[ThreadPointer]) -> RecordMap {
        walk::records(self, memory)
    }

    fn records_hold_data(&self) -> bool {
        true
    }

    /// It has none: what a thread changes is its own, and what others change goes by single words.
    fn lock_words(&self, _memory: &dyn Memory) -> Vec<u64> {
        Vec::new()
    }

    fn walk(&self, memory: &dyn Memory, _threads: &[ThreadPointer], sink: &mut dyn Sink) -> WalkOutcome {
        walk::walk(self, memory, sink)
    }
}
