//! musl's malloc: mallocng since 1.2.1, found by the secret that its context and its areas of records share
//! (`src/malloc/mallocng/meta.h`); the older one by the name of its loader alone.

use super::KnownHeap;
use crate::allocator::{AddressSpace, Data};
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use crate::module::Module;
use heaptap_platform::{AddressRange, MappingKind};

/// Bytes of an area of records, and what its address is a multiple of.
const AREA_BYTES: u64 = 4096;
/// Bytes of an area's head: the secret, the next area, how many records.
const HEAD_BYTES: usize = 24;
/// Bytes of a record: links, the group, masks, and packed fields.
const RECORD_BYTES: usize = 40;
/// The secret stands so far before the first pointer to an area, at most.
const CONTEXT_BYTES_MAX: u64 = 128;
/// Most areas that are followed.
const AREAS_MAX: usize = 1 << 20;

/// musl in a module: its loader, which is the C library, or a static program.
pub fn find(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<KnownHeap> {
    let is_library = module.name().starts_with("ld-musl") || module.name().starts_with("libc.musl");
    let found = areas(module, space, memory);
    if found.is_none() && !is_library {
        return None;
    }
    let (evidence, regions) = match found {
        Some(areas) => {
            let evidence =
                format!("mallocng: its context and {} areas of records share a secret", areas.len());
            (evidence, regions(space, memory, &areas))
        }
        None => {
            ("known by the name of its library; where its memory is could not be told".to_owned(), Vec::new())
        }
    };
    let heap = KnownHeap::new("musl malloc", "musl_heap", module, evidence, regions);
    Some(KnownHeap { is_malloc: true, ..heap })
}

/// The areas of records, by their list in the context.
fn areas(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<Vec<u64>> {
    let data = Data::read(memory, space, &module.writable);
    let words: Vec<(u64, u64)> = data.words().collect();
    let pointers =
        words.iter().filter(|(_, word)| word.is_multiple_of(AREA_BYTES) && space.holds_records(*word));
    pointers.copied().find_map(|(slot, area)| {
        let secret = memory.read_u64(area).ok().filter(|secret| *secret > 1 << 32)?;
        let from = words.partition_point(|(address, _)| *address < slot.saturating_sub(CONTEXT_BYTES_MAX));
        let before = words.iter().skip(from).take_while(|(address, _)| *address < slot);
        before.into_iter().find(|(_, word)| *word == secret)?;
        list(memory, area, secret)
    })
}

fn list(memory: &dyn Memory, first: u64, secret: u64) -> Option<Vec<u64>> {
    let mut areas = Vec::new();
    let mut area = first;
    while area != 0 {
        let is_area =
            area.is_multiple_of(AREA_BYTES) && memory.read_u64(area).is_ok_and(|word| word == secret);
        if !is_area || areas.len() > AREAS_MAX {
            return None;
        }
        areas.push(area);
        area = memory.read_u64(area + 8).ok()?;
    }
    Some(areas)
}

/// The areas, what `brk` grows, and the groups that have mappings of their own.
fn regions(space: AddressSpace<'_>, memory: &dyn Memory, areas: &[u64]) -> Vec<AddressRange> {
    let heaps = space.mappings.iter().filter(|mapping| mapping.kind == MappingKind::Heap);
    let mut regions: Vec<AddressRange> = heaps.map(|mapping| mapping.range).collect();
    for area in areas {
        regions.extend(AddressRange::with_len(*area, AREA_BYTES));
        let bytes = memory.read_vec_sparse(*area, usize::try_from(AREA_BYTES).unwrap_or(0));
        let records = bytes.get(HEAD_BYTES..).unwrap_or_default().chunks_exact(RECORD_BYTES);
        regions.extend(records.filter_map(group));
    }
    regions
}

/// A group with a mapping of its own: so many pages from the page that it lies in.
fn group(record: &[u8]) -> Option<AddressRange> {
    const MEM: usize = 16;
    const PACKED: usize = 32;
    // last_idx:5, freeable:1, sizeclass:6, maplen: the rest.
    let pages = u64_at(record, PACKED)? >> 12;
    let mem = u64_at(record, MEM)? & !(AREA_BYTES - 1);
    u32_at(record, MEM + 8)?;
    AddressRange::with_len(mem, pages.checked_mul(AREA_BYTES)?).filter(|range| mem != 0 && !range.is_empty())
}
