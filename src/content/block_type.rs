//! What a block is said to be, and what says so.

use serde::{Deserialize, Serialize};

/// What tells what a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The type information of C++ in front of its vtable.
    Rtti,
    /// A vtable without type information: objects of one class have the same.
    Vtable,
    /// A reference to it that carries the vtable of a Rust trait object.
    TraitObject,
    /// The type object of Python that it points to.
    Python,
    /// Its bytes are text.
    Text,
    /// A word that points into the block itself, as short strings of C++ have it.
    SelfPointer,
    /// Nothing but the kinds of its first words.
    Shape,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockType {
    /// The name of the type, as in the source where that is known.
    pub name: String,
    /// What tells it.
    pub evidence: Evidence,
}

impl BlockType {
    /// Whether a type is known, and not only what the words look like.
    pub const fn is_named(&self) -> bool {
        !matches!(self.evidence, Evidence::Shape)
    }
}
