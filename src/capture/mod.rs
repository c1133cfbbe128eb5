//! Captures: the bytes, registers and mappings of one moment, frozen.
//!
//! A capture knows which bytes it has and which it lacks. What they mean is for those who read it.

pub mod core_file;
mod live;
mod loader;
mod preread;
mod spool;
mod stacks;
mod window;

pub use live::LiveMemory;
pub use loader::module_lists;
pub use spool::Spool;
pub use stacks::take_stacks;
pub use window::{CaptureError, Extra, Limits, Survey, survey, take};

use crate::allocator::ThreadPointer;
use crate::memory::{Fault, Memory};
use heaptap_platform::{AddressRange, MappedFile, StoppedThread};
use std::sync::Arc;

/// One stretch of captured bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    start: u64,
    len_bytes: usize,
    /// Where its bytes are in the capture's buffer.
    offset: usize,
}

impl Segment {
    const fn end(&self) -> u64 {
        self.start.saturating_add(self.len_bytes as u64)
    }
}

/// Where captured bytes are.
#[derive(Debug, Clone)]
enum Store {
    /// Copied out of a running target.
    Copied(Vec<u8>),
    /// Made from bytes, which copies share.
    Shared(Arc<Vec<u8>>),
    /// In a file: looked at where they are.
    File(Arc<MappedFile>),
}

impl Default for Store {
    fn default() -> Self {
        Self::Copied(Vec::new())
    }
}

impl Store {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::File(file) => file.bytes(),
        }
    }

    fn part(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        match self {
            Self::Copied(bytes) => bytes.get(range),
            Self::Shared(bytes) => bytes.get(range),
            Self::File(file) => file.part(range),
        }
    }
}

/// Captured bytes, addressed as in the target.
#[derive(Debug, Clone, Default)]
pub struct CapturedMemory {
    /// In address order, without overlaps.
    segments: Vec<Segment>,
    store: Store,
    /// Bytes of the store that segments refer to, while it is being filled.
    used: usize,
    /// What was read around the stop: pages that may have changed, and those that were read in the stop.
    preread: Option<Moments>,
    /// Private memory without a file as it was mapped in the stop.
    anonymous: Vec<AddressRange>,
}

/// Of which moments the pages of a capture are.
#[derive(Debug, Clone, Default)]
struct Moments {
    /// Changed around the stop, not read in it.
    doubtful: Vec<AddressRange>,
    /// Read in the stop.
    stopped: Vec<AddressRange>,
}

impl CapturedMemory {
    /// A capture that copies into `room` for as long as that lasts.
    const fn with_room(room: Vec<u8>) -> Self {
        Self {
            segments: Vec::new(),
            store: Store::Copied(room),
            used: 0,
            preread: None,
            anonymous: Vec::new(),
        }
    }

    /// What lies in `store`: each segment where it says; what overlaps an earlier one is left out.
    fn of(store: Store, mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|segment| segment.start);
        segments.dedup_by(|next, last| next.start < last.end());
        Self { segments, store, used: 0, preread: None, anonymous: Vec::new() }
    }

    /// The part of the buffer behind what is used, `len_bytes` long; made longer only if it must be, since
    /// that costs time that the target may be waiting for.
    fn free_room(&mut self, len_bytes: usize) -> &mut [u8] {
        let end = self.used.saturating_add(len_bytes);
        let Store::Copied(buffer) = &mut self.store else { return &mut [] };
        if buffer.len() < end {
            buffer.resize(end, 0);
        }
        buffer.get_mut(self.used..end).unwrap_or_default()
    }

    /// Takes the next bytes of the buffer as what lies at `ranges`, one after the other, but for `holes`.
    ///
    /// Ranges must not overlap each other or earlier ones: what overlaps is left out.
    fn index(&mut self, ranges: &[AddressRange], holes: &[AddressRange]) {
        for range in ranges {
            let mut start = range.start;
            for hole in holes.iter().filter_map(|hole| hole.intersection(range)) {
                self.push(start, hole.start, range.start);
                start = hole.end;
            }
            self.push(start, range.end, range.start);
            self.used += usize::try_from(range.len_bytes()).unwrap_or(0);
        }
        self.segments.sort_unstable_by_key(|segment| segment.start);
        self.segments.dedup_by(|next, last| next.start < last.end());
    }

    fn push(&mut self, start: u64, end: u64, range_start: u64) {
        let skipped = usize::try_from(start - range_start).unwrap_or(0);
        let len_bytes = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        if len_bytes > 0 {
            self.segments.push(Segment { start, len_bytes, offset: self.used + skipped });
        }
    }

    /// The captured ranges in address order, neighbours joined.
    pub fn ranges(&self) -> Vec<AddressRange> {
        let all = self
            .segments
            .iter()
            .map(|segment| AddressRange { start: segment.start, end: segment.end() })
            .collect();
        heaptap_platform::merge_ranges(all, 0)
    }

    /// Captured bytes in total.
    pub fn len_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len_bytes as u64).sum()
    }

    /// The parts of `range` that are not captured.
    pub fn gaps(&self, range: AddressRange) -> Vec<AddressRange> {
        let mut gaps = Vec::new();
        let mut start = range.start;
        let first = self.segments.partition_point(|segment| segment.end() <= range.start);
        for segment in self.segments.iter().skip(first).take_while(|segment| segment.start < range.end) {
            if segment.start > start {
                gaps.push(AddressRange { start, end: segment.start });
            }
            start = segment.end();
        }
        if start < range.end {
            gaps.push(AddressRange { start, end: range.end });
        }
        gaps
    }

    /// Replaces the bytes from `address` on, as far as they are captured.
    fn overwrite(&mut self, address: u64, bytes: &[u8]) {
        let end = address.saturating_add(bytes.len() as u64);
        let first = self.segments.partition_point(|segment| segment.end() <= address);
        for segment in self.segments.iter().skip(first).take_while(|segment| segment.start < end) {
            let start = segment.start.max(address);
            let len_bytes = usize::try_from(segment.end().min(end) - start).unwrap_or(0);
            let to = segment.offset + usize::try_from(start - segment.start).unwrap_or(0);
            let from = usize::try_from(start - address).unwrap_or(0);
            let Store::Copied(buffer) = &mut self.store else { return };
            if let (Some(old), Some(new)) =
                (buffer.get_mut(to..to + len_bytes), bytes.get(from..from + len_bytes))
            {
                old.copy_from_slice(new);
            }
        }
    }

    /// Takes over everything that another capture has, in place of what this one has there.
    fn absorb(&mut self, other: &Self) {
        for range in other.ranges_apart() {
            let len_bytes = usize::try_from(range.len_bytes()).unwrap_or(0);
            let Some(bytes) = other.slice(range.start, len_bytes) else { continue };
            self.overwrite(range.start, bytes);
            for gap in self.gaps(range) {
                let from = usize::try_from(gap.start - range.start).unwrap_or(0);
                let gap_bytes = usize::try_from(gap.len_bytes()).unwrap_or(0);
                let Some(new) = bytes.get(from..from + gap_bytes) else { continue };
                self.free_room(gap_bytes).copy_from_slice(new);
                self.index(&[gap], &[]);
            }
        }
    }

    /// The captured ranges as they lie in the buffer.
    fn ranges_apart(&self) -> impl Iterator<Item = AddressRange> {
        self.segments.iter().map(|segment| AddressRange { start: segment.start, end: segment.end() })
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        let index = self.segments.partition_point(|segment| segment.end() <= address);
        self.segments.get(index).filter(|segment| segment.start <= address)
    }

    /// What the segment that holds `address` has from there on, `len_bytes_max` at most.
    fn tail(&self, address: u64, len_bytes_max: usize) -> Option<&[u8]> {
        let segment = self.segment(address)?;
        let skipped = usize::try_from(address - segment.start).ok()?;
        let len_bytes = len_bytes_max.min(segment.len_bytes - skipped);
        self.store.part(segment.offset + skipped..segment.offset + skipped + len_bytes)
    }
}

impl Memory for CapturedMemory {
    fn read(&self, address: u64, mut bytes: &mut [u8]) -> Result<(), Fault> {
        let mut at = address;
        while !bytes.is_empty() {
            let source = self.tail(at, bytes.len()).ok_or(Fault { address: at })?;
            let count = source.len();
            let (now, rest) = bytes.split_at_mut(count);
            now.copy_from_slice(source);
            bytes = rest;
            at = at.checked_add(count as u64).ok_or(Fault { address })?;
        }
        Ok(())
    }

    fn slice(&self, address: u64, len_bytes: usize) -> Option<&[u8]> {
        self.tail(address, len_bytes).filter(|bytes| bytes.len() == len_bytes)
    }

    fn is_certain(&self, address: u64) -> bool {
        self.preread.as_ref().is_none_or(|moments| !holds(&moments.doubtful, address))
    }

    fn is_of_the_moment(&self, address: u64) -> bool {
        self.preread.as_ref().is_none_or(|moments| holds(&moments.stopped, address))
    }

    fn is_of_one_moment(&self) -> bool {
        self.preread.is_none()
    }

    fn anonymous(&self) -> &[AddressRange] {
        &self.anonymous
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        let first = self.segments.partition_point(|segment| segment.end() <= range.start);
        self.segments
            .iter()
            .skip(first)
            .take_while(|segment| segment.start < range.end)
            .filter_map(|segment| {
                AddressRange { start: segment.start, end: segment.end() }.intersection(&range)
            })
            .collect()
    }
}

/// Whether one of `ranges`, in address order without overlaps, holds `address`.
fn holds(ranges: &[AddressRange], address: u64) -> bool {
    let index = ranges.partition_point(|range| range.end <= address);
    ranges.get(index).is_some_and(|range| range.start <= address)
}

/// Everything taken in one stop.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// The bytes.
    pub memory: CapturedMemory,
    /// The threads.
    pub threads: Vec<StoppedThread>,
    /// How long the threads were stopped in this and all earlier attempts.
    pub pauses: Vec<heaptap_platform::Pause>,
    /// Wall-clock time of the stop, seconds since 1970.
    pub taken_at: f64,
    /// An allocator held a lock at every attempt.
    pub in_motion: bool,
    /// The time limit ended the copying early.
    pub cut_short: bool,
    /// What is missing, as sentences.
    pub lacks: Vec<String>,
    /// What was read around the stop, where it was too much for the stop.
    pub around: Option<AroundStop>,
    /// How it was taken, where that is not told by the rest.
    pub notes: Vec<String>,
    /// Memory that was read around the stop, is not an allocator's, and has changed meanwhile.
    pub changed: Vec<AddressRange>,
}

/// A heap that was read around the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AroundStop {
    /// Its bytes.
    pub bytes: u64,
    /// The pause that was allowed.
    pub budget: std::time::Duration,
}

impl Capture {
    /// What allocators may know of the threads.
    pub fn thread_pointers(&self) -> Vec<ThreadPointer> {
        thread_pointers(&self.threads)
    }
}

fn thread_pointers(threads: &[StoppedThread]) -> Vec<ThreadPointer> {
    threads
        .iter()
        .map(|thread| ThreadPointer {
            tid: thread.tid,
            thread_pointer: thread.registers.thread_pointer,
            program_counter: thread.registers.program_counter,
            stack_pointer: thread.registers.stack_pointer,
        })
        .collect()
}
