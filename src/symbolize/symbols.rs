//! Symbol tables, for searching by address.

use crate::module::Image;
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SymbolKind};

/// Symbols of one module at most.
const SYMBOLS_MAX: usize = 16_000_000;

/// How far a symbol without a size is believed: what stands further on has a name that the file does not tell.
const UNSIZED_BYTES_MAX: u64 = 512;

/// Functions, or data, of one module by address. Names are as in the file.
#[derive(Debug, Default)]
pub struct SymbolTable {
    entries: Vec<Entry>,
    names: String,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u64,
    /// Behind the last byte; where the table gives no size, a little further on.
    end: u64,
    /// Among symbols of the same address: the higher, the better known the name.
    rank: u8,
    name_start: usize,
    name_len: usize,
}

impl SymbolTable {
    /// The functions of all tables of some files of one module.
    pub fn of<'a>(images: impl IntoIterator<Item = &'a Image>) -> Self {
        Self::of_kinds(images, &[SymbolKind::Text, SymbolKind::Unknown])
    }

    /// The variables, vtables and other constants of all tables of some files of one module.
    pub fn of_data<'a>(images: impl IntoIterator<Item = &'a Image>) -> Self {
        Self::of_kinds(images, &[SymbolKind::Data])
    }

    fn of_kinds<'a>(images: impl IntoIterator<Item = &'a Image>, kinds: &[SymbolKind]) -> Self {
        let mut table = Self::default();
        for image in images {
            if let Ok(file) = ElfFile64::<LittleEndian>::parse(image.bytes()) {
                for symbol in file.symbols().chain(file.dynamic_symbols()) {
                    table.add(&file, &symbol, kinds);
                }
            }
        }
        // Of several names for one address the best known one comes last.
        table.entries.sort_by_key(|entry| (entry.start, entry.rank));
        table
    }

    fn add<'d>(
        &mut self,
        file: &ElfFile64<'d, LittleEndian>,
        symbol: &impl ObjectSymbol<'d>,
        kinds: &[SymbolKind],
    ) {
        if !kinds.contains(&symbol.kind()) || !symbol.is_definition() || self.entries.len() >= SYMBOLS_MAX {
            return;
        }
        let Ok(name) = symbol.name() else { return };
        // Marks of code and data between functions ($x, $d) are no names.
        if name.is_empty() || name.starts_with('$') {
            return;
        }
        let start = symbol.address();
        let stated_end = if symbol.size() > 0 { start.checked_add(symbol.size()) } else { None };
        let Some(end) = stated_end.or_else(|| section_end(file, symbol)) else { return };
        let rank = u8::from(symbol.size() > 0) * 8
            + u8::from(symbol.is_global()) * 4
            + u8::from(!symbol.is_weak()) * 2
            + u8::from(!name.starts_with('_'));
        let name_start = self.names.len();
        self.names.push_str(name);
        self.entries.push(Entry { start, end, rank, name_start, name_len: name.len() });
    }

    /// The symbol of the function that an address lies in.
    pub fn name_at(&self, address: u64) -> Option<&str> {
        self.at(address).map(|(name, _)| name)
    }

    /// The symbol that an address lies in, and how far it is from its start.
    pub fn at(&self, address: u64) -> Option<(&str, u64)> {
        /// Functions may lie in others, as entry points in assembly do: so far is looked back.
        const LOOKS_MAX: usize = 16;
        let after = self.entries.partition_point(|entry| entry.start <= address);
        let before = self.entries.get(..after)?;
        let found = before.iter().rev().take(LOOKS_MAX).find(|entry| address < entry.end)?;
        let name = self.names.get(found.name_start..found.name_start.checked_add(found.name_len)?)?;
        Some((name, address - found.start))
    }
}

fn section_end<'d>(file: &ElfFile64<'d, LittleEndian>, symbol: &impl ObjectSymbol<'d>) -> Option<u64> {
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let end = section.address().checked_add(section.size())?;
    Some(end.min(symbol.address().checked_add(UNSIZED_BYTES_MAX)?))
}
