//! The stopped window: stop, copy, release.
//!
//! What is copied was planned before the stop, on the running target; while it is stopped the plan is made
//! again over the copied bytes, and what is new is copied too. Nothing is interpreted beyond that.

use super::preread::Preread;
use super::{AroundStop, Capture, CapturedMemory, LiveMemory, thread_pointers};
use crate::allocator::address_space::anonymous;
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

/// A rate that copying of a heap that nobody has read yet reaches nearly always: above it a heap is read around the
/// stop, not in it.
const BULK_BYTES_PER_MS: u64 = 1_000_000;

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
    /// What is read around the stop could not be kept.
    #[error("cannot keep the memory in a temporary file beside the output: {0}")]
    Spool(#[source] std::io::Error),
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
    /// The target had to be let go before all was copied: this tool was held up itself.
    #[error(
        "process {pid}: it was let go after {} ms, before its records were copied: this machine, or the limits that heaptap \
         runs under, held heaptap up",
        .held.as_millis()
    )]
    Expired {
        /// The process.
        pid: i32,
        /// How long it stood still.
        held: Duration,
    },
    /// The heap had to be read around the stop, and changed too much meanwhile.
    #[error(
        "process {pid}: its heap of {bytes} bytes changes faster than it can be read beside a pause of {} ms: {} blocks \
         were found, up to {} could not be verified",
        .budget.as_millis(), .blocks, .doubtful
    )]
    Restless {
        /// The process.
        pid: i32,
        /// Bytes of the heap.
        bytes: u64,
        /// What was allowed.
        budget: Duration,
        /// Blocks that may have changed, at most.
        doubtful: u64,
        /// Blocks found.
        blocks: u64,
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

impl Limits {
    fn budget_ms(&self) -> u64 {
        u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX)
    }
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

/// What is copied besides the allocators' records.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// These ranges, as far as they are in memory.
    pub ranges: Vec<AddressRange>,
    /// The top of each thread's stack, so many bytes of it; 0 for none.
    pub stack_top_bytes: u64,
    /// Of each stack at most, as far as there is time.
    pub stack_bytes_max: u64,
    /// Private memory that can be written to: stack tops end where that does.
    pub writable: Vec<AddressRange>,
    /// These ranges, as far as there is time, the first before the others.
    pub wishes: Vec<AddressRange>,
}

impl Extra {
    /// The tops of the stacks of `threads`, with what lies below a stack pointer by the rules of x86-64.
    fn stack_tops(&self, threads: &[ThreadPointer]) -> impl Iterator<Item = AddressRange> {
        self.stacks(threads, self.stack_top_bytes)
    }

    /// So many bytes of each stack; none for 0.
    fn stacks(&self, threads: &[ThreadPointer], bytes_max: u64) -> impl Iterator<Item = AddressRange> {
        const RED_ZONE_BYTES: u64 = 128;
        let count = if bytes_max == 0 { 0 } else { threads.len() };
        threads.iter().take(count).filter_map(move |thread| {
            let wanted = AddressRange {
                start: thread.stack_pointer.saturating_sub(RED_ZONE_BYTES) & !7,
                end: thread.stack_pointer.saturating_add(bytes_max) & !7,
            };
            let holder = self.writable.iter().find(|range| range.contains(thread.stack_pointer))?;
            holder.intersection(&wanted)
        })
    }

    /// All that a capture was to copy, by the threads that it has.
    pub fn of_capture(&self, capture: &Capture) -> Vec<AddressRange> {
        let bytes_max = self.stack_bytes_max.max(self.stack_top_bytes);
        let stacks = self.stacks(&capture.thread_pointers(), bytes_max).collect();
        [self.ranges.clone(), stacks].concat()
    }
}

/// Stops the threads for no longer than it takes to read their registers.
pub fn survey(process: &Process, limits: Limits) -> Result<Survey, CaptureError> {
    let stopped = Stopped::stop(process, &stop_limits(limits))?;
    let threads = thread_pointers(stopped.threads());
    Ok(Survey { threads, pause: stopped.release() })
}

/// Stops the target, copies what the allocators need, lets go; again if a lock was held.
///
/// A heap that has to be read itself and is too large for the pause is read before and after too: see
/// [`super::preread`].
pub fn take(
    process: &Process,
    live: &LiveMemory,
    allocators: &[&dyn Allocator],
    known_threads: &[ThreadPointer],
    extra: &Extra,
    limits: Limits,
) -> Result<Capture, CaptureError> {
    let request = Request { process, live, allocators, known_threads, extra, limits };
    let bulk_bytes = len_bytes(&live.present_of(&bulk(allocators, live)));
    if bulk_bytes / BULK_BYTES_PER_MS > limits.budget_ms() {
        return request.take_around(bulk_bytes);
    }
    let capture = if bulk_bytes == 0 { request.take_records()? } else { request.take(Extent::Everything)? };
    if !capture.cut_short || bulk_bytes == 0 {
        return Ok(capture);
    }
    // Copying was slower than it is nearly always: on a busy machine.
    let mut again = request.take_around(bulk_bytes)?;
    again.pauses.splice(0..0, capture.pauses);
    Ok(again)
}

/// What a capture is asked for.
#[derive(Clone, Copy)]
struct Request<'a> {
    process: &'a Process,
    live: &'a LiveMemory,
    allocators: &'a [&'a dyn Allocator],
    known_threads: &'a [ThreadPointer],
    extra: &'a Extra,
    limits: Limits,
}

impl Request<'_> {
    /// Copies records that are not among users' bytes; anew where the budget ended that although it is enough: on a busy
    /// machine.
    fn take_records(self) -> Result<Capture, CaptureError> {
        const TRIES: usize = 3;
        let mut pauses = Vec::new();
        loop {
            let mut capture = self.take(Extent::Everything)?;
            pauses.append(&mut capture.pauses);
            if !capture.cut_short || pauses.len() >= TRIES || !self.is_budget_enough() {
                return Ok(Capture { pauses, ..capture });
            }
        }
    }

    fn is_budget_enough(self) -> bool {
        let planned = plan(Extent::Everything, self.allocators, self.live, self.known_threads);
        let planned_bytes = len_bytes(&self.live.present_of(&planned));
        planned_bytes / BULK_BYTES_PER_MS <= self.limits.budget_ms()
    }

    /// Reads the bulk around the stop; anew where not even the rest could be read in it. That threads took long to come to
    /// their stop, on a busy machine, passes.
    fn take_around(self, bulk_bytes: u64) -> Result<Capture, CaptureError> {
        const TRIES: u32 = 5;
        let mut pauses = Vec::new();
        for _ in 0..TRIES {
            let mut capture = self.take(Extent::Essentials)?;
            pauses.append(&mut capture.pauses);
            if !capture.cut_short {
                return Ok(Capture { pauses, ..capture });
            }
        }
        Err(CaptureError::OverBudget {
            pid: self.process.pid(),
            bytes: bulk_bytes,
            budget: self.limits.pause,
        })
    }

    fn take(self, extent: Extent) -> Result<Capture, CaptureError> {
        let Self { process, live, allocators, known_threads, extra, limits } = self;
        let planned = plan(extent, allocators, live, known_threads);
        let planned = merge_ranges([planned, extra.ranges.clone()].concat(), 0);
        let locks: Vec<u64> = allocators.iter().flat_map(|allocator| allocator.lock_words(live)).collect();
        let planned_bytes = len_bytes(&live.present_of(&planned));
        if planned_bytes / COPY_BYTES_PER_MS > limits.budget_ms() {
            return Err(CaptureError::OverBudget {
                pid: process.pid(),
                bytes: planned_bytes,
                budget: limits.pause,
            });
        }
        let bulk = bulk(allocators, live);
        let preread = (extent == Extent::Essentials)
            .then(|| Preread::of(live, &bulk, allocators, known_threads, &planned));
        let wished_bytes = preread.as_ref().map_or(0, Preread::wished_bytes);
        let wished_bytes = wished_bytes.saturating_add(len_bytes(&extra.wishes));
        let room =
            room(planned_bytes + wished_bytes.min(limits.budget_ms().saturating_mul(COPY_BYTES_PER_MS)));
        let preread_ref = preread.as_ref();
        let mut window = Window {
            live,
            allocators,
            extent,
            planned: &planned,
            extra,
            locks: &locks,
            preread: preread_ref,
            has_bulk: !bulk.is_empty(),
            room,
        };
        let mut capture = window.attempt(process, limits)?;
        if let Some(preread) = preread {
            let threads = thread_pointers(&capture.threads);
            capture.notes.push(preread_note(&bulk, live, &capture.memory));
            capture.memory = preread.complete(live, &capture.memory, allocators, &threads);
            capture.around =
                Some(AroundStop { bytes: len_bytes(&live.present_of(&bulk)), budget: limits.pause });
        }
        match live.failure() {
            Some(failure) => Err(failure.into()),
            None => Ok(capture),
        }
    }
}

fn preread_note(bulk: &[AddressRange], live: &LiveMemory, stopped: &CapturedMemory) -> String {
    format!(
        "{} bytes of heap were read while it ran, before and after the stop; {} bytes in the stop",
        len_bytes(&live.present_of(bulk)),
        stopped.len_bytes()
    )
}

/// How much is copied in the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All that a walk reads.
    Everything,
    /// What a walk reads, but for the bulk of the heap.
    Essentials,
}

struct Window<'a> {
    live: &'a LiveMemory,
    allocators: &'a [&'a dyn Allocator],
    extent: Extent,
    planned: &'a [AddressRange],
    extra: &'a Extra,
    locks: &'a [u64],
    preread: Option<&'a Preread>,
    /// Some allocator keeps its records among the users' bytes, wherever there is anonymous memory.
    has_bulk: bool,
    /// Memory that is already backed by pages, so that none are made while the target waits.
    room: Vec<u8>,
}

impl Window<'_> {
    fn attempt(&mut self, process: &Process, limits: Limits) -> Result<Capture, CaptureError> {
        let mut pauses = Vec::new();
        for attempt in 1..=limits.attempts.max(1) {
            self.live.forget();
            let stopped = Stopped::stop(process, &stop_limits(limits))?;
            let in_motion = self.is_locked() || self.is_at_work(&stopped);
            if in_motion && attempt < limits.attempts {
                pauses.push(stopped.release());
                // The holder of the lock needs a moment to let go; how long is not known, so it grows.
                std::thread::sleep(Duration::from_micros(300 * u64::from(attempt)));
                continue;
            }
            let mut capture = self.copy(&stopped, limits.pause);
            let pause = stopped.release();
            if pause.expired {
                // What was copied since is not of the stop.
                let held = Duration::from_micros(pause.stopped_us);
                return Err(CaptureError::Expired { pid: process.pid(), held });
            }
            pauses.push(pause);
            capture.in_motion = in_motion;
            capture.pauses = pauses;
            return Ok(capture);
        }
        Ok(Capture::default())
    }

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
        let until = Instant::now() + time_to_copy(stopped.elapsed(), budget);
        let taken_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut capture = Capture {
            threads: stopped.threads().to_vec(),
            taken_at: taken_at.as_secs_f64(),
            ..Capture::default()
        };
        capture.memory = CapturedMemory::with_room(std::mem::take(&mut self.room));
        if self.has_bulk {
            // Without the list allocators know only what was mapped when they were found.
            capture.memory.anonymous =
                stopped.process().mappings().map(|all| anonymous(&all)).unwrap_or_default();
        }
        let threads = thread_pointers(&capture.threads);
        let first: Vec<AddressRange> =
            self.planned.iter().copied().chain(self.extra.stack_tops(&threads)).collect();
        let mut wanted = self.live.present_of(&first);
        for round in 0..ROUNDS_MAX {
            let whole = read(self.live, &wanted, &mut capture.memory, Some(until), &mut capture.lacks);
            if !whole {
                capture.cut_short = true;
                break;
            }
            let overlay = Overlay { captured: &capture.memory, live: self.live, until: Some(until) };
            let again = plan(self.extent, self.allocators, &overlay, &threads);
            if overlay.is_late() {
                capture.cut_short = true;
                capture.lacks.push("the pause budget ended the search for further records".to_owned());
                break;
            }
            let new: Vec<AddressRange> = again.iter().flat_map(|range| capture.memory.gaps(*range)).collect();
            wanted = self.live.present_of(&new);
            if wanted.is_empty() {
                break;
            }
            if round + 1 == ROUNDS_MAX {
                capture.lacks.push("the allocator's records kept leading to further ones".to_owned());
            }
        }
        if let Some(preread) = self.preread.filter(|_| !capture.cut_short) {
            self.copy_bulk(preread, &mut capture, until);
        }
        if !capture.cut_short {
            self.copy_wishes(&threads, &mut capture, until);
        }
        capture
    }

    /// Copies the rest of deep stacks, then what else is wished for, for as long as there is time.
    fn copy_wishes(&self, threads: &[ThreadPointer], capture: &mut Capture, until: Instant) {
        // The release takes its time as well.
        let until = until.checked_sub(until.saturating_duration_since(Instant::now()) / 4).unwrap_or(until);
        let stacks: Vec<AddressRange> = self.extra.stacks(threads, self.extra.stack_bytes_max).collect();
        let left_bytes = self.copy_while(&stacks, capture, until);
        if left_bytes > 0 {
            capture
                .notes
                .push(format!("{left_bytes} bytes of deep stacks are left out: the pause budget ended"));
        }
        self.copy_while(&self.extra.wishes, capture, until);
    }

    /// Copies what is present of `ranges` piece by piece; the bytes that there was no time for.
    fn copy_while(&self, ranges: &[AddressRange], capture: &mut Capture, until: Instant) -> u64 {
        const PIECE_BYTES: u64 = 1 << 20;
        let mut left_bytes = 0;
        for range in ranges {
            let mut start = range.start;
            while start < range.end {
                let piece = AddressRange { start, end: range.end.min(start.saturating_add(PIECE_BYTES)) };
                start = piece.end;
                if Instant::now() >= until {
                    left_bytes += range.end - piece.start;
                    break;
                }
                let wanted = self.live.present_of(&capture.memory.gaps(piece));
                read(self.live, &wanted, &mut capture.memory, None, &mut Vec::new());
            }
        }
        left_bytes
    }

    /// Copies what of the bulk came after it was read, and then what may have changed, as far as there is time.
    fn copy_bulk(&self, preread: &Preread, capture: &mut Capture, until: Instant) {
        let overlay = Overlay { captured: &capture.memory, live: self.live, until: Some(until) };
        let present = self.live.present_of(&bulk(self.allocators, &overlay));
        if overlay.is_late() {
            capture.cut_short = true;
            return;
        }
        let new: Vec<AddressRange> = present
            .iter()
            .flat_map(|range| preread.gaps(*range))
            .flat_map(|gap| capture.memory.gaps(gap))
            .collect();
        if !read(self.live, &new, &mut capture.memory, Some(until), &mut capture.lacks) {
            capture.cut_short = true;
            return;
        }
        // The release takes its time as well.
        let until = until.checked_sub((until - Instant::now()) / 4).unwrap_or(until);
        for wishes in preread.wishes() {
            let wanted = intersect(wishes, &present);
            if !read(self.live, &wanted, &mut capture.memory, Some(until), &mut Vec::new()) {
                return;
            }
        }
    }
}

/// What a pause of `budget` leaves for copying, once it took `elapsed` to stop all threads: to let them go takes as long.
fn time_to_copy(elapsed: Duration, budget: Duration) -> Duration {
    let left = budget.saturating_sub(elapsed);
    left.saturating_sub(elapsed.min(left / 4))
}

/// Captured bytes where there are any, else those of the target, which must be stopped.
pub(super) struct Overlay<'a> {
    pub(super) captured: &'a CapturedMemory,
    pub(super) live: &'a LiveMemory,
    /// From then on nothing can be read any more, so that whoever follows records comes to an end.
    pub(super) until: Option<Instant>,
}

impl Overlay<'_> {
    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Memory for Overlay<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        if self.is_late() {
            return Err(Fault { address });
        }
        match self.captured.read(address, bytes) {
            Ok(()) => Ok(()),
            Err(_) => self.live.read(address, bytes),
        }
    }

    fn slice(&self, address: u64, len_bytes: usize) -> Option<&[u8]> {
        self.captured.slice(address, len_bytes).filter(|_| !self.is_late())
    }

    fn anonymous(&self) -> &[AddressRange] {
        self.captured.anonymous()
    }

    fn tells_pages(&self) -> bool {
        self.live.tells_pages()
    }

    fn may_be_mapped(&self, range: AddressRange) -> bool {
        self.live.may_be_mapped(range)
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        if self.is_late() {
            return Vec::new();
        }
        let mut all = self.captured.present(range);
        for gap in self.captured.gaps(range) {
            all.extend(self.live.present(gap));
        }
        merge_ranges(all, 0)
    }
}

fn plan(
    extent: Extent,
    allocators: &[&dyn Allocator],
    memory: &dyn Memory,
    threads: &[ThreadPointer],
) -> Vec<AddressRange> {
    let whole_pages = |range: AddressRange| range.page_aligned(GAP_BYTES_MAX);
    let ranges = allocators.iter().flat_map(|allocator| match extent {
        Extent::Everything => allocator.metadata(memory, threads),
        Extent::Essentials => allocator.essentials(memory, threads).into_iter().map(whole_pages).collect(),
    });
    merge_ranges(ranges.collect(), GAP_BYTES_MAX)
}

fn bulk(allocators: &[&dyn Allocator], memory: &dyn Memory) -> Vec<AddressRange> {
    merge_ranges(allocators.iter().flat_map(|allocator| allocator.bulk(memory)).collect(), 0)
}

fn len_bytes(ranges: &[AddressRange]) -> u64 {
    ranges.iter().map(AddressRange::len_bytes).sum()
}

/// What lies in both; both in address order without overlaps.
fn intersect(ranges: &[AddressRange], others: &[AddressRange]) -> Vec<AddressRange> {
    let mut common = Vec::with_capacity(ranges.len());
    let mut rest = others;
    for range in ranges {
        while let Some((_, behind)) = rest.split_first().filter(|(first, _)| first.end <= range.start) {
            rest = behind;
        }
        common.extend(
            rest.iter()
                .take_while(|other| other.start < range.end)
                .filter_map(|other| other.intersection(range)),
        );
    }
    common
}

/// Copies `ranges`; whether the time sufficed.
pub(super) fn read(
    live: &LiveMemory,
    ranges: &[AddressRange],
    memory: &mut CapturedMemory,
    until: Option<Instant>,
    lacks: &mut Vec<String>,
) -> bool {
    let bytes = len_bytes(ranges);
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

pub(super) fn stop_limits(limits: Limits) -> StopLimits {
    // Whoever allows a longer pause than the limit for a tool that is stuck has it, and time to let go.
    const RELEASE_MAX: Duration = Duration::from_secs(1);
    let default = StopLimits::default();
    let hold_max = default.hold_max.max(limits.pause.saturating_add(RELEASE_MAX));
    StopLimits { budget: limits.pause, reach_max: limits.stop_deadline, hold_max, ..default }
}

/// Room for `bytes` and what may come to it, its pages made before the target waits for them.
pub(super) fn room(bytes: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes + bytes / 16).unwrap_or(0) + (1 << 20);
    vec![1; bytes]
}
