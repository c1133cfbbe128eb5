//! A file's bytes, mapped for reading.

use std::fs::File;
use std::io;

/// The bytes of a file, shared with the page cache: nothing is copied until it is looked at.
///
/// A file that another process cuts short while it is mapped ends this process when the lost part is looked
/// at; executables and debug files are replaced, not cut short.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
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
        Ok(Self { map })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}
