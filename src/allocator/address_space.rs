//! The address space as an allocator's discovery sees it: modules and what kind of memory an address is in.

use crate::module::Module;
use heaptap_platform::{AddressRange, Mapping};

/// Modules and mappings of a target.
#[derive(Debug, Clone, Copy)]
pub struct AddressSpace<'a> {
    /// Loaded ELF files.
    pub modules: &'a [Module],
    /// All mappings in address order.
    pub mappings: &'a [Mapping],
}

impl AddressSpace<'_> {
    /// The mapping that holds `address`.
    pub fn mapping(&self, address: u64) -> Option<&Mapping> {
        let index = self.mappings.partition_point(|mapping| mapping.range.end <= address);
        self.mappings.get(index).filter(|mapping| mapping.range.contains(address))
    }

    /// Whether an allocator's own records may lie at `address`: private memory that can be written to.
    pub fn holds_records(&self, address: u64) -> bool {
        self.mapping(address).is_some_and(|mapping| mapping.writable && mapping.readable && !mapping.shared)
    }

    /// The mapped parts of `range`.
    pub fn mapped(&self, range: AddressRange) -> Vec<AddressRange> {
        let first = self.mappings.partition_point(|mapping| mapping.range.end <= range.start);
        self.mappings
            .iter()
            .skip(first)
            .take_while(|mapping| mapping.range.start < range.end)
            .filter_map(|mapping| mapping.range.intersection(&range))
            .collect()
    }
}
