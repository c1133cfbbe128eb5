//! Half-open ranges of addresses in a process.

use std::fmt;

/// Addresses from `start` up to, but not including, `end`. Sorted by `start`, then by `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AddressRange {
    /// First address in the range.
    pub start: u64,
    /// First address after the range.
    pub end: u64,
}

impl AddressRange {
    /// The range from `start` to `end`, or `None` where `end` lies before `start`.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// The range of `len_bytes` from `start`, or `None` where that passes the end of the address space.
    pub const fn with_len(start: u64, len_bytes: u64) -> Option<Self> {
        match start.checked_add(len_bytes) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// Number of addresses in the range; 0 also for a range whose end lies before its start.
    pub const fn len_bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the range holds no address.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Whether `address` lies in the range.
    pub const fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether every address of `other` lies in this range. An empty range is contained in every range.
    pub const fn contains_range(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The addresses that lie in both ranges, or `None` where there are none.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let common = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (!common.is_empty()).then_some(common)
    }

    /// The smallest range of whole pages around this one. `page_size_bytes` must be a power of two. The end saturates
    /// at the last page boundary of the address space.
    pub const fn page_aligned(&self, page_size_bytes: u64) -> Self {
        let mask = !(page_size_bytes.wrapping_sub(1));
        let end = match self.end.checked_add(page_size_bytes.wrapping_sub(1)) {
            Some(end) => end & mask,
            None => mask,
        };
        Self { start: self.start & mask, end }
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}-{:#x}", self.start, self.end)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// The given ranges in ascending order, with ranges that overlap, touch or lie at most `gap_bytes_max` apart joined
/// into one. Empty ranges are dropped. Addresses in a joined gap belong to the result though no input had them.
pub fn merge_ranges(mut ranges: Vec<AddressRange>, gap_bytes_max: u64) -> Vec<AddressRange> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable();
    let mut merged: Vec<AddressRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap_bytes_max) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> AddressRange {
        AddressRange::new(start, end).unwrap()
    }

    #[test]
    fn reversed_ends_are_refused() {
        assert_eq!(AddressRange::new(2, 1), None);
        assert_eq!(AddressRange::with_len(u64::MAX, 1), None);
        assert!(AddressRange::new(5, 5).unwrap().is_empty());
    }

    #[test]
    fn page_alignment_grows_outwards_and_saturates() {
        assert_eq!(range(0x1001, 0x1002).page_aligned(0x1000), range(0x1000, 0x2000));
        assert_eq!(range(0x1000, 0x2000).page_aligned(0x1000), range(0x1000, 0x2000));
        assert_eq!(range(0, u64::MAX).page_aligned(0x1000).end, 0xffff_ffff_ffff_f000);
    }

    proptest! {
        #[test]
        fn merging_without_a_gap_keeps_exactly_the_same_addresses(
            inputs in prop::collection::vec((0u64..200, 0u64..40), 0..20)
        ) {
            let ranges: Vec<_> = inputs.iter().map(|&(start, len)| range(start, start + len)).collect();
            let merged = merge_ranges(ranges.clone(), 0);
            for address in 0..260 {
                let before = ranges.iter().any(|range| range.contains(address));
                let after = merged.iter().any(|range| range.contains(address));
                prop_assert_eq!(before, after);
            }
            prop_assert!(merged.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn merged_ranges_lie_further_apart_than_the_gap(
            inputs in prop::collection::vec((0u64..2000, 1u64..40), 0..20), gap in 0u64..100
        ) {
            let ranges: Vec<_> = inputs.iter().map(|&(start, len)| range(start, start + len)).collect();
            let merged = merge_ranges(ranges.clone(), gap);
            prop_assert!(merged.windows(2).all(|pair| pair[1].start - pair[0].end > gap));
            prop_assert!(ranges.iter().all(|range| merged.iter().any(|whole| whole.contains_range(range))));
        }
    }
}
