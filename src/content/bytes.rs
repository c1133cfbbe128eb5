//! The first bytes of a block at one moment, and whether they are still the same.

use super::shape::Shape;
use crate::memory::words;

/// Bytes of a block that are looked at.
pub const LOOK_BYTES_MAX: u64 = 128;

/// The first bytes of a block at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    bytes: Vec<u8>,
}

impl Content {
    /// These bytes.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// All that is known of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes it is.
    pub const fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether this is still the block that `earlier` was: of its words at most an eighth, one at least, has changed, as
    /// links to neighbours do. Blocks of fewer than four words must be equal.
    pub fn is_still(&self, earlier: &Self) -> bool {
        let count = self.bytes.len() / 8;
        let allowed = if count < 4 { 0 } else { count.div_ceil(8) };
        let changed = words(&self.bytes).zip(words(&earlier.bytes)).filter(|(now, then)| now != then).count();
        self.bytes.len() == earlier.bytes.len() && changed <= allowed
    }

    /// The kinds of its first words.
    pub fn shape(&self) -> Shape {
        Shape::of(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(words: &[u64]) -> Content {
        Content::new(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    #[test]
    fn a_link_may_change_and_it_is_still_the_block() {
        let before = content(&[0x7f00_0000_1000, 0x7f00_0000_2000, 77, 5, 6, 7, 8, 9]);
        let linked = content(&[0x7f00_0000_3000, 0x7f00_0000_2000, 77, 5, 6, 7, 8, 9]);
        let another = content(&[0x7f00_0000_3000, 0x7f00_0000_2000, 78, 5, 6, 7, 8, 9]);
        assert!(linked.is_still(&before) && before.is_still(&before));
        assert!(!another.is_still(&before));
        assert!(!content(&[1, 2]).is_still(&content(&[1, 3])));
    }
}
