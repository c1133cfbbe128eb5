//! Which pages of a process are in memory: the `PAGEMAP_SCAN` call of `/proc/PID/pagemap`, or its entries where the kernel
//! is older than 6.7.
//!
//! The kernel holds a lock of the process while it walks its page table. So each call walks a piece only.

use super::process::{address_space_exists, read_error};
use super::system_call::{PageRegion, PageScan, pagemap_scan};
use crate::format::pagemap::{ENTRY_LEN_BYTES, decode_entry};
use crate::{AddressRange, PageRun, PageState, ReadError};
use nix::errno::Errno;
use nix::sys::uio::pread;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Found pages in one call of `PAGEMAP_SCAN`: 64 MiB of small pages, some 0.2 ms.
const PAGES_PER_SCAN_MAX: u64 = 16 * 1024;
/// Addresses in one call of `PAGEMAP_SCAN`. Absent pages cost time too, where their neighbours have page tables.
const BYTES_PER_SCAN_MAX: u64 = 1 << 30;
const REGIONS_PER_SCAN: usize = 4096;
/// One read of entries: 1 MiB of them, for 512 MiB of small pages.
const ENTRY_BUFFER_BYTES: usize = 1 << 20;
/// Nothing that a process maps itself lies higher, on any architecture.
const USER_END: u64 = 1 << 63;

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// What shall be known of each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageDetail {
    /// Presence, file or not, and the page of zeros where the kernel can tell (6.7 or newer).
    Kind,
    /// Whether each page is mapped by this process alone; slower, and nothing is known of the page of zeros.
    Exclusivity,
}

/// A process's page table, for asking which pages can be read without growing the process.
#[derive(Debug)]
pub struct PageTable {
    pid: i32,
    file: File,
    memory_file: Arc<File>,
    page_size_bytes: u64,
    can_scan: bool,
    regions: Vec<PageRegion>,
    entries: Vec<u8>,
}

impl PageTable {
    pub(super) fn new(pid: i32, file: File, memory_file: Arc<File>) -> Self {
        let page_size_bytes = super::page_size_bytes();
        let mut table = Self {
            pid,
            file,
            memory_file,
            page_size_bytes,
            can_scan: true,
            regions: Vec::new(),
            entries: Vec::new(),
        };
        table.regions.resize(REGIONS_PER_SCAN, PageRegion::default());
        table.can_scan = !matches!(table.scan(0, page_size_bytes), Err(Errno::ENOTTY | Errno::EINVAL));
        if !table.can_scan {
            table.entries.resize(ENTRY_BUFFER_BYTES, 0);
        }
        table
    }

    /// Whether it is known of each page whether it is in memory. It is.
    pub const fn tells_pages(&self) -> bool {
        true
    }

    /// Whether anything in `range` may be mapped; not asked for, as pages are told one by one.
    pub const fn may_be_mapped(&mut self, _: AddressRange) -> bool {
        true
    }

    /// Bytes of the mapping at `range` that are in memory by the kernel's own count; not asked for, as pages are told one by one.
    pub const fn resident_bytes(&self, _: AddressRange) -> Option<u64> {
        None
    }

    /// Gives each run of pages of `range` that are in memory or in swap to `sink`, in ascending order. Makes no heap
    /// allocation of its own.
    ///
    /// # Errors
    ///
    /// [`ReadError::Gone`] or an error of the system.
    pub fn present_ranges(
        &mut self,
        range: AddressRange,
        sink: &mut impl FnMut(PageRun),
    ) -> Result<(), ReadError> {
        self.page_states(range, PageDetail::Kind).try_for_each(|run| run.map(&mut *sink))
    }

    /// The runs of pages in `range` that are in memory or in swap, in ascending order. What lies between them is absent.
    /// `range` is widened to whole pages.
    pub fn page_states(&mut self, range: AddressRange, detail: PageDetail) -> PageRuns<'_> {
        if detail == PageDetail::Exclusivity {
            self.entries.resize(ENTRY_BUFFER_BYTES, 0);
        }
        let whole = range.page_aligned(self.page_size_bytes);
        PageRuns {
            scans: self.can_scan && detail == PageDetail::Kind,
            unasked: AddressRange { start: whole.start.min(USER_END), end: whole.end.min(USER_END) },
            buffered: 0,
            position: 0,
            buffer_start: 0,
            pending: None,
            failed: false,
            table: self,
        }
    }

    /// Regions found from `start` on, and where the walk ended.
    fn scan(&mut self, start: u64, end: u64) -> Result<(usize, u64), Errno> {
        let wanted = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        let told = wanted | PAGE_IS_FILE | PAGE_IS_PFNZERO;
        let mut scan = PageScan::new(start, end, wanted, told, PAGES_PER_SCAN_MAX);
        match pagemap_scan(self.file.as_raw_fd(), &mut scan, &mut self.regions) {
            Ok(count) => Ok((count, scan.walk_end)),
            // The kernel refuses addresses that no process of this machine can have; nothing is there.
            Err(Errno::EFAULT) => Ok((0, end)),
            Err(errno) => Err(errno),
        }
    }
}

/// Runs of pages in the same state; made by [`PageTable::page_states`].
#[derive(Debug)]
pub struct PageRuns<'a> {
    table: &'a mut PageTable,
    scans: bool,
    unasked: AddressRange,
    /// Regions or entries in the buffer, and how many of them were used.
    buffered: usize,
    position: usize,
    buffer_start: u64,
    pending: Option<PageRun>,
    failed: bool,
}

impl PageRuns<'_> {
    fn refill(&mut self) -> Result<(), ReadError> {
        self.position = 0;
        self.buffered = 0;
        if self.scans { self.refill_by_scan() } else { self.refill_by_entries() }
    }

    fn refill_by_scan(&mut self) -> Result<(), ReadError> {
        let AddressRange { start, end } = self.unasked;
        let (count, walk_end) = self
            .table
            .scan(start, end.min(start.saturating_add(BYTES_PER_SCAN_MAX)))
            .map_err(|errno| read_error(self.table.pid, start, "ioctl(PAGEMAP_SCAN)", errno))?;
        if walk_end <= start {
            return Err(read_error(self.table.pid, start, "ioctl(PAGEMAP_SCAN)", Errno::EIO));
        }
        self.buffered = count;
        // Linux 6.18 was seen to give the end of the 512th region for that of the walk, with further regions behind it;
        // what is asked for twice is told twice.
        let told_end =
            count.checked_sub(1).and_then(|last| self.table.regions.get(last)).map_or(0, |last| last.end);
        self.unasked.start = walk_end.max(told_end);
        self.check_end()
    }

    fn refill_by_entries(&mut self) -> Result<(), ReadError> {
        let AddressRange { start, end } = self.unasked;
        let page_size_bytes = self.table.page_size_bytes;
        let first_page = start / page_size_bytes;
        let page_count = usize::try_from((end - start) / page_size_bytes).unwrap_or(usize::MAX);
        let wanted_bytes = page_count.saturating_mul(ENTRY_LEN_BYTES).min(self.table.entries.len());
        let buffer = self.table.entries.split_at_mut(wanted_bytes).0;
        let offset = i64::try_from(first_page.saturating_mul(ENTRY_LEN_BYTES as u64)).unwrap_or(i64::MAX);
        let count = pread(&self.table.file, buffer, offset)
            .map_err(|errno| read_error(self.table.pid, start, "pread(pagemap)", errno))?
            / ENTRY_LEN_BYTES;
        self.buffered = count;
        self.buffer_start = start;
        // Reading ends early at the end of the address space.
        self.unasked.start =
            if count == 0 { end } else { start.saturating_add(count as u64 * page_size_bytes).min(end) };
        self.check_end()
    }

    /// A process that has ended has no pages, and neither call says why.
    fn check_end(&self) -> Result<(), ReadError> {
        if self.unasked.is_empty() && !address_space_exists(&self.table.memory_file) {
            return Err(ReadError::Gone { pid: self.table.pid });
        }
        Ok(())
    }

    fn next_buffered(&mut self) -> Option<PageRun> {
        if self.scans {
            let region = self.table.regions.get(..self.buffered)?.get(self.position)?;
            self.position += 1;
            return Some(run_of(region));
        }
        let page_size_bytes = self.table.page_size_bytes;
        let entries = self.table.entries.as_chunks::<ENTRY_LEN_BYTES>().0.get(..self.buffered)?;
        let state_at =
            |index: usize| entries.get(index).map(|bytes| decode_entry(u64::from_le_bytes(*bytes)));
        while !state_at(self.position)?.is_backed() {
            self.position += 1;
        }
        let first = self.position;
        let state = state_at(first)?;
        while state_at(self.position) == Some(state) {
            self.position += 1;
        }
        let address = |index: usize| self.buffer_start + index as u64 * page_size_bytes;
        Some(PageRun { range: AddressRange { start: address(first), end: address(self.position) }, state })
    }
}

impl Iterator for PageRuns<'_> {
    type Item = Result<PageRun, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match (self.next_buffered(), &mut self.pending) {
                (Some(run), Some(pending))
                    if pending.state == run.state && pending.range.end == run.range.start =>
                {
                    pending.range.end = run.range.end;
                }
                (Some(run), pending) => {
                    if let Some(complete) = pending.replace(run) {
                        return Some(Ok(complete));
                    }
                }
                (None, pending) if self.failed || self.unasked.is_empty() => return pending.take().map(Ok),
                (None, _) => {
                    if let Err(error) = self.refill() {
                        self.failed = true;
                        self.pending = None;
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

fn run_of(region: &PageRegion) -> PageRun {
    let has = |category: u64| region.categories & category != 0;
    PageRun {
        range: AddressRange { start: region.start, end: region.end },
        state: PageState {
            present: has(PAGE_IS_PRESENT),
            swapped: has(PAGE_IS_SWAPPED),
            file_or_shared: has(PAGE_IS_FILE),
            exclusively_mapped: None,
            zero: Some(has(PAGE_IS_PFNZERO)),
        },
    }
}
