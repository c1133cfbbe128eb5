//! What a block holds: its first words, whether they are still the same, and of what shape they are.

use crate::memory::words;

/// Bytes of a block that are looked at.
pub const LOOK_BYTES_MAX: u64 = 128;
/// Words that make a shape.
const SHAPE_WORDS: usize = 4;

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
        let mut shape = Shape::default();
        for (place, (index, word)) in shape.0.iter_mut().zip(words(&self.bytes).enumerate()) {
            let start = index * 8;
            *place = Some(WordKind::of(word, self.bytes.get(start..start + 8).unwrap_or_default()));
        }
        shape
    }
}

/// What one word may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum WordKind {
    Zero,
    Small,
    Pointer,
    Text,
    Other,
}

impl WordKind {
    fn of(word: u64, bytes: &[u8]) -> Self {
        let printable = bytes.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ').count();
        match word {
            0 => Self::Zero,
            _ if printable == 8 => Self::Text,
            1..=0xffff_ffff => Self::Small,
            0x1_0000_0000..=0x7fff_ffff_ffff => Self::Pointer,
            _ => Self::Other,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Zero => "0",
            Self::Small => "int",
            Self::Pointer => "ptr",
            Self::Text => "text",
            Self::Other => "data",
        }
    }
}

/// The kinds of the first words of a block: blocks of one type have the same, mostly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Shape([Option<WordKind>; SHAPE_WORDS]);

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.0.iter().flatten().map(|kind| kind.name()).collect();
        f.write_str(&names.join(" "))
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

    #[test]
    fn shapes_tell_pointers_text_and_numbers() {
        let text = u64::from_le_bytes(*b"GET /ind");
        assert_eq!(
            content(&[0x7f00_0000_1000, 12, text, u64::MAX, 1]).shape().to_string(),
            "ptr int text data"
        );
        assert_eq!(content(&[0, 12]).shape().to_string(), "0 int");
    }
}
