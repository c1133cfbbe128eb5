//! The one who tells types: by what modules and memory show, each vtable once.

use super::block_type::{BlockType, Evidence};
use super::bytes::Content;
use super::shape::Shape;
use super::vtable::{ClassTable, RustTable, Tables};
use super::{ModuleBytes, Sources, python};
use crate::allocator::AddressSpace;
use crate::memory::{Memory, words};
use crate::module::Module;
use heaptap_platform::Mapping;
use std::cell::RefCell;
use std::collections::HashMap;

/// Words of a block at which an object is looked for: containers put links in front.
const OBJECT_WORDS: usize = 4;
/// Text shorter than this is no text.
const TEXT_BYTES_MIN: usize = 8;

/// Tells what blocks are.
#[derive(Debug)]
pub struct Typer<'a> {
    space: AddressSpace<'a>,
    memory: &'a dyn Memory,
    files: ModuleBytes<'a>,
    known: RefCell<HashMap<u64, Option<ClassTable>>>,
}

impl std::fmt::Debug for dyn Memory + '_ {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Memory")
    }
}

impl<'a> Typer<'a> {
    /// A typer for a target with these modules, whose bytes `memory` has.
    pub fn new(modules: &'a [Module], mappings: &'a [Mapping], memory: &'a dyn Memory) -> Self {
        let space = AddressSpace { modules, mappings };
        Self { space, memory, files: ModuleBytes::new(modules), known: RefCell::default() }
    }

    fn with_tables<T>(&self, ask: impl FnOnce(&Tables<'_, Sources<'_>>) -> T) -> T {
        let sources = Sources(vec![self.memory, &self.files]);
        ask(&Tables { space: self.space, memory: &sources })
    }

    fn class_table(&self, address: u64) -> Option<ClassTable> {
        if let Some(known) = self.known.borrow().get(&address) {
            return known.clone();
        }
        let found = self.with_tables(|tables| tables.class_table(address));
        // Words that are no vtables are as many as there are blocks: only those that may be one are kept.
        if found.is_some() || self.space.modules.iter().any(|module| module.range.contains(address)) {
            self.known.borrow_mut().insert(address, found.clone());
        }
        found
    }

    /// The vtable of the first complete object in a block, and where that begins.
    fn object(&self, content: &Content) -> Option<(u64, u8)> {
        let found = words(content.bytes()).take(OBJECT_WORDS).zip(0_u8..).find(|(word, _)| {
            *word != 0 && self.class_table(*word).is_some_and(|table| table.offset_to_top == 0)
        });
        found.map(|(vtable, index)| (vtable, index * 8))
    }

    /// The shape of a block, with the vtable of the object in it.
    pub fn shape(&self, content: &Content) -> Shape {
        content.shape().with_object(self.object(content))
    }

    /// What blocks of a shape are called: the class of their objects, or the kinds of their words.
    pub fn name(&self, shape: Shape) -> String {
        self.class_of(shape).map_or_else(|| shape.to_string(), |class| class.name)
    }

    fn class_of(&self, shape: Shape) -> Option<BlockType> {
        let (vtable, offset_bytes) = shape.object?;
        let table = self.class_table(vtable)?;
        let evidence = if table.class.is_some() { Evidence::Rtti } else { Evidence::Vtable };
        let name = table.class.unwrap_or_else(|| format!("vtable {}", self.place(vtable)));
        let name = if offset_bytes == 0 { name } else { format!("{name} at +{offset_bytes}") };
        Some(BlockType { name, evidence })
    }

    /// The class whose vtable is at `address`, that of a base too; nothing where none is or its name is not known.
    pub fn class_at(&self, address: u64) -> Option<String> {
        let table = self.class_table(address)?;
        let class = table.class?;
        let offset_to_top = table.offset_to_top;
        Some(if offset_to_top == 0 { class } else { format!("{class}, base at +{}", -offset_to_top) })
    }

    /// `module+0xoffset`, the offset as the module's file has it.
    fn place(&self, address: u64) -> String {
        let module = self.space.modules.iter().find(|module| module.range.contains(address));
        module.map_or_else(
            || format!("{address:#x}"),
            |module| format!("{}+{:#x}", module.name(), address.wrapping_sub(module.bias)),
        )
    }

    /// What the block at `address` is, which begins with `content`.
    pub fn block_type(&self, address: u64, content: &Content) -> BlockType {
        let shape = self.shape(content);
        let named = |name: String, evidence| BlockType { name, evidence };
        if let Some(class) = self.class_of(shape) {
            return class;
        }
        let first: Vec<u64> = words(content.bytes()).take(OBJECT_WORDS).collect();
        if let Some(name) = self.with_tables(|tables| python::type_name(tables, &first)) {
            return named(format!("Python {name}"), Evidence::Python);
        }
        if is_text(content.bytes()) {
            return named("text".to_owned(), Evidence::Text);
        }
        if is_short_string(address, content.bytes()) {
            return named("std::string (short)".to_owned(), Evidence::SelfPointer);
        }
        named(shape.to_string(), Evidence::Shape)
    }

    /// The table that a reference of a Rust trait object to a block of `block_bytes` carries, if `address` is one.
    pub fn rust_table(&self, address: u64, block_bytes: u64) -> Option<RustTable> {
        self.with_tables(|tables| tables.rust_table(address, block_bytes))
    }
}

/// Whether the bytes begin with text: printable up to a zero, or as far as is known.
fn is_text(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    let is_printable = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    text.len() >= TEXT_BYTES_MIN && text.iter().all(is_printable)
}

/// Whether a short `std::string` of GCC's library stands first: a pointer to itself, a length, the text.
fn is_short_string(address: u64, bytes: &[u8]) -> bool {
    const TEXT_OFFSET: usize = 16;
    let mut first = words(bytes);
    let (Some(text), Some(length)) = (first.next(), first.next()) else { return false };
    let end = usize::try_from(length).ok().filter(|length| *length < 16);
    text == address.wrapping_add(TEXT_OFFSET as u64)
        && end.is_some_and(|end| bytes.get(TEXT_OFFSET + end).is_some_and(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::{is_short_string, is_text};

    #[test]
    fn text_ends_in_a_zero_or_not_at_all() {
        assert!(is_text(b"GET /index.html\0\x01\x02"));
        assert!(is_text(b"GET /index.html"));
        assert!(!is_text(b"GET\0/index.html"));
        assert!(!is_text(b"GET /ind\x01ex.html"));
        assert!(!is_text(b""));
    }

    #[test]
    fn a_short_string_points_to_its_own_text() {
        let mut bytes = [0_u8; 32];
        bytes[..8].copy_from_slice(&0x5010_u64.to_le_bytes());
        bytes[8] = 3;
        bytes[16..19].copy_from_slice(b"abc");
        assert!(is_short_string(0x5000, &bytes));
        assert!(!is_short_string(0x5008, &bytes));
        bytes[19] = b'd';
        assert!(!is_short_string(0x5000, &bytes));
    }
}
