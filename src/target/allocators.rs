//! The allocators of a target: each kind is looked for in its own way, all that are there are kept.

use super::TargetError;
use crate::allocator::known::{self, KnownHeap};
use crate::allocator::{
    AddressSpace, Allocator, ThreadPointer, glibc, jemalloc, jemalloc4, mimalloc, pymalloc, tcmalloc,
};
use crate::memory::Memory;
use crate::module::Module;
use heaptap_platform::Mapping;

/// Allocators of a target.
pub(super) struct Allocators {
    /// Those that can be walked.
    pub walkable: Vec<Box<dyn Allocator>>,
    /// Those that cannot be walked, with the reason.
    pub refused: Vec<String>,
    /// Heaps that are recognised, and never walked.
    pub known: Vec<KnownHeap>,
}

impl Allocators {
    /// Whether an allocator's code or roots may be in `module`, so that its debug information is worth a look.
    pub fn may_be_in(module: &Module) -> bool {
        jemalloc::identify::is_candidate(module)
            || glibc::identify::is_candidate(module)
            || tcmalloc::identify::is_candidate(module)
    }

    /// Looks for allocators in all modules; at least one must be there that can be walked, or one that is
    /// recognised if that suffices.
    pub fn find(
        pid: i32,
        modules: &[Module],
        mappings: &[Mapping],
        memory: &dyn Memory,
        known_suffices: bool,
    ) -> Result<Self, TargetError> {
        let space = AddressSpace { modules, mappings };
        let known = known::find(space, memory);
        let mut all = Self { walkable: Vec::new(), refused: Vec::new(), known };
        let jemalloc = jemalloc::identify::find(space, memory);
        all.add(jemalloc.found, &jemalloc.refused);
        let jemalloc4 = jemalloc4::identify::find(space, memory);
        all.add(jemalloc4.found, &jemalloc4.refused);
        let glibc = glibc::identify::find(space, memory);
        all.add(glibc.found, &glibc.refused);
        let mimalloc = mimalloc::identify::find(space, memory);
        all.add(mimalloc.found, &mimalloc.refused);
        let tcmalloc = tcmalloc::identify::find(space, memory);
        all.add(tcmalloc.found, &tcmalloc.refused);
        all.add(pymalloc::identify::find(space, memory), &[] as &[String]);
        if all.walkable.is_empty() && (all.known.is_empty() || !known_suffices) {
            let others = all.known.iter().map(KnownHeap::sentence).collect();
            return Err(TargetError::NoAllocator { pid, refused: all.refused, others });
        }
        // Managed heaps are no part of what is counted; other allocators may have blocks of the program.
        let missed = all.known.iter().filter(|heap| heap.is_malloc).map(KnownHeap::sentence);
        all.refused.extend(missed);
        Ok(all)
    }

    fn add<A: Allocator + 'static>(&mut self, found: Vec<A>, refused: &[impl ToString]) {
        self.walkable.extend(found.into_iter().map(|found| Box::new(found) as Box<dyn Allocator>));
        self.refused.extend(refused.iter().map(ToString::to_string));
    }

    pub fn need_thread_pointers(&self, memory: &dyn Memory) -> bool {
        self.walkable.iter().any(|allocator| allocator.needs_thread_pointers(memory))
    }

    /// Makes what the allocators' own profilers keep a part of their records.
    pub fn include_profiles(&mut self) {
        for allocator in &mut self.walkable {
            allocator.include_profile();
        }
    }

    pub fn learn_threads(&mut self, memory: &dyn Memory, threads: &[ThreadPointer]) {
        for allocator in &mut self.walkable {
            if allocator.needs_thread_pointers(memory) {
                allocator.learn_threads(memory, threads);
            }
        }
    }
}
