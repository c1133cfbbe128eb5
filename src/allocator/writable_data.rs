//! The writable data of a module, where the roots of an allocator lie.

use crate::allocator::AddressSpace;
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::AddressRange;

/// Most bytes of a module's writable data that are searched.
const DATA_BYTES_MAX: u64 = 1 << 28;

/// The present bytes of a module's writable segments, copied.
#[derive(Debug, Default)]
pub struct Data {
    pieces: Vec<(u64, Vec<u8>)>,
    segments: Vec<AddressRange>,
}

impl Data {
    /// Copies what is present of `segments`.
    pub fn read(memory: &dyn Memory, space: AddressSpace<'_>, segments: &[AddressRange]) -> Self {
        let mut data = Self { pieces: Vec::new(), segments: segments.to_vec() };
        let mut left = DATA_BYTES_MAX;
        let mapped = segments.iter().flat_map(|segment| space.mapped(*segment));
        for present in mapped.flat_map(|part| memory.present(part)) {
            let len_bytes = present.len_bytes().min(left);
            left -= len_bytes;
            let Ok(bytes) = memory.read_vec(present.start, usize::try_from(len_bytes).unwrap_or(0)) else {
                continue;
            };
            // What begins in a file's pages goes on in those behind them.
            match data.pieces.last_mut() {
                Some((start, before)) if *start + before.len() as u64 == present.start => {
                    before.extend(bytes)
                }
                _ => data.pieces.push((present.start, bytes)),
            }
        }
        data
    }

    /// Pieces with their addresses.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(start, bytes)| (*start, bytes.as_slice()))
    }

    /// All words that are not zero, with their addresses.
    pub fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pieces()
            .flat_map(|(start, bytes)| (start..).step_by(8).zip(words(bytes)).filter(|(_, word)| *word != 0))
    }

    /// Whether an array of `len_bytes` at `start` lies within one segment.
    pub fn has_room(&self, start: u64, len_bytes: u64) -> bool {
        self.segments.iter().any(|segment| {
            start >= segment.start && start.checked_add(len_bytes).is_some_and(|end| end <= segment.end)
        })
    }
}
