//! Segments of 1.x and 2.x: aligned pieces of address space that begin with the records of the pages in them.
//!
//! No list names them all. They are found by trying every aligned address of private memory: a segment has the
//! process's secret cookie, mixed with its own address.

use super::layout::{Layout, Places, SegmentFields};
use super::page::Page;
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use heaptap_platform::AddressRange;

/// Alignment of segments in 1.x.
const OLD_ALIGNMENT_BYTES: u64 = 4 << 20;
/// Alignment of segments in 2.x.
const ALIGNMENT_BYTES: u64 = 32 << 20;
/// The unit that pages of 2.x are made of.
const SLICE_BYTES: u64 = 64 << 10;
/// Most records of pages in a segment.
const ENTRIES_MAX: u64 = 1024;
/// Most aligned addresses that are tried.
const TRIES_MAX: usize = 1 << 22;

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// All of it.
    pub range: AddressRange,
    /// What its own record and those of its pages take.
    pub own: AddressRange,
    /// The part of it that is read.
    pub record: AddressRange,
    /// Whether any of its pages is in use; else it waits to be used again.
    pub is_in_use: bool,
    /// Its pages in use.
    pub pages: Vec<Page>,
}

/// Where segments begin if they have the layout.
fn alignment_bytes(places: &Places) -> Option<(u64, &SegmentFields)> {
    match places {
        Places::Segments(fields) => Some((OLD_ALIGNMENT_BYTES, fields)),
        Places::Slices(fields) => Some((ALIGNMENT_BYTES, fields)),
        Places::Map => None,
    }
}

/// All segments in `regions` with the process's `cookie`, in address order, and the addresses of those whose records
/// cannot be read or make no sense.
pub fn all(
    memory: &dyn Memory,
    layout: &Layout,
    cookie: u64,
    regions: &[AddressRange],
) -> (Vec<Segment>, Vec<u64>) {
    let (mut segments, mut broken) = (Vec::new(), Vec::new());
    let Some((alignment_bytes, fields)) = alignment_bytes(&layout.places) else { return (segments, broken) };
    let places = regions.iter().flat_map(|region| {
        let first = region.start.checked_next_multiple_of(alignment_bytes).unwrap_or(region.end);
        let step = usize::try_from(alignment_bytes).unwrap_or(usize::MAX);
        (first..region.end).step_by(step)
    });
    let is_segment = |start: &u64| {
        memory.read_u64(start.wrapping_add(fields.cookie)).is_ok_and(|word| word ^ start == cookie)
    };
    for start in places.take(TRIES_MAX).filter(is_segment) {
        match read(memory, layout, fields, start) {
            Some(segment) => segments.push(segment),
            None => broken.push(start),
        }
    }
    (segments, broken)
}

/// The segment at `start`, if its record can be read and makes sense.
fn read(memory: &dyn Memory, layout: &Layout, fields: &SegmentFields, start: u64) -> Option<Segment> {
    let word = |offset: u64| memory.read_u64(start.wrapping_add(offset)).ok();
    let entries = word(fields.entries)?;
    if entries == 0 || entries > ENTRIES_MAX {
        return None;
    }
    let record = AddressRange::with_len(start, fields.pages + entries * layout.page.bytes)?;
    let (size, own_size) = (word(fields.size)?, word(fields.own_size)?);
    let unit_bytes = if matches!(layout.places, Places::Slices(_)) { SLICE_BYTES } else { 1 };
    let range = AddressRange::with_len(start, size.checked_mul(unit_bytes)?)?;
    let own = AddressRange::with_len(start, own_size.checked_mul(unit_bytes)?)?;
    if own.end > range.end || range.is_empty() {
        return None;
    }
    let is_in_use = word(fields.used)? != 0;
    let mut segment = Segment { range, own, record, is_in_use, pages: Vec::new() };
    if is_in_use {
        let bytes = record_bytes(memory, record)?;
        segment.pages = match layout.places {
            Places::Slices(_) => pages_of_slices(layout, fields, &segment, &bytes, own_size, entries),
            _ => pages_of_one_size(layout, fields, &segment, &bytes, entries),
        };
    }
    Some(segment)
}

/// A segment's record. Records of pages that never were in use may lie in memory that never was written to.
fn record_bytes(memory: &dyn Memory, record: AddressRange) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(record.len_bytes()).ok()?];
    for present in memory.present(record) {
        let start = usize::try_from(present.start - record.start).ok()?;
        let end = usize::try_from(present.end - record.start).ok()?;
        memory.read(present.start, bytes.get_mut(start..end)?).ok()?;
    }
    Some(bytes)
}

/// 2.x: a span of slices has its record where the first of them has its own.
fn pages_of_slices(
    layout: &Layout,
    fields: &SegmentFields,
    segment: &Segment,
    bytes: &[u8],
    own_slices: u64,
    entries: u64,
) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut index = own_slices;
    while index < entries {
        let offset = fields.pages + index * layout.page.bytes;
        let Some(record) = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)) else { break };
        let slices = u64::from(u32_at(record, 0).unwrap_or(0)).max(1);
        let start = segment.range.start.saturating_add(index * SLICE_BYTES).min(segment.range.end);
        let end = start.saturating_add(slices * SLICE_BYTES).min(segment.range.end);
        let area = AddressRange { start, end };
        pages.extend(Page::parse(layout, segment.range.start + offset, record, area));
        index += slices;
    }
    pages
}

/// 1.x: pages of equal size, the first of them shortened by the segment's record.
fn pages_of_one_size(
    layout: &Layout,
    fields: &SegmentFields,
    segment: &Segment,
    bytes: &[u8],
    entries: u64,
) -> Vec<Page> {
    const HUGE: u32 = 3;
    const IN_USE: u8 = 1;
    let field = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let shift = u64_at(bytes, field(fields.page_shift)).unwrap_or(0);
    let is_huge = u32_at(bytes, field(fields.kind)).is_some_and(|kind| kind >= HUGE);
    let page_bytes = if is_huge || shift > 40 { segment.range.len_bytes() } else { 1 << shift };
    let mut pages = Vec::new();
    for index in 0..entries {
        let offset = fields.pages + index * layout.page.bytes;
        let Some(record) = bytes.get(field(offset)..) else { break };
        if record.get(1).is_none_or(|flags| flags & IN_USE == 0) {
            continue;
        }
        let Some(start) =
            page_bytes.checked_mul(index).and_then(|bytes| segment.range.start.checked_add(bytes))
        else {
            break;
        };
        let end = start.saturating_add(page_bytes).min(segment.range.end);
        let area = AddressRange { start: start.max(segment.own.end).min(end), end };
        pages.extend(Page::parse(layout, segment.range.start + offset, record, area));
    }
    pages
}
