//! What the kernel says of pages and of resident memory, the same on every operating system.

use crate::AddressRange;

/// What is known of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageState {
    /// The page is in memory. Reading it costs the process nothing.
    pub present: bool,
    /// The page's bytes are in swap. Reading it would bring it back into the process's memory.
    pub swapped: bool,
    /// The page belongs to a file or to shared memory; it is private anonymous memory otherwise.
    pub file_or_shared: bool,
    /// Whether no other process maps the page; `None` where that was not asked for or is not known.
    pub exclusively_mapped: Option<bool>,
    /// Whether it is the kernel's one page of zeros, which counts for no process's memory; `None` where not known.
    pub zero: Option<bool>,
}

impl PageState {
    /// Whether the process has written or loaded the page: it is in memory or in swap.
    pub const fn is_backed(&self) -> bool {
        self.present || self.swapped
    }
}

/// Neighbouring pages in the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Whole pages.
    pub range: AddressRange,
    /// What is known of each of them.
    pub state: PageState,
}

/// Resident memory of a process as the kernel accounts for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentBytes {
    /// Private memory without a file.
    pub anonymous_bytes: u64,
    /// Pages of files.
    pub file_bytes: u64,
    /// Pages of shared memory and tmpfs.
    pub shared_memory_bytes: u64,
    /// Private memory that is in swap; not part of the total.
    pub swapped_bytes: u64,
    /// The figures were summed page by page. Where this is false they come from the kernel's counters, which may be off by
    /// some dozens of pages for each CPU.
    pub exact: bool,
    /// The kernel's own total. With exact figures it is the only total known to be so, as the split is not given there.
    pub total_bytes: u64,
}
