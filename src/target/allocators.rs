//! The allocators of a target: each kind is looked for in its own way, all that are there are kept.

use super::TargetError;
use crate::allocator::{AddressSpace, Allocator, ThreadPointer, glibc, jemalloc, known, mimalloc};
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
        let jemalloc = jemalloc::identify::find(space, memory);
        let glibc = glibc::identify::find(space, memory);
        let mimalloc = mimalloc::identify::find(space, memory);
        let others = known::recognise(modules);
        let refused = jemalloc.refused.iter().map(ToString::to_string);
        let refused: Vec<String> = refused.chain(glibc.refused.iter().map(ToString::to_string)).collect();
        let refused: Vec<String> =
            refused.into_iter().chain(mimalloc.refused.iter().map(ToString::to_string)).collect();
        let mut walkable: Vec<Box<dyn Allocator>> = Vec::new();
        walkable.extend(jemalloc.found.into_iter().map(|found| Box::new(found) as Box<dyn Allocator>));
        walkable.extend(glibc.found.into_iter().map(|found| Box::new(found) as Box<dyn Allocator>));
        walkable.extend(mimalloc.found.into_iter().map(|found| Box::new(found) as Box<dyn Allocator>));
        if walkable.is_empty() {
            return Err(TargetError::NoAllocator { pid, refused, others });
        }
        Ok(Self { walkable, refused: refused.into_iter().chain(others).collect() })
    }

    pub fn need_thread_pointers(&self, memory: &dyn Memory) -> bool {
        self.walkable.iter().any(|allocator| allocator.needs_thread_pointers(memory))
    }

    pub fn learn_threads(&mut self, memory: &dyn Memory, threads: &[ThreadPointer]) {
        for allocator in &mut self.walkable {
            if allocator.needs_thread_pointers(memory) {
                allocator.learn_threads(memory, threads);
            }
        }
    }
}
