//! Chunks with a mapping of their own: no list names them, so they are looked for at the places where such a chunk
//! can begin, and proved by their count and sum in the allocator's parameters.

use super::chunk::{Header, Mmapped};
use super::layout::{Layout, MmappedSize};
use super::parameters::Parameters;
use crate::memory::{Memory, MemoryExt, u64_at};
use heaptap_platform::AddressRange;

/// Bytes that are looked through at a time.
const STEP_BYTES: u64 = 1 << 20;

/// Places in the first page of a mapping where a chunk can begin whose user asked for an alignment: 16 bytes before a
/// power of two.
const PLACES: [u64; 9] = [0, 16, 48, 112, 240, 496, 1008, 2032, 4080];

/// Candidates in `regions`, in address order; two may overlap if one is only bytes that look alike.
pub fn candidates(memory: &dyn Memory, layout: &Layout, regions: &[AddressRange]) -> Vec<u64> {
    let mut found = Vec::new();
    for region in regions {
        for present in memory.present(*region) {
            let mut start = present.start;
            while start < present.end {
                let end = present.end.min(start + STEP_BYTES);
                if let Ok(bytes) = memory.read_vec(start, usize::try_from(end - start).unwrap_or(0)) {
                    in_bytes(layout.mmapped_size, start, &bytes, *region, &mut found);
                }
                start = end;
            }
        }
    }
    found
}

fn in_bytes(form: MmappedSize, start: u64, bytes: &[u8], region: AddressRange, found: &mut Vec<u64>) {
    for (page, page_bytes) in (start..).step_by(4096).zip(bytes.chunks(4096)) {
        for place in PLACES {
            let Ok(offset) = usize::try_from(place) else { continue };
            let (Some(previous_bytes), Some(word)) =
                (u64_at(page_bytes, offset), u64_at(page_bytes, offset + 8))
            else {
                continue;
            };
            let chunk = page + place;
            let whole = Header { previous_bytes, word }.mmapped(chunk, form);
            if whole.is_some_and(|whole| whole.start >= region.start && whole.end <= region.end) {
                found.push(chunk);
            }
        }
    }
}

/// Candidates where mappings may have come since others were looked for: at the beginning of each of `regions`, at
/// each of `places`, and wherever one of these ends.
pub fn newcomers(
    memory: &dyn Memory,
    layout: &Layout,
    regions: &[AddressRange],
    places: impl Iterator<Item = u64>,
) -> Vec<u64> {
    let mut found = Vec::new();
    for start in regions.iter().map(|region| region.start).chain(places) {
        let mut start = start;
        while let Some(whole) = first_in(memory, layout.mmapped_size, regions, start) {
            found.push(whole.chunk);
            start = whole.end;
        }
    }
    found
}

/// The chunk of the mapping that begins at `start`, if one does.
fn first_in(memory: &dyn Memory, form: MmappedSize, regions: &[AddressRange], start: u64) -> Option<Mmapped> {
    let region = regions.get(regions.partition_point(|region| region.end <= start))?;
    let at = |place: &u64| {
        let chunk = start.checked_add(*place)?;
        let whole = Header::read(memory, chunk).ok()?.mmapped(chunk, form)?;
        (whole.start == start && whole.end <= region.end).then_some(whole)
    };
    PLACES.iter().rev().find_map(at).filter(|_| region.contains(start))
}

/// The chunks that are there, out of the candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proved {
    /// The chunks.
    pub chunks: Vec<Mmapped>,
    /// Their number is that of the parameters.
    pub count_agrees: bool,
    /// Their bytes are those of the parameters.
    pub bytes_agree: bool,
}

/// Chooses among `candidates` by the parameters: as many as they say, of as many bytes.
pub fn prove(memory: &dyn Memory, layout: &Layout, candidates: &[u64], parameters: &Parameters) -> Proved {
    let form = layout.mmapped_size;
    let mut chunks: Vec<Mmapped> = Vec::new();
    for candidate in candidates {
        let header = Header::read(memory, *candidate).ok();
        let Some(whole) = header.and_then(|header| header.mmapped(*candidate, form)) else { continue };
        match chunks.last_mut() {
            // An aligned chunk leaves the header from before it was aligned behind, of the same mapping.
            Some(last) if (whole.start, whole.end) == (last.start, last.end) => *last = whole,
            // What lies inside of another is a look-alike in its user's bytes.
            Some(last) if whole.start < last.end => {}
            _ => chunks.push(whole),
        }
    }
    let wanted = usize::try_from(parameters.n_mmaps).unwrap_or(usize::MAX);
    let excess = sum(&chunks).wrapping_sub(parameters.mmapped_bytes);
    if chunks.len() == wanted + 1
        && let Some(look_alike) = chunks.iter().position(|whole| whole.end - whole.start == excess)
    {
        chunks.remove(look_alike);
    }
    let drift = parameters.mmapped_bytes.wrapping_sub(sum(&chunks));
    let bytes_agree = match form {
        MmappedSize::WithHeader => drift == 0,
        MmappedSize::WithoutHeader => drift.is_multiple_of(16) && drift < 1 << 40,
    };
    Proved { count_agrees: chunks.len() == wanted, bytes_agree, chunks }
}

fn sum(chunks: &[Mmapped]) -> u64 {
    chunks.iter().map(|whole| whole.end - whole.start).sum()
}
