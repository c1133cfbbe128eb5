//! What of a process can be read. Which of its pages are in memory no call of the system tells; it only counts them, mapping by
//! mapping.

use super::tracing::Tracing;
use crate::format::freebsd_kinfo::VmEntry;
use crate::{AddressRange, PageRun, PageState, ReadError, merge_ranges};
use std::sync::Arc;

/// What shall be known of each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageDetail {
    /// Whether it can be read.
    Kind,
    /// The same: the system tells no more.
    Exclusivity,
}

/// The mappings of a process.
#[derive(Debug)]
pub struct PageTable {
    tracing: Arc<Tracing>,
    page_size_bytes: u64,
    entries: Vec<VmEntry>,
    /// What can be read, in ascending order, as far as is known.
    readable: Vec<AddressRange>,
    /// The stop in which that was last asked.
    asked_in: u64,
}

impl PageTable {
    pub(super) fn new(tracing: Arc<Tracing>, entries: Vec<VmEntry>) -> Self {
        let readable = entries.iter().filter(|entry| entry.is_memory).map(|entry| entry.mapping.range);
        Self {
            tracing,
            page_size_bytes: super::page_size_bytes(),
            readable: merge_ranges(readable.collect(), 0),
            entries,
            asked_in: 0,
        }
    }

    /// Whether it is known of each page whether it is in memory. It is not: [`PageTable::resident_bytes`] counts instead.
    pub const fn tells_pages(&self) -> bool {
        false
    }

    /// Whether anything in `range` is mapped that can be read.
    pub fn may_be_mapped(&mut self, range: AddressRange) -> bool {
        self.learn_in_stop();
        let first = self.readable.partition_point(|readable| readable.end <= range.start);
        self.readable.get(first).is_some_and(|readable| readable.start < range.end)
    }

    /// Bytes of the mapping at `range` that are in memory by the kernel's count, or `None` where there was no such mapping.
    pub fn resident_bytes(&self, range: AddressRange) -> Option<u64> {
        let found = self.entries.iter().find(|entry| entry.mapping.range == range)?;
        let bytes = found.resident_pages.saturating_mul(self.page_size_bytes);
        Some(bytes.min(range.len_bytes()))
    }

    /// Gives each run of pages of `range` that can be read to `sink`, in ascending order.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn present_ranges(
        &mut self,
        range: AddressRange,
        sink: &mut impl FnMut(PageRun),
    ) -> Result<(), ReadError> {
        self.page_states(range, PageDetail::Kind).try_for_each(|run| run.map(&mut *sink))
    }

    /// The runs of pages in `range` that can be read, in ascending order. `range` is widened to whole pages.
    pub fn page_states(&mut self, range: AddressRange, _detail: PageDetail) -> PageRuns<'_> {
        let whole = range.page_aligned(self.page_size_bytes);
        self.learn(whole);
        let first = self.readable.partition_point(|readable| readable.end <= whole.start);
        PageRuns { whole, rest: self.readable.get(first..).unwrap_or_default() }
    }

    /// Asks anew where `range` is not all known: it may have been mapped since.
    fn learn(&mut self, range: AddressRange) {
        let first = self.readable.partition_point(|readable| readable.end <= range.start);
        if !self.readable.get(first).is_some_and(|readable| readable.contains_range(&range)) {
            self.learn_in_stop();
        }
    }

    /// Asks anew, once in a stop.
    fn learn_in_stop(&mut self) {
        let (number, lasts) = self.tracing.stop_number();
        if !lasts || number == self.asked_in {
            return;
        }
        self.asked_in = number;
        if let Some(ranges) = self.tracing.readable_mappings() {
            // What is known not to be memory stays so.
            let refused =
                self.entries.iter().filter(|entry| !entry.is_memory).map(|entry| entry.mapping.range);
            let refused: Vec<AddressRange> = refused.collect();
            let is_refused =
                |range: &AddressRange| refused.iter().any(|refused| refused.contains_range(range));
            let all = ranges.into_iter().filter(|range| !is_refused(range)).collect();
            self.readable = merge_ranges(all, 0);
        }
    }
}

/// Runs of pages: see [`PageTable::page_states`].
#[derive(Debug)]
pub struct PageRuns<'a> {
    whole: AddressRange,
    rest: &'a [AddressRange],
}

impl Iterator for PageRuns<'_> {
    type Item = Result<PageRun, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        let range = first.intersection(&self.whole)?;
        Some(Ok(PageRun { range, state: PageState { present: true, ..PageState::default() } }))
    }
}
