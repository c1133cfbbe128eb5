//! Reading a heap around a stop: most of it while the target runs, before and after, and in the stop only what
//! is most likely to change.
//!
//! A page whose records are the same before and after the stop had them in the stop as well; a page read in the stop
//! needs no such proof. What remains, pages that changed in between and were not read in the stop, is doubtful, and
//! whoever reads the capture is told so. What lies between an allocator's records is its users': it may change freely.

use super::window::read;
use super::{CapturedMemory, LiveMemory, Moments, holds};
use crate::allocator::records::{PAGE_BYTES, PageRecords, RecordMap};
use crate::allocator::{Allocator, ThreadPointer};
use crate::memory::Memory;
use heaptap_platform::{AddressRange, BulkRead, merge_ranges};

/// Bytes read at a time from the running target: longer reads would hold its address space's lock for longer.
const STEP_BYTES: u64 = 1 << 20;

/// Reads beyond the second, at most.
const FURTHER_READS_MAX: usize = 4;

/// Among so many pages with records one may change where nothing did before.
const PAGES_PER_UNEXPECTED_MIN: usize = 4000;

/// A heap that was read before the stop.
#[derive(Debug)]
pub(super) struct Preread {
    memory: CapturedMemory,
    /// Pages to be read in the stop as far as there is time, the most likely to change first.
    wishes: Vec<Vec<AddressRange>>,
}

impl Preread {
    /// Reads `bulk` twice, to see what changes quickly, and again as long as much of that is new: what it is worth to read
    /// in the stop shows the better the longer one looks.
    pub(super) fn of(
        live: &LiveMemory,
        bulk: &[AddressRange],
        allocators: &[&dyn Allocator],
        threads: &[ThreadPointer],
        essentials: &[AddressRange],
    ) -> Self {
        let mut memory = CapturedMemory::default();
        let present = live.present_of(bulk);
        read(live, &present, &mut memory, None, &mut Vec::new());
        let mut records = records(allocators, &memory, live, threads);
        let mut changed = changed(live, &records, &mut memory, true);
        for _ in 0..FURTHER_READS_MAX {
            let expected = neighbourhoods(&changed);
            records = self::records(allocators, &memory, live, threads);
            let further = self::changed(live, &records, &mut memory, true);
            let unexpected = further.iter().filter(|page| !holds(&expected, page.page)).count();
            changed.extend(further);
            changed.sort_unstable_by_key(|page| page.page);
            changed.dedup_by_key(|page| page.page);
            if unexpected.saturating_mul(PAGES_PER_UNEXPECTED_MIN) <= records.len() {
                break;
            }
        }
        let essential: Vec<AddressRange> =
            essentials.iter().map(|range| range.page_aligned(PAGE_BYTES)).collect();
        let mut known = merge_ranges(essential, 0);
        let mut wishes = Vec::new();
        let groups = [ranges(&changed), neighbourhoods(&changed), ranges(&linked(&records))];
        for group in groups {
            wishes.push(without(&group, &known));
            known = merge_ranges([known, group].concat(), 0);
        }
        Self { memory, wishes }
    }

    /// Bytes that the stop shall read at most beyond what it must.
    pub(super) fn wished_bytes(&self) -> u64 {
        self.wishes.iter().flatten().map(AddressRange::len_bytes).sum()
    }

    /// What the stop shall read, in groups of which the earlier matter more.
    pub(super) fn wishes(&self) -> &[Vec<AddressRange>] {
        &self.wishes
    }

    /// What of `range` was not there to be read before.
    pub(super) fn gaps(&self, range: AddressRange) -> Vec<AddressRange> {
        self.memory.gaps(range)
    }

    /// Puts together what was read before and in the stop, and compares with what is there now.
    pub(super) fn complete(
        self,
        live: &LiveMemory,
        fresh: &CapturedMemory,
        allocators: &[&dyn Allocator],
        threads: &[ThreadPointer],
    ) -> CapturedMemory {
        let mut memory = self.memory;
        memory.absorb(fresh);
        memory.anonymous.clone_from(&fresh.anonymous);
        let mut records = records(allocators, &memory, live, threads);
        records.retain(|page| !fresh.gaps(page.range()).is_empty());
        let changed = changed(live, &records, &mut memory, false);
        let doubtful = ranges(&changed);
        memory.preread = Some(Moments { doubtful, stopped: fresh.ranges() });
        memory
    }
}

fn ranges(pages: &[PageRecords]) -> Vec<AddressRange> {
    merge_ranges(pages.iter().map(PageRecords::range).collect(), 0)
}

/// What lies around pages that changed: where something changes, more does, also in pages that had no records yet, and
/// what changes back and forth looks the same half of the time.
fn neighbourhoods(changed: &[PageRecords]) -> Vec<AddressRange> {
    const NEIGHBOURHOOD_BYTES: u64 = 256 << 10;
    let around = |page: &PageRecords| page.range().page_aligned(NEIGHBOURHOOD_BYTES);
    merge_ranges(changed.iter().map(around).collect(), 0)
}

fn linked(records: &[PageRecords]) -> Vec<PageRecords> {
    records.iter().filter(|page| page.has_links).copied().collect()
}

fn records(
    allocators: &[&dyn Allocator],
    memory: &CapturedMemory,
    live: &LiveMemory,
    threads: &[ThreadPointer],
) -> Vec<PageRecords> {
    let overlay = super::window::Overlay { captured: memory, live, until: None };
    let mut map = RecordMap::default();
    allocators.iter().for_each(|allocator| map.extend(allocator.records(&overlay, threads)));
    map.into_pages()
}

/// The pages whose records differ between `memory` and the target as it is now; `memory` is brought up to date if
/// `takes_over`.
fn changed(
    live: &LiveMemory,
    records: &[PageRecords],
    memory: &mut CapturedMemory,
    takes_over: bool,
) -> Vec<PageRecords> {
    let pages = merge_ranges(records.iter().map(PageRecords::range).collect(), PAGE_BYTES);
    let mut changed = Vec::new();
    let mut scratch = Vec::new();
    for range in live.present_of(&pages) {
        let mut start = range.start;
        while start < range.end {
            let piece = AddressRange { start, end: range.end.min(start + STEP_BYTES) };
            start = piece.end;
            scratch.resize(usize::try_from(piece.len_bytes()).unwrap_or(0), 0);
            let mut outcome = BulkRead::default();
            let read = live.process().read_ranges(&[piece], &mut scratch, None, &mut outcome);
            if read.is_err() || !outcome.holes.is_empty() {
                continue;
            }
            let first = records.partition_point(|page| page.page < piece.start);
            for page in records.iter().skip(first).take_while(|page| page.page < piece.end) {
                let offset = usize::try_from(page.page - piece.start).unwrap_or(0);
                let now = scratch.get(offset..offset + 4096).unwrap_or_default();
                if memory.slice(page.page, 4096).is_none_or(|before| !page.agree(before, now)) {
                    changed.push(*page);
                }
            }
            if takes_over {
                memory.overwrite(piece.start, &scratch);
            }
        }
    }
    changed
}

/// What is left of `ranges` without `holes`; both in address order without overlaps.
fn without(ranges: &[AddressRange], holes: &[AddressRange]) -> Vec<AddressRange> {
    crate::allocator::address_space::without(ranges, holes)
}
