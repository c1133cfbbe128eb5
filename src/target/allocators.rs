//! The allocators of a target: each kind is looked for in its own way, all that are there are kept.

use super::TargetError;
use crate::allocator::{
    AddressSpace, Allocator, ThreadPointer, glibc, jemalloc, jemalloc4, known, mimalloc, pymalloc,
};
use crate::memory::Memory;
use crate::module::Module;
use heaptap_platform::Mapping;

/// Allocators of a target.
pub(super) struct Allocators {
    /// Those that can be walked.
    pub walkable: Vec<Box<dyn Allocator>>,
    /// Those that cannot be walked, with the reason, and others recognised by their names.
    pub refused: Vec<String>,
}

impl Allocators {
    /// Whether an allocator's code or roots may be in `module`, so that its debug information is worth a look.
    pub fn may_be_in(module: &Module) -> bool {
        jemalloc::identify::is_candidate(module) || glibc::identify::is_candidate(module)
    }

    /// Looks for allocators in all modules; at least one must be there.
    pub fn find(
        pid: i32,
        modules: &[Module],
        mappings: &[Mapping],
        memory: &dyn Memory,
    ) -> Result<Self, TargetError> {
        let space = AddressSpace { modules, mappings };
        let mut all = Self { walkable: Vec::new(), refused: Vec::new() };
        let jemalloc = jemalloc::identify::find(space, memory);
        all.add(jemalloc.found, &jemalloc.refused);
        let jemalloc4 = jemalloc4::identify::find(space, memory);
        all.add(jemalloc4.found, &jemalloc4.refused);
        let glibc = glibc::identify::find(space, memory);
        all.add(glibc.found, &glibc.refused);
        let mimalloc = mimalloc::identify::find(space, memory);
        all.add(mimalloc.found, &mimalloc.refused);
        all.add(pymalloc::identify::find(space, memory), &[] as &[String]);
        let others = known::recognise(modules);
        if all.walkable.is_empty() {
            return Err(TargetError::NoAllocator { pid, refused: all.refused, others });
        }
        all.refused.extend(others);
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
