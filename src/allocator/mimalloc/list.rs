//! Lists of free blocks: each block's first word leads to the next, plainly or encoded.

use crate::memory::{Memory, MemoryExt};

/// How a list's links are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// The record that owns the list: an encoded link to it ends the list.
    pub owner: u64,
    /// The keys, where links are encoded.
    pub keys: Option<(u64, u64)>,
}

impl Links {
    /// The block that the link in `block` leads to, 0 at the end; `None` where it cannot be read.
    pub fn next(&self, memory: &dyn Memory, block: u64) -> Option<u64> {
        let word = memory.read_u64(block).ok()?;
        let Some((first, second)) = self.keys else { return Some(word) };
        let turns = u32::try_from(first % 64).unwrap_or(0);
        let address = word.wrapping_sub(first).rotate_right(turns) ^ second;
        Some(if address == self.owner { 0 } else { address })
    }
}
