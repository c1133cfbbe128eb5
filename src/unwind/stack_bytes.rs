//! The bytes of one stack, looked at where they are, so that a word costs no search.

use crate::memory::{Fault, Memory};
use std::cell::Cell;

/// Lengths of the stretch that is looked for, as powers of two.
const LEN_BITS_MAX: u32 = 16;
const LEN_BITS_MIN: u32 = 7;

/// A stack, with the stretch of it that was last read.
#[derive(Debug)]
pub struct StackBytes<'a, M: ?Sized> {
    memory: &'a M,
    stretch: Cell<(u64, &'a [u8])>,
}

impl<'a, M: Memory + ?Sized> StackBytes<'a, M> {
    /// The stack in `memory`.
    pub const fn new(memory: &'a M) -> Self {
        Self { memory, stretch: Cell::new((0, &[])) }
    }

    #[inline]
    fn in_stretch(&self, address: u64, len_bytes: usize) -> Option<&'a [u8]> {
        let (start, bytes) = self.stretch.get();
        let skipped = usize::try_from(address.checked_sub(start)?).ok()?;
        bytes.get(skipped..)?.get(..len_bytes)
    }

    /// Looks for the longest stretch from an address on that the memory has in one piece.
    #[cold]
    fn move_stretch(&self, address: u64) {
        let lengths = (LEN_BITS_MIN..=LEN_BITS_MAX).rev().map(|bits| 1_usize << bits);
        for len_bytes in lengths {
            if let Some(bytes) = self.memory.slice(address, len_bytes) {
                self.stretch.set((address, bytes));
                return;
            }
        }
    }
}

impl<M: Memory + ?Sized> Memory for StackBytes<'_, M> {
    #[inline]
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        if let Some(found) = self.in_stretch(address, bytes.len()) {
            bytes.copy_from_slice(found);
            return Ok(());
        }
        self.move_stretch(address);
        self.memory.read(address, bytes)
    }
}
