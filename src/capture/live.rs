//! A running target's memory, read so that the target does not grow.
//!
//! Reading a page that is not in memory would bring it in, in the target. So every read asks the page table
//! first, for whole neighbourhoods at a time, and remembers the answer.

use crate::memory::{Fault, Memory};
use heaptap_platform::{AddressRange, PageRun, PageTable, ProcessMemory, ReadError};
use std::cell::RefCell;
use std::collections::HashMap;

/// Pages asked for at a time.
const NEIGHBOURHOOD_PAGES: u64 = 64;

/// Memory of a live process.
#[derive(Debug)]
pub struct LiveMemory {
    memory: ProcessMemory,
    page_bytes: u64,
    pages: RefCell<PageTable>,
    /// By number of the neighbourhood: which of its pages are in memory.
    known: RefCell<HashMap<u64, u64>>,
    /// The first failure that was not a fault; faults are facts, this is not.
    failure: RefCell<Option<ReadError>>,
}

impl LiveMemory {
    /// Reads `memory`, as far as `pages` says that it is present.
    pub fn new(memory: ProcessMemory, pages: PageTable) -> Self {
        Self {
            memory,
            page_bytes: heaptap_platform::page_size_bytes(),
            pages: RefCell::new(pages),
            known: RefCell::new(HashMap::new()),
            failure: RefCell::new(None),
        }
    }

    /// The failure that reads have met since the last call, if it was more than a fault.
    pub fn failure(&self) -> Option<ReadError> {
        self.failure.borrow_mut().take()
    }

    /// Forgets which pages are present; the target has run on.
    pub fn forget(&self) {
        self.known.borrow_mut().clear();
    }

    /// The process's memory without the question of presence.
    pub const fn process(&self) -> &ProcessMemory {
        &self.memory
    }

    /// What is known of the pages of `range` that are in memory or in swap, in address order.
    pub(super) fn page_runs(&self, range: AddressRange) -> Vec<PageRun> {
        let mut runs = Vec::new();
        let outcome = self.pages.borrow_mut().present_ranges(range, &mut |run| runs.push(run));
        if let Err(error) = outcome {
            self.failure.borrow_mut().get_or_insert(error);
        }
        runs
    }

    /// The present parts of `ranges`.
    pub(super) fn present_of(&self, ranges: &[AddressRange]) -> Vec<AddressRange> {
        let parts = ranges.iter().flat_map(|range| self.present(*range)).collect();
        heaptap_platform::merge_ranges(parts, 0)
    }

    fn is_present(&self, address: u64) -> bool {
        let page = address / self.page_bytes;
        let number = page / NEIGHBOURHOOD_PAGES;
        let bit = 1_u64 << (page % NEIGHBOURHOOD_PAGES);
        if let Some(known) = self.known.borrow().get(&number) {
            return known & bit != 0;
        }
        let start = number * NEIGHBOURHOOD_PAGES * self.page_bytes;
        let end = start.saturating_add(NEIGHBOURHOOD_PAGES * self.page_bytes);
        let mut mask = 0_u64;
        for present in self.present(AddressRange { start, end }) {
            for at in (present.start..present.end).step_by(usize::try_from(self.page_bytes).unwrap_or(4096)) {
                mask |= 1 << ((at - start) / self.page_bytes);
            }
        }
        self.known.borrow_mut().insert(number, mask);
        mask & bit != 0
    }
}

impl Memory for LiveMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let end = address.checked_add(bytes.len() as u64).ok_or(Fault { address })?;
        let mut page = address;
        while page < end {
            if !self.is_present(page) {
                return Err(Fault { address: page });
            }
            page = (page / self.page_bytes + 1).saturating_mul(self.page_bytes);
        }
        self.memory.read(address, bytes).map_err(|error| match error {
            ReadError::Fault { address } => Fault { address },
            other => {
                self.failure.borrow_mut().get_or_insert(other);
                Fault { address }
            }
        })
    }

    fn tells_pages(&self) -> bool {
        self.pages.borrow().tells_pages()
    }

    fn may_be_mapped(&self, range: AddressRange) -> bool {
        self.pages.borrow_mut().may_be_mapped(range)
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        let mut found: Vec<AddressRange> = Vec::new();
        let outcome = self.pages.borrow_mut().present_ranges(range, &mut |run| {
            if !run.state.present {
                return;
            }
            let Some(part) = run.range.intersection(&range) else { return };
            match found.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => found.push(part),
            }
        });
        if let Err(error) = outcome {
            self.failure.borrow_mut().get_or_insert(error);
        }
        found
    }
}
