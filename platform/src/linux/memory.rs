//! Reading the memory of another process: `process_vm_readv`, with `/proc/PID/mem` where that is refused.

use super::process::{address_space_exists, read_error};
use crate::{AddressRange, ReadError};
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, pread, process_vm_readv};
use nix::unistd::Pid;
use std::fs::File;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Ranges in one call; the kernel takes no more than 1024 (`UIO_MAXIOV`).
const RANGES_PER_CALL_MAX: usize = 1024;
/// Bytes in one call, so that the time limit is looked at every few milliseconds.
const BYTES_PER_CALL_MAX: u64 = 8 << 20;

/// The memory of a process, for reading only. Reads see whatever the process has there at that moment.
///
/// A read of a page that is not in memory brings it in, in the process that is read: ask its
/// [`PageTable`](crate::PageTable) first.
#[derive(Clone, Debug)]
pub struct ProcessMemory {
    pid: i32,
    file: Arc<File>,
    through_file: Arc<AtomicBool>,
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
    pub(super) fn new(pid: i32, file: Arc<File>) -> Self {
        Self { pid, file, through_file: Arc::new(AtomicBool::new(false)) }
    }

    /// Fills `destination` with the bytes at `address`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Fault`] with the first byte that cannot be read; then `destination` holds what lies before it.
    pub fn read(&self, address: u64, destination: &mut [u8]) -> Result<(), ReadError> {
        let mut done = 0;
        while let Some(rest) = destination.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(range) = address
                .checked_add(done as u64)
                .and_then(|start| AddressRange::with_len(start, rest.len() as u64))
            else {
                return Err(ReadError::Fault { address });
            };
            match self.copy(&[remote(range)], range.start, rest)? {
                0 => return Err(ReadError::Fault { address: range.start }),
                count => done += count,
            }
        }
        Ok(())
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
        let page_size_bytes = super::page_size_bytes();
        let mut cursor = Cursor { ranges, skipped_bytes: 0 };
        let mut batch = Vec::with_capacity(RANGES_PER_CALL_MAX);
        let mut rest = destination;
        while let Some(next) = cursor.fill(&mut batch) {
            if until.is_some_and(|limit| Instant::now() >= limit) {
                outcome.cut_short_at = Some(next.start);
                return Ok(());
            }
            outcome.calls += 1;
            let batch_bytes: usize = batch.iter().map(|part| part.len).sum();
            let (now, _) = rest.split_at_mut(batch_bytes.min(rest.len()));
            let mut count = self.copy(&batch, next.start, now)?;
            if count == 0 {
                count = skip_page(next, page_size_bytes, now, outcome);
            } else {
                outcome.copied_bytes += count as u64;
            }
            cursor.advance(count as u64);
            rest = rest.split_at_mut(count.min(rest.len())).1;
        }
        Ok(())
    }

    /// One system call: the number of bytes copied, 0 where the first byte cannot be read.
    fn copy(&self, batch: &[RemoteIoVec], start: u64, destination: &mut [u8]) -> Result<usize, ReadError> {
        if !self.through_file.load(Ordering::Relaxed) {
            let local = &mut [IoSliceMut::new(destination)];
            match process_vm_readv(Pid::from_raw(self.pid), local, batch) {
                Ok(count) => return Ok(count),
                Err(Errno::EFAULT) => return Ok(0),
                // The call may be filtered or not built in. Or the first thread has ended before the others, who still have
                // the address space that the file shows.
                Err(Errno::ENOSYS | Errno::EPERM | Errno::ESRCH) => {
                    self.through_file.store(true, Ordering::Relaxed)
                }
                Err(errno) => return Err(read_error(self.pid, start, "process_vm_readv", errno)),
            }
        }
        let first_bytes = batch.first().map_or(0, |part| part.len);
        self.copy_through_file(start, destination.split_at_mut(first_bytes.min(destination.len())).0)
    }

    fn copy_through_file(&self, start: u64, destination: &mut [u8]) -> Result<usize, ReadError> {
        let Ok(offset) = i64::try_from(start) else { return Ok(0) };
        match pread(self.file.as_ref(), destination, offset) {
            Ok(0) if destination.is_empty() => Ok(0),
            Ok(0) => Err(ReadError::Gone { pid: self.pid }),
            Ok(count) => Ok(count),
            Err(Errno::EIO) => Ok(0),
            Err(errno) => Err(read_error(self.pid, start, "pread", errno)),
        }
    }

    /// Whether the address space still exists: false after the process ended or executed another program.
    pub fn exists(&self) -> bool {
        address_space_exists(&self.file)
    }

    /// The process.
    pub const fn pid(&self) -> i32 {
        self.pid
    }
}

/// Gives the page under `next.start` up: zeros its part of the destination and tells how long that is.
fn skip_page(
    next: AddressRange,
    page_size_bytes: u64,
    destination: &mut [u8],
    outcome: &mut BulkRead,
) -> usize {
    let page_end = (next.start | (page_size_bytes - 1)).saturating_add(1);
    let hole = AddressRange { start: next.start, end: page_end.min(next.end) };
    outcome.add_hole(hole);
    let count = usize::try_from(hole.len_bytes()).unwrap_or(usize::MAX).min(destination.len());
    destination.split_at_mut(count).0.fill(0);
    count
}

/// Where a bulk read is: what is left of `ranges`, less the first `skipped_bytes` of the first of them.
struct Cursor<'a> {
    ranges: &'a [AddressRange],
    skipped_bytes: u64,
}

impl Cursor<'_> {
    /// Fills `batch` with what the next call shall copy; the first part of it, or `None` at the end.
    fn fill(&mut self, batch: &mut Vec<RemoteIoVec>) -> Option<AddressRange> {
        batch.clear();
        let mut first = None;
        let mut left_bytes = BYTES_PER_CALL_MAX;
        let mut skipped_bytes = self.skipped_bytes;
        for range in self.ranges {
            let start = range.start.saturating_add(std::mem::take(&mut skipped_bytes));
            let part = AddressRange { start, end: range.end.min(start.saturating_add(left_bytes)) };
            if part.is_empty() {
                continue;
            }
            first = first.or(Some(part));
            batch.push(remote(part));
            left_bytes -= part.len_bytes();
            if left_bytes == 0 || batch.len() == RANGES_PER_CALL_MAX {
                break;
            }
        }
        first
    }

    fn advance(&mut self, count: u64) {
        self.skipped_bytes += count;
        while let Some((first, rest)) = self.ranges.split_first() {
            if self.skipped_bytes < first.len_bytes() {
                break;
            }
            self.skipped_bytes -= first.len_bytes();
            self.ranges = rest;
        }
    }
}

fn remote(range: AddressRange) -> RemoteIoVec {
    RemoteIoVec {
        base: usize::try_from(range.start).unwrap_or(usize::MAX),
        len: usize::try_from(range.len_bytes()).unwrap_or(usize::MAX),
    }
}
