//! The stopped window: from the request to stop to the moment when the process was let go.

use super::Process;
use super::priority::{RaisePriority, Raised, ThreadPriority};
use super::tracing::{Stamps, StoppedThread};
use crate::StopError;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// What a stop may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLimits {
    /// How long the process may stand still. [`Stopped::over_budget`] compares; letting go is up to the caller.
    pub budget: Duration,
    /// How long it may take until the process stands still.
    pub reach_max: Duration,
    /// When the guardian lets it go even if the caller does not ask for it: it may be stuck. [`Pause::expired`] tells.
    pub hold_max: Duration,
    /// Whether the calling thread's priority is raised meanwhile.
    pub raise_priority: RaisePriority,
}

impl Default for StopLimits {
    /// 50 ms of standing still, 2 s where the caller is stuck; 250 ms to get there.
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(50),
            reach_max: Duration::from_millis(250),
            hold_max: Duration::from_secs(2),
            raise_priority: RaisePriority::default(),
        }
    }
}

/// What a stop has cost the process, by the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// From the request to stop until all threads stood still.
    pub stop_latency_us: u64,
    /// From the request to stop until the process was let go.
    pub stopped_us: u64,
    /// From the wish to let go until it was.
    pub release_us: u64,
    /// Number of threads stopped.
    pub thread_count: usize,
    /// How the calling thread was scheduled meanwhile.
    pub raised: Raised,
    /// The process was let go because of [`StopLimits::hold_max`], before the caller wished it. What was read since the stop
    /// may have changed meanwhile and must not be used.
    pub expired: bool,
}

impl Pause {
    pub(super) fn of(stamps: Stamps, thread_count: usize) -> Self {
        let Stamps { attached_ns, stopped_ns, detached_ns } = stamps;
        Self {
            stop_latency_us: stopped_ns.saturating_sub(attached_ns) / 1000,
            stopped_us: detached_ns.saturating_sub(attached_ns) / 1000,
            thread_count,
            ..Self::default()
        }
    }
}

/// While this lives, all threads of the process stand still. Dropping it lets them go, also in a panic; so does the guardian
/// at the end of this tool by whatever cause.
///
/// Belongs to the thread that made it, whose priority it holds. There is no way to write to the process through it.
#[derive(Debug)]
pub struct Stopped<'a> {
    process: &'a Process,
    threads: Vec<StoppedThread>,
    began: Instant,
    budget: Duration,
    hold: Hold<'a>,
    priority: Option<ThreadPriority>,
    _of_this_thread: PhantomData<*mut ()>,
}

/// Lets the process go when it is dropped.
#[derive(Debug)]
struct Hold<'a>(&'a Process);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.tracing().release();
    }
}

impl<'a> Stopped<'a> {
    /// Stops all threads of the process and reads their registers.
    ///
    /// # Errors
    ///
    /// One variant of [`StopError`] for each reason. In every case the process runs again, or does as soon as the thread that
    /// [`StopError::Unstoppable`] names lets it.
    pub fn stop(process: &'a Process, limits: &StopLimits) -> Result<Self, StopError> {
        let mut priority = (limits.raise_priority == RaisePriority::BeforeStop).then(ThreadPriority::raise);
        let began = Instant::now();
        process.tracing().stop(limits.reach_max, limits.hold_max)?;
        let hold = Hold(process);
        if !process.has_same_image() {
            return Err(StopError::Executed { pid: process.pid() });
        }
        let threads = process.tracing().threads()?;
        if limits.raise_priority == RaisePriority::AfterStop {
            priority = Some(ThreadPriority::raise());
        }
        Ok(Self {
            process,
            threads,
            began,
            budget: limits.budget,
            hold,
            priority,
            _of_this_thread: PhantomData,
        })
    }

    /// The process.
    pub const fn process(&self) -> &'a Process {
        self.process
    }

    /// All its threads, in the order in which the kernel lists them.
    pub fn threads(&self) -> &[StoppedThread] {
        &self.threads
    }

    /// How long the process has been standing still, at most.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether the budget is used up. Ask between system calls.
    pub fn over_budget(&self) -> bool {
        self.elapsed() >= self.budget
    }

    /// When the budget ends.
    pub fn budget_end(&self) -> Instant {
        self.began + self.budget
    }

    /// Lets all threads go.
    pub fn release(self) -> Pause {
        let released = Instant::now();
        let ending = self.hold.0.tracing().release();
        let release_us = u64::try_from(released.elapsed().as_micros()).unwrap_or(u64::MAX);
        let raised = self.priority.as_ref().map(ThreadPriority::raised).unwrap_or_default();
        // A guardian that is no more has let go, nobody knows when.
        let (stamps, expired) = ending.unwrap_or((Stamps::default(), true));
        Pause { release_us, raised, expired, ..Pause::of(stamps, self.threads.len()) }
    }
}
