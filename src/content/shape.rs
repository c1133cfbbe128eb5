//! Shapes: the kinds of a block's first words, and the vtable among them.

use crate::memory::words;

/// Words that make a shape.
pub(super) const SHAPE_WORDS: usize = 4;

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

/// The kinds of the first words of a block, and where the vtable of an object in it is: blocks of one type have the
/// same, mostly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Shape {
    words: [Option<WordKind>; SHAPE_WORDS],
    /// The vtable of an object, and how many bytes into the block that begins.
    pub object: Option<(u64, u8)>,
}

impl Shape {
    /// The shape of a block that begins with `bytes`; no vtable is looked for.
    pub fn of(bytes: &[u8]) -> Self {
        let mut shape = Self::default();
        for (place, (index, word)) in shape.words.iter_mut().zip(words(bytes).enumerate()) {
            let start = index * 8;
            *place = Some(WordKind::of(word, bytes.get(start..start + 8).unwrap_or_default()));
        }
        shape
    }

    /// The same with the vtable of an object, and how many bytes into the block that begins.
    #[must_use]
    pub const fn with_object(self, object: Option<(u64, u8)>) -> Self {
        Self { object, ..self }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.words.iter().flatten().map(|kind| kind.name()).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    fn shape(words: &[u64]) -> String {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Shape::of(&bytes).to_string()
    }

    #[test]
    fn shapes_tell_pointers_text_and_numbers() {
        let text = u64::from_le_bytes(*b"GET /ind");
        assert_eq!(shape(&[0x7f00_0000_1000, 12, text, u64::MAX, 1]), "ptr int text data");
        assert_eq!(shape(&[0, 12]), "0 int");
    }
}
