//! Allocators that only text in their code or the names of their mappings show.

use super::{KnownHeap, has_text};
use crate::allocator::AddressSpace;
use crate::module::Module;
use heaptap_platform::{AddressRange, MappingKind};

/// How to recognise an allocator.
struct Sign {
    name: &'static str,
    kind: &'static str,
    /// Beginnings of the names of libraries of its own.
    libraries: &'static [&'static str],
    /// Text that only its code has.
    texts: &'static [&'static str],
    /// Beginnings of the names that it gives its mappings, where the kernel keeps such.
    mappings: &'static [&'static str],
}

const SIGNS: [Sign; 5] = [
    // Mapping names: tcmalloc/internal/system_allocator.h.
    Sign {
        name: "Google's tcmalloc",
        kind: "google_tcmalloc_heap",
        libraries: &[],
        texts: &["_ZN8tcmalloc17tcmalloc_internal", "tcmalloc_region_"],
        mappings: &["tcmalloc"],
    },
    // Text: compiler-rt/lib/scudo/standalone/report.cpp; mapping names: secondary.h, primary64.h.
    Sign {
        name: "Scudo",
        kind: "scudo_heap",
        libraries: &["libscudo", "libclang_rt.scudo"],
        texts: &["Scudo ERROR: "],
        mappings: &["scudo:"],
    },
    Sign {
        name: "snmalloc",
        kind: "snmalloc_heap",
        libraries: &["libsnmalloc"],
        texts: &["_ZN8snmalloc", "N8snmalloc"],
        mappings: &[],
    },
    Sign {
        name: "Hoard",
        kind: "hoard_heap",
        libraries: &["libhoard"],
        texts: &["_ZN5Hoard"],
        mappings: &[],
    },
    Sign {
        name: "oneTBB malloc",
        kind: "tbbmalloc_heap",
        libraries: &["libtbbmalloc"],
        texts: &["TBBmalloc: "],
        mappings: &[],
    },
];

/// The allocators of a module.
pub fn find(module: &Module, space: AddressSpace<'_>) -> impl Iterator<Item = KnownHeap> {
    SIGNS.iter().filter_map(move |sign| {
        let by_name = sign.libraries.iter().any(|library| module.name().starts_with(library));
        if !by_name && !has_text(module, sign.texts) {
            return None;
        }
        let regions = named(space, sign.mappings);
        let how = if by_name { "known by the name of its library" } else { "known by text in its code" };
        let where_ = if regions.is_empty() {
            "where its memory is could not be told"
        } else {
            "its mappings bear its name"
        };
        let heap = KnownHeap::new(sign.name, sign.kind, module, format!("{how}; {where_}"), regions);
        Some(KnownHeap { is_malloc: true, ..heap })
    })
}

/// Mappings that the process gave a name that begins so.
pub fn named(space: AddressSpace<'_>, beginnings: &[&str]) -> Vec<AddressRange> {
    let is_named = |kind: &MappingKind| match kind {
        MappingKind::Anonymous { name: Some(name) } => {
            beginnings.iter().any(|beginning| name.starts_with(beginning))
        }
        _ => false,
    };
    space.mappings.iter().filter(|mapping| is_named(&mapping.kind)).map(|mapping| mapping.range).collect()
}
