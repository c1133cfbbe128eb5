//! A file's bytes, mapped for reading.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What the kernel maps around a page that is looked at, at most (`fault_around_bytes`).
const WINDOW_BYTES: usize = 64 << 10;
/// Of what was looked at in parts, what may stay mapped: then all of it is let go, and looked up in the page cache again
/// where it is still needed.
const RESIDENT_BYTES_MAX: usize = 128 << 20;

/// The bytes of a file, shared with the page cache: nothing is copied until it is looked at.
///
/// A file that another process cuts short while it is mapped ends this process when the lost part is looked
/// at; executables and debug files are replaced, not cut short.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
    /// One bit a window that was looked at since the last time that all were let go.
    windows: Vec<AtomicU64>,
    /// How many those are.
    count: AtomicUsize,
}

impl MappedFile {
    /// Maps `file`.
    ///
    /// # Errors
    ///
    /// Those of the system call; also for files that cannot be mapped.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and only read; that its bytes may change under us is no worse than
        // the untrusted input that all readers take them for.
        let map = unsafe { memmap2::Mmap::map(file)? };
        let words = map.len().div_ceil(WINDOW_BYTES).div_ceil(64);
        let windows = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { map, windows, count: AtomicUsize::new(0) })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// A part of the bytes. However much of the file is looked at in parts, only some of it stays in this process's
    /// resident memory.
    pub fn part(&self, range: Range<usize>) -> Option<&[u8]> {
        let part = self.map.get(range.clone())?;
        if !part.is_empty() {
            self.note(range.start / WINDOW_BYTES, (range.end - 1) / WINDOW_BYTES);
        }
        Some(part)
    }

    fn note(&self, first: usize, last: usize) {
        for window in first..=last {
            let Some(word) = self.windows.get(window / 64) else { return };
            let bit = 1 << (window % 64);
            if word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
                let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
                if count > RESIDENT_BYTES_MAX / WINDOW_BYTES {
                    self.let_go();
                }
            }
        }
    }

    fn let_go(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.windows.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        // SAFETY: the mapping is of a file and was never written to, so what is let go is found again, the same, in the
        // page cache or the file: slices of it stay valid.
        let advised = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        // Where the system refuses, more memory stays resident and nothing else changes.
        drop(advised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn parts_are_the_same_however_much_was_let_go() {
        let mut file = tempfile::tempfile().unwrap();
        let block: Vec<u8> = (0..1 << 20).map(|index: u32| (index >> 8) as u8).collect();
        for _ in 0..RESIDENT_BYTES_MAX / block.len() + 2 {
            file.write_all(&block).unwrap();
        }
        let mapped = MappedFile::map(&file).unwrap();
        let early = mapped.part(256..512).unwrap();
        for (index, expected) in mapped.bytes().chunks(block.len()).enumerate() {
            let start = index * block.len();
            assert_eq!(mapped.part(start..start + expected.len()), Some(&block[..]));
        }
        assert!(mapped.count.load(Ordering::Relaxed) <= RESIDENT_BYTES_MAX / WINDOW_BYTES / 2);
        assert_eq!(early, [1; 256]);
        assert_eq!(mapped.part(mapped.bytes().len()..mapped.bytes().len() + 1), None);
    }
}
