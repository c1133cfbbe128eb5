//! Words that the loader changes when it maps a module: those that point into the module itself.
//!
//! Formats: System V ABI, "Relocation", with the supplements for x86-64 and aarch64; the packed form (`.relr.dyn`) as the
//! generic ABI has it. Words that point into other modules are not told.

use super::Image;
use crate::memory::words;
use object::elf;
use object::{Object, ObjectSymbol, ObjectSymbolTable, RelocationFlags, RelocationTarget};

/// Relocations of one module at most.
const RELOCATIONS_MAX: usize = 16_000_000;

/// The words of `image` that a loader changes, in address order: their addresses in the file, and what they hold without the
/// bias that is added to it.
pub fn relocations(image: &Image) -> Vec<(u64, u64)> {
    let mut all = packed(image);
    all.extend(listed(image));
    all.sort_unstable();
    all.dedup_by_key(|(address, _)| *address);
    all
}

fn listed(image: &Image) -> Vec<(u64, u64)> {
    let Some(file) = image.parsed() else { return Vec::new() };
    let Some(relocations) = file.dynamic_relocations() else { return Vec::new() };
    let symbols = file.dynamic_symbol_table();
    let value = |relocation: &object::Relocation| {
        let RelocationFlags::Elf { r_type } = relocation.flags() else { return None };
        let addend = relocation.addend().cast_unsigned();
        match (r_type, relocation.target()) {
            (elf::R_X86_64_RELATIVE | elf::R_AARCH64_RELATIVE, _) => Some(addend),
            (elf::R_X86_64_64 | elf::R_AARCH64_ABS64, RelocationTarget::Symbol(index)) => {
                let symbol = symbols.as_ref()?.symbol_by_index(index).ok()?;
                symbol.is_definition().then(|| symbol.address().wrapping_add(addend))
            }
            _ => None,
        }
    };
    relocations
        .take(RELOCATIONS_MAX)
        .filter_map(|(address, relocation)| Some((address, value(&relocation)?)))
        .collect()
}

/// The packed relocations: the words themselves hold what is to be added to.
fn packed(image: &Image) -> Vec<(u64, u64)> {
    const BITS: u64 = 63;
    let Some(section) = image.section(".relr.dyn", 1 << 28) else { return Vec::new() };
    let mut all = Vec::new();
    let mut push = |address: u64| {
        let word = image.loaded_bytes(address, 8).and_then(|word| word.try_into().ok());
        if let Some(word) = word.filter(|_| all.len() < RELOCATIONS_MAX) {
            all.push((address, u64::from_le_bytes(word)));
        }
    };
    let mut next = 0_u64;
    for entry in words(&section) {
        if entry & 1 == 0 {
            push(entry);
            next = entry.wrapping_add(8);
            continue;
        }
        (0..BITS).filter(|bit| entry >> (bit + 1) & 1 == 1).for_each(|bit| push(next.wrapping_add(bit * 8)));
        next = next.wrapping_add(BITS * 8);
    }
    all
}
