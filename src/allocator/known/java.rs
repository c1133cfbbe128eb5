//! The Java heap: its bounds as its virtual machine describes them to debuggers, in `gHotSpotVMStructs` (`runtime/vmStructs.hpp`).

use super::KnownHeap;
use crate::memory::{Memory, MemoryExt};
use crate::module::{Module, Symbol};
use heaptap_platform::AddressRange;

/// Most entries of the description.
const ENTRIES_MAX: u64 = 1 << 14;
/// Longest name of a type or field.
const NAME_BYTES_MAX: usize = 64;

/// The virtual machine's library.
pub fn find(module: &Module, memory: &dyn Memory) -> Option<KnownHeap> {
    if !module.name().starts_with("libjvm") {
        return None;
    }
    let symbols = module.symbols();
    let structs = Description::read(module, memory, &symbols);
    let heap = structs.as_ref().and_then(|structs| structs.heap(memory));
    let code = structs.as_ref().and_then(|structs| structs.code(memory));
    let evidence = match (&heap, &code) {
        (Some(_), Some(_)) => "the Java heap and its code by the description for debuggers",
        (Some(_), None) => "the Java heap by the description for debuggers",
        _ => "known by its library; the description for debuggers does not tell where the heap is",
    };
    let regions = heap.into_iter().chain(code).collect();
    Some(KnownHeap::new("Java heap", "java_heap", module, evidence.to_owned(), regions))
}

/// What the library tells of its own structures: an array of entries whose fields lie where symbols say.
struct Description<'a> {
    module: &'a Module,
    memory: &'a dyn Memory,
    first: u64,
    stride: u64,
    type_name: u64,
    field_name: u64,
    offset: u64,
    address: u64,
}

impl<'a> Description<'a> {
    fn read(module: &'a Module, memory: &'a dyn Memory, symbols: &[Symbol]) -> Option<Self> {
        let word = |name: &str| {
            let symbol = symbols.iter().find(|symbol| symbol.name == name)?;
            memory.read_u64(symbol.address).ok()
        };
        Some(Self {
            module,
            memory,
            first: word("gHotSpotVMStructs")?,
            stride: word("gHotSpotVMStructEntryArrayStride").filter(|stride| (8..=256).contains(stride))?,
            type_name: word("gHotSpotVMStructEntryTypeNameOffset")?,
            field_name: word("gHotSpotVMStructEntryFieldNameOffset")?,
            offset: word("gHotSpotVMStructEntryOffsetOffset")?,
            address: word("gHotSpotVMStructEntryAddressOffset")?,
        })
    }

    /// A text of the library: from its file, since the target may never have touched it.
    fn text(&self, address: u64) -> Option<String> {
        let image = self.module.image.as_ref()?;
        let at = address.checked_sub(self.module.bias)?;
        let parts = image.read_only();
        let (start, bytes) =
            parts.iter().find(|(start, bytes)| at >= *start && at - start < bytes.len() as u64)?;
        let rest = bytes.get(usize::try_from(at - start).ok()?..)?;
        let end = rest.iter().take(NAME_BYTES_MAX).position(|byte| *byte == 0)?;
        String::from_utf8(rest.get(..end)?.to_vec()).ok()
    }

    /// The entry of a type's field: its offset, and its address if it is static.
    fn field(&self, type_name: &str, field_name: &str) -> Option<(u64, u64)> {
        for index in 0..ENTRIES_MAX {
            let entry = self.first.checked_add(index * self.stride)?;
            let word = |at: u64| self.memory.read_u64(entry.wrapping_add(at)).ok();
            let names = (word(self.type_name)?, word(self.field_name)?);
            if names.0 == 0 {
                return None;
            }
            if self.text(names.0).as_deref() == Some(type_name)
                && self.text(names.1).as_deref() == Some(field_name)
            {
                return Some((word(self.offset)?, word(self.address)?));
            }
        }
        None
    }

    fn heap(&self, memory: &dyn Memory) -> Option<AddressRange> {
        let (_, collected) = self.field("Universe", "_collectedHeap")?;
        let heap = memory.read_u64(collected).ok()?;
        let reserved = heap.checked_add(self.field("CollectedHeap", "_reserved")?.0)?;
        let start = memory.read_u64(reserved.checked_add(self.field("MemRegion", "_start")?.0)?).ok()?;
        let words = memory.read_u64(reserved.checked_add(self.field("MemRegion", "_word_size")?.0)?).ok()?;
        AddressRange::with_len(start, words.checked_mul(8)?).filter(|range| !range.is_empty())
    }

    fn code(&self, memory: &dyn Memory) -> Option<AddressRange> {
        let bound = |name: &str| memory.read_u64(self.field("CodeCache", name)?.1).ok();
        AddressRange::new(bound("_low_bound")?, bound("_high_bound")?).filter(|range| !range.is_empty())
    }
}
