//! The stopped window: stop, copy, release.
//!
//! What is copied was planned before the stop, on the running target; while it is stopped the plan is made
//! again over the copied bytes, and what is new is copied too. Nothing is interpreted beyond that.

use super::{Capture, CapturedMemory, LiveMemory, thread_pointers};
use crate::allocator::{Allocator, ThreadPointer};
use crate::memory::{Fault, Memory, MemoryExt};
use heaptap_platform::{
    AddressRange, BulkRead, Pause, Process, ReadError, StopError, StopLimits, Stopped, merge_ranges,
};
use std::time::{Duration, Instant, SystemTime};

/// Gaps between planned ranges that are cheaper to read than to skip.
const GAP_BYTES_MAX: u64 = 4096;

/// Times that the plan is made again in one stop.
const ROUNDS_MAX: usize = 6;

/// A rate that copying reaches on any machine met: below it a stop is not even tried.
const COPY_BYTES_PER_MS: u64 = 5_000_000;

/// Why no capture was had.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The threads could not be stopped.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// The target's memory could not be read at all.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The pause would be longer than allowed; the target was not stopped.
    #[error(
        "process {pid}: copying {bytes} bytes of the allocator's records would pause it for more than {} ms",
        .budget.as_millis()
    )]
    OverBudget {
        /// The process.
        pid: i32,
        /// Bytes to copy.
        bytes: u64,
        /// What was allowed.
        budget: Duration,
    },
}

/// How long and how often a target may be stopped.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest pause.
    pub pause: Duration,
    /// Longest wait for all threads to reach the stop.
    pub stop_deadline: Duration,
    /// Attempts to find the allocator at rest.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pause: Duration::from_millis(50), stop_deadline: Duration::from_millis(250), attempts: 10 }
    }
}

/// What a stop that copies nothing shows.
#[derive(Debug)]
pub struct Survey {
    /// The threads.
    pub threads: Vec<ThreadPointer>,
    /// Its pause.
    pub pause: Pause,
}

/// Stops the threads for no longer than it takes to read their registers.
pub fn survey(process: &Process, limits: Limits) -> Result<Survey, CaptureError> {
    let stopped = Stopped::stop(process, &stop_limits(limits))?;
    let threads = thread_pointers(stopped.threads());
    Ok(Survey { threads, pause: stopped.release() })
}

/// Stops the target, copies what the allocators need, lets go; again if a lock was held.
pub fn take(
    process: &Process,
    live: &LiveMemory,
    allocators: &[&dyn Allocator],
    known_threads: &[ThreadPointer],
    limits: Limits,
) -> Result<Capture, CaptureError> {
    let planned = plan(allocators, live, known_threads);
    let locks: Vec<u64> = allocators.iter().flat_map(|allocator| allocator.lock_words(live)).collect();
    let planned_bytes: u64 = present(live, &planned).iter().map(AddressRange::len_bytes).sum();
    let budget_ms = u64::try_from(limits.pause.as_millis()).unwrap_or(u64::MAX);
    if planned_bytes / COPY_BYTES_PER_MS > budget_ms {
        return Err(CaptureError::OverBudget {
            pid: process.pid(),
            bytes: planned_bytes,
            budget: limits.pause,
        });
    }
    let mut window = Window { live, allocators, planned: &planned, locks: &locks, room: room(planned_bytes) };
    let mut pauses = Vec::new();
    for attempt in 1..=limits.attempts.max(1) {
        live.forget();
        let stopped = Stopped::stop(process, &stop_limits(limits))?;
        let in_motion = window.is_locked() || window.is_at_work(&stopped);
        if in_motion && attempt < limits.attempts {
            pauses.push(stopped.release());
            // The holder of the lock needs a moment to let go; how long is not known, so it grows.
            std::thread::sleep(Duration::from_micros(300 * u64::from(attempt)));
            continue;
        }
        let mut capture = window.copy(&stopped, limits.pause);
        pauses.push(stopped.release());
        if let Some(failure) = live.failure() {
            return Err(failure.into());
        }
        capture.in_motion = in_motion;
        capture.pauses = pauses;
        return Ok(capture);
    }
    Ok(Capture::default())
}

struct Window<'a> {
    live: &'a LiveMemory,
    allocators: &'a [&'a dyn Allocator],
    planned: &'a [AddressRange],
    locks: &'a [u64],
    /// Memory that is already backed by pages, so that none are made while the target waits.
    room: Vec<u8>,
}

impl Window<'_> {
    fn is_locked(&self) -> bool {
        let words = self.locks.iter().map(|word| AddressRange { start: *word, end: word.saturating_add(4) });
        let ranges = merge_ranges(words.collect(), GAP_BYTES_MAX);
        let mut memory = CapturedMemory::default();
        let mut lacks = Vec::new();
        read(self.live, &ranges, &mut memory, None, &mut lacks);
        self.locks.iter().any(|word| memory.read_u32(*word).is_ok_and(|lock| lock != 0))
    }

    fn is_at_work(&self, stopped: &Stopped<'_>) -> bool {
        let threads = thread_pointers(stopped.threads());
        self.allocators.iter().any(|allocator| allocator.is_at_work(&threads))
    }

    fn copy(&mut self, stopped: &Stopped<'_>, budget: Duration) -> Capture {
        let until = Instant::now() + budget.saturating_sub(stopped.elapsed());
        let taken_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut capture = Capture {
            threads: stopped.threads().to_vec(),
            taken_at: taken_at.as_secs_f64(),
            ..Capture::default()
        };
        capture.memory = CapturedMemory::with_room(std::mem::take(&mut self.room));
        let threads = thread_pointers(&capture.threads);
        let mut wanted = present(self.live, self.planned);
        for round in 0..ROUNDS_MAX {
            let whole = read(self.live, &wanted, &mut capture.memory, Some(until), &mut capture.lacks);
            if !whole {
                capture.cut_short = true;
                break;
            }
            let overlay = Overlay { captured: &capture.memory, live: self.live };
            let again = plan(self.allocators, &overlay, &threads);
            let new: Vec<AddressRange> = again.iter().flat_map(|range| capture.memory.gaps(*range)).collect();
            wanted = present(self.live, &new);
            if wanted.is_empty() {
                break;
            }
            if round + 1 == ROUNDS_MAX {
                capture.lacks.push("the allocator's records kept leading to further ones".to_owned());
            }
        }
        capture
    }
}

/// Captured bytes where there are any, else those of the target, which must be stopped.
struct Overlay<'a> {
    captured: &'a CapturedMemory,
    live: &'a LiveMemory,
}

impl Memory for Overlay<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        match self.captured.read(address, bytes) {
            Ok(()) => Ok(()),
            Err(_) => self.live.read(address, bytes),
        }
    }

    fn slice(&self, address: u64, len_bytes: usize) -> Option<&[u8]> {
        self.captured.slice(address, len_bytes)
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        let mut all = self.captured.present(range);
        for gap in self.captured.gaps(range) {
            all.extend(self.live.present(gap));
        }
        merge_ranges(all, 0)
    }
}

fn plan(allocators: &[&dyn Allocator], memory: &dyn Memory, threads: &[ThreadPointer]) -> Vec<AddressRange> {
    let ranges = allocators.iter().flat_map(|allocator| allocator.metadata(memory, threads)).collect();
    merge_ranges(ranges, GAP_BYTES_MAX)
}

/// The present parts of `ranges`.
fn present(live: &LiveMemory, ranges: &[AddressRange]) -> Vec<AddressRange> {
    let parts = ranges.iter().flat_map(|range| live.present(*range)).collect();
    merge_ranges(parts, 0)
}

/// Copies `ranges`; whether the time sufficed.
fn read(
    live: &LiveMemory,
    ranges: &[AddressRange],
    memory: &mut CapturedMemory,
    until: Option<Instant>,
    lacks: &mut Vec<String>,
) -> bool {
    let bytes: u64 = ranges.iter().map(AddressRange::len_bytes).sum();
    let mut outcome = BulkRead::default();
    let destination = memory.free_room(usize::try_from(bytes).unwrap_or(0));
    if let Err(error) = live.process().read_ranges(ranges, destination, until, &mut outcome) {
        lacks.push(error.to_string());
        return false;
    }
    let holes: u64 = outcome.holes.iter().map(AddressRange::len_bytes).sum();
    if holes > 0 {
        lacks.push(format!("{holes} bytes of the allocator's records could not be read"));
    }
    let Some(address) = outcome.cut_short_at else {
        memory.index(ranges, &outcome.holes);
        return true;
    };
    lacks.push(format!("the pause budget ended the copy at {address:#x}"));
    let before: Vec<AddressRange> = ranges.iter().take_while(|range| range.end <= address).copied().collect();
    memory.index(&before, &outcome.holes);
    false
}

fn stop_limits(limits: Limits) -> StopLimits {
    StopLimits { budget: limits.pause, reach_max: limits.stop_deadline, ..StopLimits::default() }
}

/// Room for `bytes` and what may come to it, its pages made before the target waits for them.
fn room(bytes: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes + bytes / 16).unwrap_or(0) + (1 << 20);
    vec![1; bytes]
}
