//! Memory that this tool and its guardian both see.

use super::system_call;

/// A mapping that a forked process has too.
#[derive(Debug)]
pub struct SharedMemory {
    place: *mut u8,
    len_bytes: usize,
}

// SAFETY: the mapping belongs to no thread.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// New memory, all zeros; the system's error number where there is none.
    pub fn new(len_bytes: usize) -> Result<Self, i32> {
        Ok(Self { place: system_call::map_shared(len_bytes)?, len_bytes })
    }

    /// The bytes. Guardian and tool take turns: the one writes before it answers, the other reads after that.
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has that length and lives as long as `self`; the guardian writes only between a request and its answer,
        // while nobody here holds this reference.
        unsafe { std::slice::from_raw_parts(self.place, self.len_bytes) }
    }

    /// The bytes for writing: the guardian's view.
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the borrow is exclusive in this process, and the tool waits for the answer meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.place, self.len_bytes) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the range is that of `new`, and no reference outlives `self`.
        unsafe { system_call::unmap(self.place, self.len_bytes) };
    }
}
