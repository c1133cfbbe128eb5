//! The dynamic loader's list of modules: what a debugger reads of a target before it can name anything in it.
//!
//! Structures: `struct r_debug` and `struct link_map` of the System V loader interface (glibc, `elf/link.h`; the
//! same on FreeBSD, `sys/link_elf.h`). Nothing here is believed; the ranges are only copied.

use crate::memory::{Memory, MemoryExt, u64_at, words};
use heaptap_platform::AddressRange;
use std::collections::BTreeSet;

const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const PT_DYNAMIC: u64 = 2;
const PT_PHDR: u64 = 6;
const DT_DEBUG: u64 = 21;

const PROGRAM_HEADER_BYTES: u64 = 56;
const PROGRAM_HEADERS_MAX: u64 = 64;
const DYNAMIC_BYTES_MAX: u64 = 1 << 14;
const DEBUG_BYTES: u64 = 40;
const LINK_MAP_BYTES: u64 = 40;
const LINK_MAPS_MAX: usize = 1 << 14;
const PATH_BYTES: u64 = 256;

/// The ranges that tell a debugger which modules are loaded; empty for programs without a loader.
pub fn module_lists(memory: &dyn Memory, auxiliary_vector: &[(u64, u64)]) -> Vec<AddressRange> {
    let mut ranges = Vec::new();
    let Some(dynamic) = dynamic_section(memory, auxiliary_vector, &mut ranges) else { return ranges };
    ranges.push(dynamic);
    let Some(debug) = debug_address(memory, dynamic) else { return ranges };
    ranges.extend(AddressRange::with_len(debug, DEBUG_BYTES));
    let mut seen = BTreeSet::new();
    let mut next = memory.read_u64(debug.wrapping_add(8)).unwrap_or(0);
    while next != 0 && seen.len() < LINK_MAPS_MAX && seen.insert(next) {
        ranges.extend(AddressRange::with_len(next, LINK_MAP_BYTES));
        let name = memory.read_u64(next.wrapping_add(8)).unwrap_or(0);
        if name != 0 {
            ranges.extend(AddressRange::with_len(name, path_bytes(memory, name)));
        }
        next = memory.read_u64(next.wrapping_add(24)).unwrap_or(0);
    }
    ranges
}

/// The program's own dynamic section, by its program headers as they are mapped.
fn dynamic_section(
    memory: &dyn Memory,
    auxiliary_vector: &[(u64, u64)],
    ranges: &mut Vec<AddressRange>,
) -> Option<AddressRange> {
    let value = |key| auxiliary_vector.iter().find(|(found, _)| *found == key).map(|(_, value)| *value);
    let (address, count) = (value(AT_PHDR)?, value(AT_PHNUM)?.min(PROGRAM_HEADERS_MAX));
    if value(AT_PHENT)? != PROGRAM_HEADER_BYTES {
        return None;
    }
    let table = AddressRange::with_len(address, count * PROGRAM_HEADER_BYTES)?;
    ranges.push(table);
    let bytes = memory.read_vec(table.start, usize::try_from(table.len_bytes()).ok()?).ok()?;
    let header = |kind: u64| {
        bytes.chunks_exact(56).find(|header| u64_at(header, 0).is_some_and(|word| word & 0xffff_ffff == kind))
    };
    let bias = address.wrapping_sub(header(PT_PHDR).and_then(|header| u64_at(header, 16))?);
    let dynamic = header(PT_DYNAMIC)?;
    let start = u64_at(dynamic, 16)?.wrapping_add(bias);
    AddressRange::with_len(start, u64_at(dynamic, 40)?.min(DYNAMIC_BYTES_MAX))
}

fn debug_address(memory: &dyn Memory, dynamic: AddressRange) -> Option<u64> {
    let bytes = memory.read_vec(dynamic.start, usize::try_from(dynamic.len_bytes()).ok()?).ok()?;
    let entries: Vec<u64> = words(&bytes).collect();
    let debug = entries.chunks_exact(2).find(|entry| entry.first() == Some(&DT_DEBUG))?;
    debug.get(1).copied().filter(|address| *address != 0)
}

/// Bytes of a text with its closing zero, looked for one piece after the other: its end may be that of a page.
fn path_bytes(memory: &dyn Memory, start: u64) -> u64 {
    const PIECE_BYTES: u64 = 16;
    let mut len_bytes = 0;
    while len_bytes < PATH_BYTES {
        let piece = memory.read_vec(start.wrapping_add(len_bytes), 16).unwrap_or_default();
        match piece.iter().position(|byte| *byte == 0) {
            Some(end) => return len_bytes + end as u64 + 1,
            None if piece.is_empty() => return len_bytes,
            None => len_bytes += PIECE_BYTES,
        }
    }
    len_bytes
}
