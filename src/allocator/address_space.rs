//! The address space as an allocator's discovery sees it: modules and what kind of memory an address is in.

use crate::module::Module;
use heaptap_platform::{AddressRange, Mapping, MappingKind, merge_ranges};

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

    /// Whether `address` is in the heap that `brk` grows.
    pub fn is_in_brk_heap(&self, address: u64) -> bool {
        self.mapping(address).is_some_and(|mapping| mapping.kind == MappingKind::Heap)
    }

    /// Whether that heap begins at `address`.
    pub fn starts_brk_heap(&self, address: u64) -> bool {
        self.is_in_brk_heap(address) && self.mapping(address).is_some_and(|map| map.range.start == address)
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

/// Private memory without a file that can be written to, but for what `brk` grows and the first stack; neighbours
/// joined.
pub fn anonymous(mappings: &[Mapping]) -> Vec<AddressRange> {
    let is_anonymous = |mapping: &&Mapping| {
        mapping.is_private_anonymous()
            && mapping.readable
            && mapping.writable
            && !matches!(mapping.kind, MappingKind::Heap | MappingKind::Stack)
    };
    merge_ranges(mappings.iter().filter(is_anonymous).map(|mapping| mapping.range).collect(), 0)
}

/// What is left of `ranges` without `holes`; both in address order without overlaps.
pub fn without(ranges: &[AddressRange], holes: &[AddressRange]) -> Vec<AddressRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut start = range.start;
        let first = holes.partition_point(|hole| hole.end <= range.start);
        for hole in holes.iter().skip(first).take_while(|hole| hole.start < range.end) {
            left.extend(AddressRange::new(start, hole.start).filter(|part| !part.is_empty()));
            start = start.max(hole.end);
        }
        left.extend(AddressRange::new(start, range.end).filter(|part| !part.is_empty()));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_cut_out() {
        let range = |start, end| AddressRange { start, end };
        let left = without(&[range(0, 10), range(20, 30)], &[range(2, 4), range(8, 22), range(29, 40)]);
        assert_eq!(left, [range(0, 2), range(4, 8), range(22, 29)]);
    }
}
