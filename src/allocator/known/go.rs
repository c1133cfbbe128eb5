//! Go's heap: arenas at fixed hints of address space, as `runtime/malloc.go` has them.

use super::{KnownHeap, content};
use crate::allocator::AddressSpace;
use crate::module::Module;
use heaptap_platform::AddressRange;

/// The first of the hints for arenas on 64-bit Linux and FreeBSD; arenas follow each other from there.
const ARENAS_START: u64 = 0xc0_0000_0000;
/// The next hint: arenas that began at the first end before it.
const ARENAS_END: u64 = 0x1c0_0000_0000;
/// What every Go program has, stripped or not: `debug/buildinfo`.
const BUILD_INFO: &str = ".go.buildinfo";
/// Most bytes of that section that are read: it holds two pointers and texts.
const BUILD_INFO_BYTES_MAX: u64 = 1 << 20;

/// Go in an executable, or in a library that was built as one.
pub fn find(module: &Module, space: AddressSpace<'_>) -> Option<KnownHeap> {
    module.image.as_ref()?.section(BUILD_INFO, BUILD_INFO_BYTES_MAX)?;
    let arenas = AddressRange { start: ARENAS_START, end: ARENAS_END };
    let private = space.mappings.iter().filter(|mapping| mapping.is_private_anonymous() && mapping.readable);
    let mut regions: Vec<AddressRange> =
        private.filter_map(|mapping| mapping.range.intersection(&arenas)).collect();
    regions.extend(content::named(space, &["Go: heap"]));
    if regions.is_empty() {
        return None;
    }
    let evidence = "known by its build information; its arenas begin at a fixed address".to_owned();
    Some(KnownHeap::new("Go heap", "go_heap", module, evidence, regions))
}
