//! One memory of several: what the first does not have, the next may.

use crate::memory::{Fault, Memory};
use heaptap_platform::{AddressRange, merge_ranges};

/// Memories in the order in which they are asked.
#[derive(Clone)]
pub struct Sources<'a>(pub Vec<&'a dyn Memory>);

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Sources").field(&self.0.len()).finish()
    }
}

impl Memory for Sources<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        if self.0.iter().any(|source| source.read(address, bytes).is_ok()) {
            return Ok(());
        }
        // No one has all of it: then each its part, a word at a time.
        let mut at = address;
        for word in bytes.chunks_mut(8) {
            if !self.0.iter().any(|source| source.read(at, word).is_ok()) {
                return Err(Fault { address: at });
            }
            at = at.saturating_add(word.len() as u64);
        }
        Ok(())
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        merge_ranges(self.0.iter().flat_map(|source| source.present(range)).collect(), 0)
    }
}
