//! Spans: runs of whole pages, in use for objects of one class or for one large object, or free.

use super::layout::span;
use super::page_map::PageMap;
use crate::allocator::Anomalies;
use crate::memory::{Memory, MemoryExt, u16_at, u64_at};
use heaptap_platform::{AddressRange, merge_ranges};
use std::collections::HashMap;

/// Gaps between records that are cheaper to read than to skip.
const GAP_BYTES_MAX: u64 = 4096;

/// What a span is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// Handed out.
    InUse,
    /// Free, its pages kept.
    Normal,
    /// Free, its pages given back.
    Returned,
}

/// One span's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where the record is.
    pub record: u64,
    /// Number of its first page.
    pub start: u64,
    /// Pages.
    pub length: u64,
    /// The first free object, if it is for small ones.
    pub objects: u64,
    /// Small objects handed out, also those in caches.
    pub references: u64,
    /// The size class; 0 for one large object.
    pub class: u64,
    /// What it is for.
    pub location: Location,
}

impl Span {
    /// The record in `bytes`, read at `record`; `None` if it is none.
    pub fn parse(record: u64, bytes: &[u8]) -> Option<Self> {
        let location = match bytes.get(span::LOCATION)? & 3 {
            0 => Location::InUse,
            1 => Location::Normal,
            2 => Location::Returned,
            _ => return None,
        };
        Some(Self {
            record,
            start: u64_at(bytes, span::START)?,
            length: u64_at(bytes, span::LENGTH)?,
            objects: u64_at(bytes, span::OBJECTS)?,
            references: u64::from(u16_at(bytes, span::REFERENCES)?),
            class: u64::from(*bytes.get(span::CLASS)?),
            location,
        })
    }

    /// The record at `address`.
    pub fn read(memory: &dyn Memory, address: u64) -> Option<Self> {
        Self::parse(address, &memory.read_vec(address, usize::try_from(span::BYTES).ok()?).ok()?)
    }

    /// Whether it holds small objects.
    pub const fn is_small(&self) -> bool {
        matches!(self.location, Location::InUse) && self.class != 0
    }

    /// Its pages.
    pub fn range(&self, page_shift: u32) -> AddressRange {
        let start = self.start << page_shift;
        AddressRange { start, end: start.saturating_add(self.length << page_shift) }
    }
}

/// All spans of a moment in address order.
#[derive(Debug, Default)]
pub struct Spans {
    /// The spans.
    pub list: Vec<Span>,
    /// Binary logarithm of a page's bytes.
    pub page_shift: u32,
    /// Places where the page map names a span that is none.
    pub broken: u64,
    /// Records, also those that only stale entries name.
    pub records: Vec<AddressRange>,
}

impl Spans {
    /// Reads all that the page map names. Inside of a span its entries may be stale; spans tile what the allocator has,
    /// so each begins where the one before ends or behind a gap.
    pub fn gather(memory: &dyn Memory, page_map: &PageMap, anomalies: &mut Anomalies) -> Self {
        let entries = page_map.entries(memory);
        let records = records(entries.iter().map(|(_, record)| *record));
        let all = read_all(memory, &records, entries.iter().map(|(_, record)| *record));
        let mut spans = Self { page_shift: page_map.geometry.page_shift, records, ..Self::default() };
        let page_max = (1 << 48) >> spans.page_shift;
        let mut behind = 0;
        for (page, record) in &entries {
            if *page < behind {
                continue;
            }
            let span = all.get(record).filter(|span| {
                span.start == *page && span.length > 0 && span.length <= page_max - span.start.min(page_max)
            });
            let Some(span) = span else {
                spans.broken += 1;
                anomalies.add(*record, "the page map names a span that does not begin there");
                continue;
            };
            behind = page + span.length;
            let last = entries.binary_search_by_key(&(behind - 1), |(page, _)| *page).ok();
            if last.and_then(|last| entries.get(last)).is_none_or(|(_, last)| last != record) {
                spans.broken += 1;
                anomalies.add(*record, "the page map names another span for the last page of one");
                continue;
            }
            spans.list.push(*span);
        }
        spans
    }

    /// The span that holds `address`, by its place in the list.
    pub fn holding(&self, address: u64) -> Option<usize> {
        let page = address >> self.page_shift;
        let at = self.list.partition_point(|span| span.start <= page).checked_sub(1)?;
        self.list.get(at).filter(|span| page - span.start < span.length).map(|_| at)
    }
}

fn records(addresses: impl Iterator<Item = u64>) -> Vec<AddressRange> {
    let mut all: Vec<u64> = addresses.filter(|address| address.is_multiple_of(8)).collect();
    all.sort_unstable();
    all.dedup();
    let ranges = all.into_iter().filter_map(|address| AddressRange::with_len(address, span::BYTES));
    merge_ranges(ranges.collect(), GAP_BYTES_MAX)
}

/// The records at `addresses`, read in pieces that lie close together.
fn read_all(
    memory: &dyn Memory,
    ranges: &[AddressRange],
    addresses: impl Iterator<Item = u64>,
) -> HashMap<u64, Span> {
    let read = |range: &AddressRange| {
        let len_bytes = usize::try_from(range.len_bytes()).ok()?;
        Some((range.start, memory.read_vec(range.start, len_bytes).ok()?))
    };
    let pieces: Vec<(u64, Vec<u8>)> = ranges.iter().filter_map(read).collect();
    let mut all = HashMap::new();
    for address in addresses {
        all.entry(address).or_insert_with(|| {
            let at = pieces.partition_point(|(start, _)| *start <= address).checked_sub(1);
            let within = at.and_then(|at| pieces.get(at)).and_then(|(start, bytes)| {
                let bytes = bytes.get(usize::try_from(address - start).ok()?..)?;
                Span::parse(address, bytes)
            });
            // A hole in the middle of a piece costs the whole of it.
            within.or_else(|| Span::read(memory, address))
        });
    }
    all.into_iter().filter_map(|(address, span)| Some((address, span?))).collect()
}
