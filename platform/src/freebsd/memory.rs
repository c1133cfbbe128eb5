//! Reading the memory of another process: ptrace(`PT_IO`), while it stands still.

use super::tracing::Tracing;
use crate::{AddressRange, ReadError};
use std::sync::Arc;
use std::time::Instant;

/// Bytes in one call, so that the time limit is looked at every few milliseconds.
const BYTES_PER_CALL_MAX: u64 = 1 << 20;

/// The memory of a process, for reading only.
///
/// It can be read only while the process stands still: inside of a [`Stopped`](crate::Stopped), or in short stops that reading makes
/// by itself, see [`Process::take_read_pauses`](crate::Process::take_read_pauses). A read of a page that the process has never
/// touched makes the kernel give it one, of zeros.
#[derive(Clone, Debug)]
pub struct ProcessMemory {
    tracing: Arc<Tracing>,
}

/// What became of a bulk read. Can be used for several reads; figures add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkRead {
    /// What could not be read, in whole pages cut to the ranges asked for. The destination has zeros there.
    pub holes: Vec<AddressRange>,
    /// Bytes copied, holes not counted.
    pub copied_bytes: u64,
    /// System calls made.
    pub calls: u64,
    /// The address where the time limit ended the read. What follows was not read and the destination was left as it was.
    pub cut_short_at: Option<u64>,
}

impl BulkRead {
    fn add_hole(&mut self, hole: AddressRange) {
        match self.holes.last_mut() {
            Some(last) if last.end == hole.start => last.end = hole.end,
            _ => self.holes.push(hole),
        }
    }
}

impl ProcessMemory {
    pub(super) const fn new(tracing: Arc<Tracing>) -> Self {
        Self { tracing }
    }

    /// Fills `destination` with the bytes at `address`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Fault`] with the first byte that cannot be read; then `destination` holds what lies before it.
    pub fn read(&self, address: u64, destination: &mut [u8]) -> Result<(), ReadError> {
        let range =
            AddressRange::with_len(address, destination.len() as u64).ok_or(ReadError::Fault { address })?;
        let mut outcome = BulkRead::default();
        self.copy(range, destination, &mut outcome)?;
        match outcome.holes.first() {
            Some(hole) => Err(ReadError::Fault { address: hole.start }),
            None => Ok(()),
        }
    }

    /// Copies `ranges`, one after the other, to `destination`, which must be exactly as long as all of them. Goes on behind
    /// pages that cannot be read: they become holes in `outcome`. Looks at the time limit `until` between system calls.
    ///
    /// # Errors
    ///
    /// Never [`ReadError::Fault`]; the others end the read at once.
    pub fn read_ranges(
        &self,
        ranges: &[AddressRange],
        destination: &mut [u8],
        until: Option<Instant>,
        outcome: &mut BulkRead,
    ) -> Result<(), ReadError> {
        let wanted_bytes = ranges.iter().map(AddressRange::len_bytes).fold(0, u64::saturating_add);
        if wanted_bytes != destination.len() as u64 {
            return Err(ReadError::LengthMismatch {
                wanted_bytes,
                destination_bytes: destination.len() as u64,
            });
        }
        let mut rest = destination;
        for range in ranges {
            let mut start = range.start;
            while start < range.end {
                if until.is_some_and(|limit| Instant::now() >= limit) {
                    outcome.cut_short_at = Some(start);
                    return Ok(());
                }
                let piece =
                    AddressRange { start, end: range.end.min(start.saturating_add(BYTES_PER_CALL_MAX)) };
                let len_bytes = usize::try_from(piece.len_bytes()).unwrap_or(usize::MAX).min(rest.len());
                let (now, behind) = rest.split_at_mut(len_bytes);
                self.copy(piece, now, outcome)?;
                rest = behind;
                start = piece.end;
            }
        }
        Ok(())
    }

    /// Copies a range, whose parts that cannot be read become holes: the kernel tells only that there is one, so ranges are
    /// halved at page boundaries until it is found.
    fn copy(
        &self,
        range: AddressRange,
        destination: &mut [u8],
        outcome: &mut BulkRead,
    ) -> Result<(), ReadError> {
        let page_size_bytes = super::page_size_bytes();
        let mut pending = vec![range];
        while let Some(part) = pending.pop() {
            let offset = usize::try_from(part.start - range.start).unwrap_or(usize::MAX);
            let len_bytes = usize::try_from(part.len_bytes()).unwrap_or(usize::MAX);
            let place = destination.get_mut(offset..).and_then(|rest| rest.get_mut(..len_bytes));
            let Some(place) = place.filter(|place| !place.is_empty()) else { continue };
            outcome.calls += 1;
            let count = self.tracing.read(part.start, place)? as u64;
            if count > 0 {
                outcome.copied_bytes += count;
                pending.push(AddressRange { start: part.start.saturating_add(count), end: part.end });
                continue;
            }
            let first_page = part.start / page_size_bytes;
            let last_page = (part.end - 1) / page_size_bytes;
            if first_page == last_page {
                outcome.add_hole(part);
                place.fill(0);
                continue;
            }
            // Both halves have at least one page boundary fewer.
            let middle = (first_page + (last_page - first_page).div_ceil(2)) * page_size_bytes;
            pending.push(AddressRange { start: middle, end: part.end });
            pending.push(AddressRange { start: part.start, end: middle });
        }
        Ok(())
    }

    /// Whether the process still exists.
    pub fn exists(&self) -> bool {
        super::process_table::process(self.pid()).is_some_and(|found| !found.is_zombie && !found.is_ending)
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.tracing.pid()
    }
}
