//! Captures: the bytes, registers and mappings of one moment, frozen.
//!
//! A capture knows which bytes it has and which it lacks. What they mean is for those who read it.

mod live;
mod window;

pub use live::LiveMemory;
pub use window::{CaptureError, Limits, Survey, survey, take};

use crate::allocator::ThreadPointer;
use crate::memory::{Fault, Memory};
use heaptap_platform::{AddressRange, StoppedThread};

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
        self.start + self.len_bytes as u64
    }
}

/// Captured bytes, addressed as in the target.
#[derive(Debug, Default)]
pub struct CapturedMemory {
    /// In address order, without overlaps.
    segments: Vec<Segment>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that segments refer to.
    used: usize,
}

impl CapturedMemory {
    /// A capture that copies into `room` for as long as that lasts.
    const fn with_room(room: Vec<u8>) -> Self {
        Self { segments: Vec::new(), buffer: room, used: 0 }
    }

    /// The part of the buffer behind what is used, `len_bytes` long; made longer only if it must be, since
    /// that costs time that the target may be waiting for.
    fn free_room(&mut self, len_bytes: usize) -> &mut [u8] {
        let end = self.used.saturating_add(len_bytes);
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.buffer.get_mut(self.used..end).unwrap_or_default()
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

    fn segment(&self, address: u64) -> Option<&Segment> {
        let index = self.segments.partition_point(|segment| segment.end() <= address);
        self.segments.get(index).filter(|segment| segment.start <= address)
    }

    fn tail(&self, address: u64) -> Option<&[u8]> {
        let segment = self.segment(address)?;
        let skipped = usize::try_from(address - segment.start).ok()?;
        self.buffer.get(segment.offset + skipped..segment.offset + segment.len_bytes)
    }
}

impl Memory for CapturedMemory {
    fn read(&self, address: u64, mut bytes: &mut [u8]) -> Result<(), Fault> {
        let mut at = address;
        while !bytes.is_empty() {
            let source = self.tail(at).ok_or(Fault { address: at })?;
            let count = source.len().min(bytes.len());
            let (now, rest) = bytes.split_at_mut(count);
            now.copy_from_slice(source.get(..count).ok_or(Fault { address: at })?);
            bytes = rest;
            at = at.checked_add(count as u64).ok_or(Fault { address })?;
        }
        Ok(())
    }

    fn slice(&self, address: u64, len_bytes: usize) -> Option<&[u8]> {
        self.tail(address)?.get(..len_bytes)
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

/// Everything taken in one stop.
#[derive(Debug, Default)]
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
