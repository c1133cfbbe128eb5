//! Samples of what one thread does at one place: hardware breakpoints of the kernel's performance events.
//!
//! Nothing is stopped and nothing is written into the target. The kernel itself copies registers and stack when the
//! thread runs into the breakpoint, and takes the breakpoint away when its file descriptor is closed, by whatever end of
//! this process. While it is disabled it costs the thread nothing; while it is enabled each hit costs an exception.

use super::process::Process;
use super::system_call::{self, EventAttributes};
use crate::format::perf_event::{Hit, Record, SAMPLE_TYPE, register_mask};
use crate::{Architecture, SamplerError};
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `HW_BREAKPOINT_W` and `HW_BREAKPOINT_X` in `include/uapi/linux/hw_breakpoint.h`.
const ON_WRITE: u32 = 2;
const ON_EXECUTION: u32 = 4;

/// Bytes of records that a ring holds; a power of two.
const RING_LEN_BYTES: usize = 256 * 1024;
/// Where in the ring's first page its two ends stand: `data_head` and `data_tail` of `struct perf_event_mmap_page`.
const HEAD_AT: usize = 1024;
const TAIL_AT: usize = 1032;
/// Longest stack that leaves room for a whole record, whose length has 16 bits.
const STACK_LEN_BYTES_MAX: u32 = 60 * 1024;

/// What a thread is sampled at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// Writes to a word of 1, 2, 4 or 8 bytes at an address that is a multiple of that.
    Writes {
        /// Its address.
        address: u64,
        /// Its length.
        len_bytes: u64,
    },
    /// The instruction at an address is about to be executed.
    Execution {
        /// Its address.
        address: u64,
    },
    /// A page is touched that is not there yet; needs no register.
    PageFaults {
        /// One of so many is sampled.
        period: u64,
        /// Those that the kernel meets on the thread's behalf, too.
        with_kernel: bool,
    },
}

impl Aim {
    fn attributes(self, architecture: Architecture, stack_len_bytes: u32) -> EventAttributes {
        let registers = register_mask(architecture);
        let stack_len_bytes = stack_len_bytes.min(STACK_LEN_BYTES_MAX) & !7;
        let breakpoint = |place| EventAttributes::breakpoint(place, SAMPLE_TYPE, registers, stack_len_bytes);
        match self {
            Self::Writes { address, len_bytes } => breakpoint((ON_WRITE, address, len_bytes)),
            Self::Execution { address } => {
                breakpoint((ON_EXECUTION, address, size_of::<libc::c_long>() as u64))
            }
            Self::PageFaults { period, with_kernel } => {
                EventAttributes::page_faults(period, with_kernel, SAMPLE_TYPE, registers, stack_len_bytes)
            }
        }
    }

    const fn place(self) -> (u64, u64) {
        match self {
            Self::Writes { address, len_bytes } => (address, len_bytes),
            Self::Execution { address } => (address, 1),
            Self::PageFaults { .. } => (0, 0),
        }
    }
}

/// A breakpoint in one thread. Disabled when it is made; gone when it is dropped.
#[derive(Debug)]
pub struct ThreadSampler {
    tid: i32,
    architecture: Architecture,
    stack_len_bytes: u32,
    event: OwnedFd,
    ring: MmapRaw,
    page_size_bytes: usize,
    lost: u64,
}

impl ThreadSampler {
    /// Prepares to sample a thread of `process`, with so many bytes of its stack.
    ///
    /// # Errors
    ///
    /// One variant of [`SamplerError`] for each reason why it cannot be done.
    pub fn open(process: &Process, tid: i32, aim: Aim, stack_len_bytes: u32) -> Result<Self, SamplerError> {
        let (address, len_bytes) = aim.place();
        let architecture = process.architecture().ok_or(SamplerError::Unsupported { address, len_bytes })?;
        Self::open_thread(architecture, tid, aim, stack_len_bytes)
    }

    fn open_thread(
        architecture: Architecture,
        tid: i32,
        aim: Aim,
        stack_len_bytes: u32,
    ) -> Result<Self, SamplerError> {
        let attributes = aim.attributes(architecture, stack_len_bytes);
        let event = system_call::perf_event_open(&attributes, tid)
            .map_err(|errno| error(tid, aim, "perf_event_open", errno))?;
        let page_size_bytes = usize::try_from(super::page_size_bytes()).unwrap_or(4096);
        let ring = MmapOptions::new()
            .len(page_size_bytes + RING_LEN_BYTES)
            .map_raw(&event)
            .map_err(|source| error(tid, aim, "mmap", Errno::from_raw(source.raw_os_error().unwrap_or(0))))?;
        Ok(Self { tid, architecture, stack_len_bytes, event, ring, page_size_bytes, lost: 0 })
    }

    /// The thread.
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Aims at another place; the breakpoint must be disabled.
    ///
    /// # Errors
    ///
    /// As for [`ThreadSampler::open`].
    pub fn aim(&mut self, aim: Aim) -> Result<(), SamplerError> {
        let attributes = aim.attributes(self.architecture, self.stack_len_bytes);
        system_call::perf_event_modify(&self.event, &attributes)
            .map_err(|errno| error(self.tid, aim, "PERF_EVENT_IOC_MODIFY_ATTRIBUTES", errno))?;
        // The kernel enables what it modifies.
        self.disable()
    }

    /// Lets hits happen, from now until [`ThreadSampler::disable`]. Each costs the thread an exception.
    ///
    /// # Errors
    ///
    /// [`SamplerError::Os`].
    pub fn enable(&self) -> Result<(), SamplerError> {
        system_call::perf_event_enable(&self.event)
            .map_err(|errno| self.os_error("PERF_EVENT_IOC_ENABLE", errno))
    }

    /// Lets no more hits happen once it has returned.
    ///
    /// # Errors
    ///
    /// [`SamplerError::Os`].
    pub fn disable(&self) -> Result<(), SamplerError> {
        system_call::perf_event_disable(&self.event)
            .map_err(|errno| self.os_error("PERF_EVENT_IOC_DISABLE", errno))
    }

    /// Hits since it was made, also those that found no room in the ring.
    ///
    /// # Errors
    ///
    /// [`SamplerError::Os`].
    pub fn hit_count(&self) -> Result<u64, SamplerError> {
        let mut count = [0; 8];
        nix::unistd::read(&self.event, &mut count).map_err(|errno| self.os_error("read", errno))?;
        Ok(u64::from_le_bytes(count))
    }

    /// Bytes of records that wait to be taken. Costs no system call.
    pub fn waiting_len_bytes(&self) -> u64 {
        let tail = self.end(TAIL_AT).load(Ordering::Relaxed);
        self.end(HEAD_AT).load(Ordering::Acquire).wrapping_sub(tail)
    }

    /// Sleeps until there is a record, for at most so long; false where the time ran out or the thread ended.
    pub fn wait(&self, at_most: Duration) -> bool {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        let mut waited = [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)];
        // A signal ends the wait early, which is as good as a timeout.
        let _ = poll(&mut waited, timeout);
        self.waiting_len_bytes() > 0
    }

    /// Hits that found no room in the ring, as far as the kernel has told.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes all hits out of the ring, the oldest first.
    pub fn take(&mut self) -> Vec<Hit> {
        let tail = self.end(TAIL_AT).load(Ordering::Relaxed);
        let head = self.end(HEAD_AT).load(Ordering::Acquire);
        let bytes = self.copy(tail, head);
        // Only now may the kernel write there again.
        self.end(TAIL_AT).store(head, Ordering::Release);
        let mut hits = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((record, len_bytes)) = Record::parse(self.architecture, rest) {
            match record {
                Record::Hit(hit) => hits.push(*hit),
                Record::Lost(count) => self.lost = self.lost.saturating_add(count),
                Record::Other => {}
            }
            rest = rest.get(len_bytes.max(8)..).unwrap_or_default();
        }
        hits
    }

    /// The records from one position to another; positions only grow.
    fn copy(&self, from: u64, to: u64) -> Vec<u8> {
        let len_bytes = usize::try_from(to.wrapping_sub(from)).unwrap_or(0).min(RING_LEN_BYTES);
        let start = usize::try_from(from % RING_LEN_BYTES as u64).unwrap_or(0);
        let first = len_bytes.min(RING_LEN_BYTES - start);
        let mut bytes = Vec::with_capacity(len_bytes);
        for (at, count) in [(start, first), (0, len_bytes - first)] {
            // SAFETY: `at + count` is at most the length of the ring's data, which follows its first page in the mapping;
            // the mapping lives as long as `self`, and the kernel writes only outside of tail to head.
            let part = unsafe {
                std::slice::from_raw_parts(self.ring.as_ptr().wrapping_add(self.page_size_bytes + at), count)
            };
            bytes.extend_from_slice(part);
        }
        bytes
    }

    fn end(&self, at: usize) -> &AtomicU64 {
        // SAFETY: the mapping is longer than a page and aligned to one, `at` is a multiple of 8 inside its first page, and
        // the word is only changed atomically, by the kernel (head) or by this type (tail).
        unsafe { AtomicU64::from_ptr(self.ring.as_mut_ptr().wrapping_add(at).cast()) }
    }

    const fn os_error(&self, call: &'static str, errno: Errno) -> SamplerError {
        SamplerError::Os { tid: self.tid, call, os_error: errno as i32 }
    }
}

const fn error(tid: i32, aim: Aim, call: &'static str, errno: Errno) -> SamplerError {
    let (address, len_bytes) = aim.place();
    match errno {
        Errno::ESRCH => SamplerError::Gone { tid },
        Errno::EACCES | Errno::EPERM => SamplerError::NotPermitted { tid },
        Errno::ENOSPC => SamplerError::NoRegister { tid },
        Errno::EINVAL | Errno::ENOENT | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENODEV => {
            SamplerError::Unsupported { address, len_bytes }
        }
        other => SamplerError::Os { tid, call, os_error: other as i32 },
    }
}

/// Nanoseconds of the clock that hits are stamped with.
pub fn sampler_clock_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// What one hit costs a thread on this machine, measured on the calling thread: the median of some rounds.
///
/// # Errors
///
/// As for [`ThreadSampler::open`].
pub fn hit_cost(architecture: Architecture, stack_len_bytes: u32) -> Result<Duration, SamplerError> {
    const ROUNDS: usize = 9;
    const HITS_PER_ROUND: u32 = 8;
    let word = AtomicU64::new(0);
    let aim = Aim::Writes { address: word.as_ptr() as u64, len_bytes: 8 };
    let tid = nix::unistd::gettid().as_raw();
    let mut sampler = ThreadSampler::open_thread(architecture, tid, aim, stack_len_bytes)?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        sampler.enable()?;
        let begun_ns = sampler_clock_ns();
        for value in 0..u64::from(HITS_PER_ROUND) {
            word.store(value, Ordering::SeqCst);
        }
        let span_ns = sampler_clock_ns().saturating_sub(begun_ns);
        sampler.disable()?;
        sampler.take();
        rounds.push(Duration::from_nanos(span_ns) / HITS_PER_ROUND);
    }
    rounds.sort_unstable();
    Ok(rounds.get(ROUNDS / 2).copied().unwrap_or_default())
}
