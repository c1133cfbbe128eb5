//! Inspection: what lies at an address, and what blocks of a class look like.
//!
//! It puts together what a census found, what memory holds and what the modules name, and refuses to know how any of these
//! were had. Everything is in neutral words: blocks, runs, arenas.

mod blocks;
mod places;
mod referrers;
mod sample;
pub mod schema;

pub use sample::ClassRequest;

use crate::census::Walked;
use crate::memory::{Memory, MemoryExt, words};
use crate::module::Module;
use crate::symbolize::DebugFiles;
use heaptap_platform::{AddressRange, Mapping, StoppedThread};
use places::Places;
use schema::{Inspection, Word};
use std::collections::BTreeSet;

/// Most bytes that are shown.
pub const SHOWN_BYTES_MAX: u64 = 1 << 20;

/// Everything known of a target at one moment.
pub struct Subject<'a> {
    /// Its memory: where it was captured the moment's own, else as it is now, else that of the modules' files.
    pub memory: &'a dyn Memory,
    /// Mappings in address order.
    pub mappings: &'a [Mapping],
    /// Modules.
    pub modules: &'a [Module],
    /// Files of the modules with symbols, one element each.
    pub files: &'a [DebugFiles],
    /// Threads as they were stopped.
    pub threads: &'a [StoppedThread],
    /// The allocators, walked.
    pub walked: &'a [Walked],
    /// Names of threads.
    pub name_of: &'a dyn Fn(i32) -> Option<String>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Subject").field("modules", &self.modules.len()).finish_non_exhaustive()
    }
}

/// What is wanted of one address.
#[derive(Debug, Clone, Copy)]
pub struct AddressRequest {
    /// The address.
    pub address: u64,
    /// Bytes to show, from the start of the block on if the address is among them.
    pub shown_bytes: u64,
    /// Search memory for words that point into the block.
    pub referrers: bool,
}

impl Subject<'_> {
    /// What lies at an address.
    pub fn at_address(&self, request: &AddressRequest) -> Inspection {
        let places = Places::new(self);
        let place = places.place(request.address);
        let block =
            place.block.as_ref().and_then(|block| AddressRange::with_len(block.address, block.usable_bytes));
        let shown = shown(request, block);
        let (words, missing) = self.words(&places, shown);
        let referrers = block.filter(|_| request.referrers).map(|block| referrers::referrers(&places, block));
        Inspection { place: Some(place), words, missing, referrers, ..Inspection::default() }
    }

    /// What some blocks of a class look like; nothing where no allocator has that class.
    pub fn of_class(&self, request: &ClassRequest<'_>) -> Option<Inspection> {
        let places = Places::new(self);
        let sample = sample::sample(&places, request)?;
        let unread = sample.live_blocks.min(sample::READ_MAX as u64).saturating_sub(sample.read_blocks);
        let missing = if unread > 0 {
            vec![format!("{unread} blocks of the sample are not in memory, or not in the file")]
        } else {
            Vec::new()
        };
        Some(Inspection { sample: Some(sample), missing, ..Inspection::default() })
    }

    /// The size classes that have a run or a block.
    pub fn classes(&self) -> BTreeSet<u64> {
        blocks::Blocks { walked: self.walked }.classes()
    }

    /// The words of a range, as far as they can be read, and what of it cannot.
    fn words(&self, places: &Places<'_>, range: AddressRange) -> (Vec<Word>, Vec<String>) {
        let mut found = Vec::new();
        let mut unread = 0_u64;
        let mut at = range.start;
        while at < range.end {
            // Memory comes and goes by pages: what can be read of the others is shown.
            let end = range.end.min((at & !0xfff).saturating_add(4096));
            let len_bytes = usize::try_from(end - at).unwrap_or(0);
            match self.memory.read_vec(at, len_bytes) {
                Ok(bytes) => found.extend((0_u64..).zip(words(&bytes)).map(|(index, value)| Word {
                    address: at + index * 8,
                    value,
                    points_to: places.points_to(value),
                })),
                Err(_) => unread += end - at,
            }
            at = end;
        }
        let missing = if unread > 0 {
            vec![format!("{unread} bytes from {:#x} on are not in memory, or not in the file", range.start)]
        } else {
            Vec::new()
        };
        (found, missing)
    }
}

/// The range to be shown: the block's start, or what is around the address.
fn shown(request: &AddressRequest, block: Option<AddressRange>) -> AddressRange {
    let shown_bytes = request.shown_bytes.min(SHOWN_BYTES_MAX).next_multiple_of(8);
    let whole = block.unwrap_or(AddressRange { start: 0, end: u64::MAX });
    let is_near = request.address - whole.start < shown_bytes;
    let start = if is_near && block.is_some() {
        whole.start
    } else {
        (request.address & !7).saturating_sub((shown_bytes / 4) & !7).max(whole.start)
    };
    AddressRange { start, end: start.saturating_add(shown_bytes).min(whole.end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_shown_from_its_start_and_to_its_end() {
        let request = |address| AddressRequest { address, shown_bytes: 64, referrers: false };
        let block = AddressRange { start: 0x1000, end: 0x1030 };
        assert_eq!(shown(&request(0x1018), Some(block)), block);
        let large = AddressRange { start: 0x1000, end: 0x9000 };
        assert_eq!(shown(&request(0x1018), Some(large)), AddressRange { start: 0x1000, end: 0x1040 });
        assert_eq!(shown(&request(0x2003), Some(large)), AddressRange { start: 0x1ff0, end: 0x2030 });
        assert_eq!(shown(&request(0x2003), None), AddressRange { start: 0x1ff0, end: 0x2030 });
    }
}
