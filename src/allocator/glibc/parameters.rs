//! The allocator's parameters (`mp_`): its own count of mappings, and where the main arena's heap begins.

use super::layout::{ARENA_TEST, Layout, ParameterLayout};
use crate::allocator::{AddressSpace, Data};
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};

/// Bytes that are read: the last field is among them.
const RECORD_BYTES: u64 = 128;

/// What a 64-bit build sets and hardly any program changes.
const ARENA_TEST_DEFAULT: u64 = 8;
const N_MMAPS_MAX_DEFAULT: u32 = 1 << 16;

/// The parameters of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Chunks with a mapping of their own.
    pub n_mmaps: u32,
    /// Bytes of those mappings. From 2.43 on every `mremap` leaves 16 bytes too many in it.
    pub mmapped_bytes: u64,
    /// Where the main arena's heap begins, 0 as long as it has none.
    pub sbrk_base: u64,
}

impl Parameters {
    /// Those at `address`.
    pub fn read(memory: &dyn Memory, layout: &ParameterLayout, address: u64) -> Option<Self> {
        let bytes = memory.read_vec(address, usize::try_from(RECORD_BYTES).ok()?).ok()?;
        Self::parse(layout, &bytes)
    }

    fn parse(layout: &ParameterLayout, bytes: &[u8]) -> Option<Self> {
        Some(Self {
            n_mmaps: u32_at(bytes, usize::try_from(layout.n_mmaps).ok()?)?,
            mmapped_bytes: u64_at(bytes, usize::try_from(layout.mmapped_bytes).ok()?)?,
            sbrk_base: u64_at(bytes, usize::try_from(layout.sbrk_base).ok()?)?,
        })
    }
}

/// The range of the record at `address`.
pub fn range(address: u64) -> Option<heaptap_platform::AddressRange> {
    heaptap_platform::AddressRange::with_len(address, RECORD_BYTES)
}

/// Looks for the parameters in a module's data: by their defaults, and by the beginning of the heap. `top` is the
/// main arena's top chunk, where it has one.
pub fn find(data: &Data, space: AddressSpace<'_>, layout: &Layout, top: Option<u64>) -> Option<u64> {
    let fields = layout.parameters;
    let mut best: Option<(u32, u64)> = None;
    for (start, bytes) in data.pieces() {
        for offset in (0..bytes.len()).step_by(8) {
            let Some(record) = bytes.get(offset..) else { break };
            let Some(score) = score(record, space, fields, top) else { continue };
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, start + offset as u64));
            }
        }
    }
    best.map(|(_, address)| address)
}

/// How many of the tell-tale fields `record` has; `None` where it cannot be the parameters.
fn score(record: &[u8], space: AddressSpace<'_>, fields: ParameterLayout, top: Option<u64>) -> Option<u32> {
    let arena_test = u64_at(record, usize::try_from(ARENA_TEST).ok()?)?;
    let n_mmaps_max = u32_at(record, usize::try_from(fields.n_mmaps_max).ok()?)?;
    let defaults =
        u32::from(arena_test == ARENA_TEST_DEFAULT) + u32::from(n_mmaps_max == N_MMAPS_MAX_DEFAULT);
    let found = Parameters::parse(&fields, record)?;
    let begins_heap = match top {
        Some(_) if found.sbrk_base == 0 || !space.holds_records(found.sbrk_base) => return None,
        // A program that changed both defaults is known by the exact beginning of its heap alone.
        Some(_) if defaults == 0 && !space.starts_brk_heap(found.sbrk_base) => return None,
        Some(_) => u32::from(space.is_in_brk_heap(found.sbrk_base)) * 2,
        None if defaults == 0 || found.sbrk_base != 0 => return None,
        None => 0,
    };
    let counts_agree = found.n_mmaps == 0 || found.mmapped_bytes > 0;
    if found.n_mmaps > 1 << 20 || found.mmapped_bytes % 16 != 0 || !counts_agree {
        return None;
    }
    // Thresholds of some pages at least, and below the whole address space.
    let thresholds = [0, 16].map(|offset| u64_at(record, offset));
    let plausible = thresholds.iter().flatten().filter(|bytes| (4096..1 << 47).contains(*bytes)).count();
    (defaults + begins_heap >= 2).then_some(defaults + begins_heap + u32::try_from(plausible).ok()?)
}
