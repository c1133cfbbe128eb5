//! Vtables: what stands in front of an object's first virtual function, and in front of a trait object's.
//!
//! Layouts: Itanium C++ ABI, 2.5 "Virtual Table Layout" and 2.9 "Run-Time Type Information", as GCC and Clang follow it on all
//! systems but Windows; for Rust, that of rustc's `vtable` of a trait object: drop, size, align, methods.

use crate::allocator::AddressSpace;
use crate::memory::{Memory, MemoryExt};
use crate::symbolize::demangle::demangle;

/// Longest name of a type that is read.
const NAME_BYTES_MAX: usize = 8192;
/// Objects larger than this have no vtable at their end.
const OBJECT_BYTES_MAX: u64 = 1 << 32;
/// No type needs a greater alignment.
const ALIGN_BYTES_MAX: u64 = 1 << 20;

/// The vtable of a C++ class, or of one of its bases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClassTable {
    /// How far the complete object begins from the one that has this vtable: 0, or negative in bases.
    pub offset_to_top: i64,
    /// The class of the complete object; absent in programs without type information.
    pub class: Option<String>,
}

/// The vtable of a Rust trait object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RustTable {
    /// The function that drops the value, 0 where nothing needs to be dropped.
    pub drop: u64,
    /// Bytes of the value.
    pub size_bytes: u64,
    /// Its alignment.
    pub align_bytes: u64,
}

/// Modules with what is read of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables<'a, M: ?Sized> {
    pub space: AddressSpace<'a>,
    pub memory: &'a M,
}

impl<M: Memory + ?Sized> Tables<'_, M> {
    fn is_in_module(&self, address: u64) -> bool {
        self.space.modules.iter().any(|module| module.range.contains(address))
    }

    /// Whether a module's memory is executed; nothing outside of modules. Its file knows it better than a list of mappings,
    /// which debuggers leave incomplete.
    fn is_executed(&self, address: u64) -> Option<bool> {
        let module = self.space.modules.iter().find(|module| module.range.contains(address))?;
        let stated = address.wrapping_sub(module.bias);
        let by_file = module.image.as_ref().and_then(|image| image.is_executed(stated));
        by_file.or_else(|| self.space.mapping(address).map(|mapping| mapping.executable))
    }

    fn is_code(&self, address: u64) -> bool {
        self.is_executed(address) == Some(true)
    }

    /// Data of a module.
    pub fn is_data(&self, address: u64) -> bool {
        self.is_executed(address) == Some(false)
    }

    /// The class whose objects point to `address`.
    pub fn class_table(&self, address: u64) -> Option<ClassTable> {
        if !address.is_multiple_of(8) || !self.is_data(address) {
            return None;
        }
        let [offset_to_top, info, first] = self.memory.read_words(address.checked_sub(16)?, 3).ok()?[..]
        else {
            return None;
        };
        let offset_to_top = offset_to_top.cast_signed();
        if !self.is_code(first) || offset_to_top.unsigned_abs() > OBJECT_BYTES_MAX {
            return None;
        }
        if info == 0 {
            // A table without type information has nothing else that is sure: only the outermost is believed.
            return (offset_to_top == 0).then_some(ClassTable { offset_to_top, class: None });
        }
        Some(ClassTable { offset_to_top, class: Some(self.class_name(info)?) })
    }

    /// The name in a type's information: its first word is a vtable, its second the mangled name.
    fn class_name(&self, info: u64) -> Option<String> {
        if !info.is_multiple_of(8) || !self.is_in_module(info) {
            return None;
        }
        let [_, name] = self.memory.read_words(info, 2).ok()?[..] else { return None };
        let text = self.text(name)?;
        // A star says that the name is no other module's.
        let mangled = text.strip_prefix('*').unwrap_or(&text);
        let symbol = format!("_ZTS{mangled}");
        demangle(&symbol).strip_prefix("typeinfo name for ").map(str::to_owned)
    }

    /// The text at `address`, up to its closing zero.
    pub fn text(&self, address: u64) -> Option<String> {
        const PIECE_BYTES: usize = 32;
        let mut text = Vec::new();
        while text.len() < NAME_BYTES_MAX {
            let at = address.checked_add(text.len() as u64)?;
            // A piece ends where a page may end.
            let room = PIECE_BYTES - usize::try_from(at % PIECE_BYTES as u64).unwrap_or(0);
            let piece = self.memory.read_vec(at, room).ok()?;
            let end = piece.iter().position(|byte| *byte == 0);
            text.extend_from_slice(piece.get(..end.unwrap_or(room)).unwrap_or_default());
            if end.is_some() {
                let is_name = !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic());
                return String::from_utf8(text).ok().filter(|_| is_name);
            }
        }
        None
    }

    /// The table that a Rust trait object's reference carries, for a value that fits into `block_bytes`.
    pub fn rust_table(&self, address: u64, block_bytes: u64) -> Option<RustTable> {
        if !address.is_multiple_of(8) || !self.is_data(address) {
            return None;
        }
        let [drop, size_bytes, align_bytes, method] = self.memory.read_words(address, 4).ok()?[..] else {
            return None;
        };
        let is_table = (drop == 0 || self.is_code(drop))
            && size_bytes > 0
            && size_bytes <= block_bytes
            && align_bytes.is_power_of_two()
            && align_bytes <= ALIGN_BYTES_MAX
            && size_bytes.is_multiple_of(align_bytes)
            && self.is_code(method);
        is_table.then_some(RustTable { drop, size_bytes, align_bytes })
    }
}
