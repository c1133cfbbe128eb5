//! Chunks: what a header of 16 bytes says, and which rows a size belongs to.

use super::layout::{CHUNK_BYTES_MIN, MmappedSize};
use crate::memory::{Fault, Memory, MemoryExt, u64_at};

/// The chunk before it in memory is in use; then its first word belongs to that chunk's user.
pub const PREVIOUS_IN_USE: u64 = 1;
/// It has a mapping of its own.
pub const IS_MMAPPED: u64 = 2;
/// It belongs to another arena than the main one.
pub const NOT_MAIN_ARENA: u64 = 4;

/// From a chunk to what the program was given.
pub const HEADER_BYTES: u64 = 16;
/// What a chunk costs beside the bytes that its user has: the size word.
pub const OVERHEAD_BYTES: u64 = 8;

/// Largest chunk that is believed.
const CHUNK_BYTES_MAX: u64 = 1 << 46;

/// The two words at a chunk's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Size of the chunk before, valid if that one is free; for mmapped chunks the bytes before it in its mapping.
    pub previous_bytes: u64,
    /// Size and flags.
    pub word: u64,
}

impl Header {
    /// The header at `chunk`.
    pub fn read(memory: &dyn Memory, chunk: u64) -> Result<Self, Fault> {
        if let Some(bytes) = memory.slice(chunk, 16)
            && let (Some(previous_bytes), Some(word)) = (u64_at(bytes, 0), u64_at(bytes, 8))
        {
            return Ok(Self { previous_bytes, word });
        }
        let word = memory.read_u64(chunk.checked_add(8).ok_or(Fault { address: chunk })?)?;
        Ok(Self { previous_bytes: memory.read_u64(chunk)?, word })
    }

    /// Bytes of the chunk.
    pub const fn size_bytes(&self) -> u64 {
        self.word & !7
    }

    /// Whether a flag is set.
    pub const fn has(&self, flag: u64) -> bool {
        self.word & flag != 0
    }

    /// Whether a chunk of a heap can have this size word.
    pub const fn is_plausible(&self) -> bool {
        let size = self.size_bytes();
        size >= CHUNK_BYTES_MIN && size.is_multiple_of(16) && size < CHUNK_BYTES_MAX && !self.has(IS_MMAPPED)
    }

    /// What a chunk with a mapping of its own is, if this is its header.
    pub fn mmapped(&self, chunk: u64, form: MmappedSize) -> Option<Mmapped> {
        if self.word & 7 != IS_MMAPPED || self.size_bytes() >= CHUNK_BYTES_MAX || !chunk.is_multiple_of(16) {
            return None;
        }
        // The lowest bit of 2.43 tells of huge pages.
        let before_bytes = self.previous_bytes & !1;
        let (after_bytes, usable_bytes) = match form {
            MmappedSize::WithHeader => (self.size_bytes(), self.size_bytes().checked_sub(16)?),
            MmappedSize::WithoutHeader => (self.size_bytes() + 16, self.size_bytes().checked_sub(8)?),
        };
        let start = chunk.checked_sub(before_bytes)?;
        let end = chunk.checked_add(after_bytes)?;
        let is_whole = start.is_multiple_of(4096) && end.is_multiple_of(4096) && after_bytes >= 4096;
        is_whole.then_some(Mmapped { chunk, start, end, usable_bytes })
    }
}

/// A chunk with a mapping of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mmapped {
    /// The chunk.
    pub chunk: u64,
    /// Start of its mapping.
    pub start: u64,
    /// End of its mapping.
    pub end: u64,
    /// Bytes that the program may use.
    pub usable_bytes: u64,
}

/// The row that a block of a chunk of `chunk_bytes` is counted in: the most that a program may use of a chunk of the
/// same bin. Small bins (below 1024 bytes) hold one size each; large bins are those of `largebin_index`; from 160 KiB
/// on rows are a quarter of a power of two wide.
pub const fn class_bytes(chunk_bytes: u64) -> u64 {
    let step = if chunk_bytes < 1024 {
        16
    } else if chunk_bytes < (49 << 6) {
        1 << 6
    } else if chunk_bytes < (21 << 9) {
        1 << 9
    } else if chunk_bytes < (11 << 12) {
        1 << 12
    } else if chunk_bytes < (5 << 15) {
        1 << 15
    } else {
        1 << (61 - chunk_bytes.leading_zeros())
    };
    // The largest chunk of a bin ends 16 bytes before the next bin begins.
    (chunk_bytes & !(step - 1)) + step - 16 - OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_have_rows_of_their_own() {
        assert_eq!(class_bytes(0x20), 24);
        assert_eq!(class_bytes(0x30), 40);
        assert_eq!(class_bytes(0x3f0), 1000);
    }

    #[test]
    fn a_row_holds_a_chunk_of_its_own_size_and_rows_ascend() {
        let mut last = 0;
        for chunk in (0x20..0x200_0000_u64).step_by(16) {
            let class = class_bytes(chunk);
            assert!(class >= chunk - 8, "{chunk:#x}: {class:#x}");
            assert!(class >= last, "{chunk:#x}");
            last = class;
            assert_eq!(class_bytes(class + 8), class, "{chunk:#x}");
        }
    }

    #[test]
    fn a_mapping_of_its_own_is_recognised_in_both_forms() {
        let old = Header { previous_bytes: 0, word: 0x31002 };
        let whole = old.mmapped(0x7000_0000, MmappedSize::WithHeader).unwrap();
        assert_eq!((whole.start, whole.end, whole.usable_bytes), (0x7000_0000, 0x7003_1000, 200_688));
        assert_eq!(old.mmapped(0x7000_0000, MmappedSize::WithoutHeader), None);
        let new = Header { previous_bytes: 0xff0, word: 0x4d002 };
        let whole = new.mmapped(0x7000_0ff0, MmappedSize::WithoutHeader).unwrap();
        assert_eq!((whole.start, whole.end, whole.usable_bytes), (0x7000_0000, 0x7004_e000, 315_384));
    }
}
