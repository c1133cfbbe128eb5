//! The page map of 3.x: two levels that lead from an address to the record of the page that holds it.

use super::layout::Layout;
use super::page::Page;
use crate::allocator::{AddressSpace, Data};
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::{AddressRange, merge_ranges};

/// The unit that pages are made of.
const SLICE_BYTES: u64 = 64 << 10;
/// Slices that one part of the map stands for.
const PART_SLICES: u64 = 1 << 13;
/// Address space that one part of the map stands for.
const PART_SPAN_BYTES: u64 = PART_SLICES * SLICE_BYTES;
/// Most parts that are looked at.
const PARTS_MAX: usize = 1 << 18;

/// What the map shows of some address space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Pages in use.
    pub pages: Vec<Page>,
    /// Records that cannot be those of a page, or cannot be read: where, and of which address space.
    pub broken: Vec<(u64, AddressRange)>,
    /// What was read of the map, and the records of the pages.
    pub records: Vec<AddressRange>,
}

/// All pages in `regions`, in address order.
pub fn all(memory: &dyn Memory, layout: &Layout, root: u64, regions: &[AddressRange]) -> Mapped {
    let mut mapped = Mapped::default();
    let mut spans: Vec<(u64, AddressRange)> = Vec::new();
    for (part, range) in parts(regions).take(PARTS_MAX) {
        let entry = root.wrapping_add(part * 8);
        let Ok(table) = memory.read_u64(entry) else { continue };
        if table == 0 || !table.is_multiple_of(8) {
            continue;
        }
        mapped.records.extend(AddressRange::with_len(entry, 8));
        let first = (range.start - part * PART_SPAN_BYTES) / SLICE_BYTES;
        let count = range.len_bytes() / SLICE_BYTES;
        let Some(entries) = AddressRange::with_len(table.wrapping_add(first * 8), count * 8) else {
            continue;
        };
        mapped.records.push(entries);
        let bytes = memory.read_vec_sparse(entries.start, usize::try_from(entries.len_bytes()).unwrap_or(0));
        for (record, slice) in words(&bytes).zip((range.start..).step_by(SLICE_BYTES as usize)) {
            if record == 0 {
                continue;
            }
            let end = slice + SLICE_BYTES;
            match spans.last_mut() {
                Some((last, span)) if *last == record && span.end == slice => span.end = end,
                _ => spans.push((record, AddressRange { start: slice, end })),
            }
        }
    }
    for (record, span) in spans {
        match read(memory, layout, record, span) {
            Ok(page) => mapped.pages.extend(page),
            Err(()) => mapped.broken.push((record, span)),
        }
        mapped.records.extend(AddressRange::with_len(record, layout.page.bytes));
    }
    mapped
}

/// The page of a record; none where it is not in use.
fn read(memory: &dyn Memory, layout: &Layout, record: u64, span: AddressRange) -> Result<Option<Page>, ()> {
    if !record.is_multiple_of(8) {
        return Err(());
    }
    let len_bytes = usize::try_from(layout.page.bytes).map_err(drop)?;
    let bytes = memory.read_vec(record, len_bytes).map_err(drop)?;
    let Some(mut page) = Page::parse(layout, record, &bytes, span) else { return Ok(None) };
    // The map need not have the last slices of a page.
    let end = page.reserved.checked_mul(page.block_bytes).and_then(|bytes| bytes.checked_add(page.start));
    page.area.end = page.area.end.max(end.ok_or(())?.checked_next_multiple_of(SLICE_BYTES).ok_or(())?);
    Ok(Some(page))
}

/// The parts of the map that stand for `regions`, with what of it, in whole slices: a page that cannot be read may end a
/// slice.
fn parts(regions: &[AddressRange]) -> impl Iterator<Item = (u64, AddressRange)> {
    let slices = regions.iter().map(|region| region.page_aligned(SLICE_BYTES)).collect();
    merge_ranges(slices, 0).into_iter().flat_map(|range| {
        let parts = range.start / PART_SPAN_BYTES..range.end.div_ceil(PART_SPAN_BYTES);
        parts.map(move |part| {
            let whole = AddressRange { start: part * PART_SPAN_BYTES, end: (part + 1) * PART_SPAN_BYTES };
            (part, AddressRange { start: whole.start.max(range.start), end: whole.end.min(range.end) })
        })
    })
}

/// Words of a module's data that may be the root of a map: what they point to has entries for some of `regions`.
pub fn roots(
    data: &Data,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    regions: &[AddressRange],
) -> Vec<(u64, u64)> {
    const PAGE_BYTES: u64 = 4096;
    let used: Vec<u64> = parts(regions).map(|(part, _)| part).take(PARTS_MAX).collect();
    let is_table = |table: u64| table != 0 && table.is_multiple_of(PAGE_BYTES) && space.holds_records(table);
    let is_root = |root: u64| {
        root.is_multiple_of(PAGE_BYTES)
            && space.holds_records(root)
            && space.mapping(root).is_some_and(|mapping| mapping.is_private_anonymous())
            && used.iter().any(|part| {
                let entry = root.wrapping_add(part * 8);
                space.holds_records(entry) && memory.read_u64(entry).is_ok_and(is_table)
            })
    };
    let mut roots: Vec<(u64, u64)> = data.words().filter(|(_, word)| is_root(*word)).collect();
    // More than one word may lead to the same map.
    roots.sort_by_key(|(_, root)| *root);
    roots.dedup_by_key(|(_, root)| *root);
    roots
}
