//! What a module's constant bytes tell of jemalloc: that it is there, and in which version.
//!
//! They come from the module's file, or from the target's own memory where the file cannot be had. Captures keep
//! the few that matter, so that they are understood without the file.

use super::layout::Version;
use super::version;
use crate::allocator::AddressSpace;
use crate::memory::{Memory, MemoryExt};
use crate::module::Module;
use heaptap_platform::AddressRange;
use std::borrow::Cow;
use std::ops::Range;

/// Most constant bytes of a module that are read from memory.
const CONSTANT_BYTES_MAX: u64 = 1 << 28;

/// The signs of jemalloc in a module.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    /// Its version, where the text was found.
    pub version: Option<Version>,
    /// Where the signs are in the target.
    pub ranges: Vec<AddressRange>,
}

impl Signs {
    /// Those of a module; `None` if it has none.
    pub fn of(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<Self> {
        Self::among(&constants(module, space, memory))
    }

    /// Those in the module's file; `None` if it has none.
    pub fn of_image(module: &Module) -> Option<Self> {
        Self::among(&of_image(module))
    }

    fn among(pieces: &[(u64, Cow<'_, [u8]>)]) -> Option<Self> {
        let mark = pieces.iter().find_map(|(start, bytes)| place(*start, &version::mark(bytes)?))?;
        let mut signs = Self { version: None, ranges: vec![mark] };
        let text = pieces.iter().find_map(|(start, bytes)| {
            let (text, version) = version::find(bytes)?;
            Some((place(*start, &text)?, version))
        });
        if let Some((range, version)) = text {
            signs.version = Some(version);
            signs.ranges.push(range);
        }
        Some(signs)
    }
}

/// The module's constant bytes with their addresses in the target.
pub fn constants<'a>(
    module: &'a Module,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
) -> Vec<(u64, Cow<'a, [u8]>)> {
    if module.image.is_some() {
        return of_image(module);
    }
    let mut left = CONSTANT_BYTES_MAX;
    let first = space.mappings.partition_point(|mapping| mapping.range.end <= module.range.start);
    let mappings = space.mappings.iter().skip(first);
    let constant = mappings
        .take_while(|mapping| mapping.range.start < module.range.end)
        .filter(|mapping| mapping.readable && !mapping.writable);
    let mut pieces = Vec::new();
    for present in constant.flat_map(|mapping| memory.present(mapping.range)) {
        let len_bytes = present.len_bytes().min(left);
        left -= len_bytes;
        if let Ok(bytes) = memory.read_vec(present.start, usize::try_from(len_bytes).unwrap_or(0)) {
            pieces.push((present.start, Cow::Owned(bytes)));
        }
    }
    pieces
}

fn of_image(module: &Module) -> Vec<(u64, Cow<'_, [u8]>)> {
    let pieces = module.image.as_ref().map(|image| image.read_only()).unwrap_or_default();
    pieces.into_iter().map(|(start, bytes)| (start.wrapping_add(module.bias), Cow::Borrowed(bytes))).collect()
}

fn place(start: u64, part: &Range<usize>) -> Option<AddressRange> {
    AddressRange::with_len(start.checked_add(part.start as u64)?, part.len() as u64)
}
