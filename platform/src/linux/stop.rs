//! The stopped window: from the first interrupted thread to the last one let go.

use super::Process;
use super::priority::{RaisePriority, Raised, ThreadPriority};
use super::tracer::Traced;
use super::tracer_thread::{Limits, StoppedThread, TracerThread};
use super::undisturbed::Undisturbed;
use crate::StopError;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// What a stop may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLimits {
    /// How long the process may stand still. [`Stopped::over_budget`] compares; letting go is up to the caller.
    pub budget: Duration,
    /// How long it may take until all threads stand still. After that those that do are let go.
    pub reach_max: Duration,
    /// When all threads are let go even if the caller does not ask for it: it may be stuck. [`Pause::expired`] tells.
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
    /// From the first thread asked to stop until all stood still and the caller was told.
    pub stop_latency_us: u64,
    /// From the first thread asked to stop until the last was let go.
    pub stopped_us: u64,
    /// From the wish to let go until the last thread was.
    pub release_us: u64,
    /// Number of threads stopped.
    pub thread_count: usize,
    /// How the calling thread was scheduled meanwhile.
    pub raised: Raised,
    /// The threads were let go because of [`StopLimits::hold_max`], before the caller wished it. What was read since the stop
    /// may have changed meanwhile and must not be used.
    pub expired: bool,
}

/// While this lives, all threads of the process stand still. Dropping it lets them go, also in a panic; so does the end of this
/// tool by whatever cause.
///
/// Belongs to the thread that made it, whose priority and signals it holds. There is no way to write to the process through it.
#[derive(Debug)]
pub struct Stopped<'a> {
    process: &'a Process,
    threads: Vec<StoppedThread>,
    began: Instant,
    stop_latency: Duration,
    budget: Duration,
    // Fields are dropped in this order: first all threads are let go, then the priority and the signals are restored.
    tracer: TracerThread,
    priority: Option<ThreadPriority>,
    _undisturbed: Undisturbed,
    _of_this_thread: PhantomData<*mut ()>,
}

impl<'a> Stopped<'a> {
    /// Stops all threads of the process and reads their registers.
    ///
    /// Tracing is done by a thread made for it, as the kernel lets go of everything that is attached when that thread ends, even
    /// of what cannot be let go otherwise.
    ///
    /// # Errors
    ///
    /// One variant of [`StopError`] for each reason. In every case the threads that were stopped run again.
    pub fn stop(process: &'a Process, limits: &StopLimits) -> Result<Self, StopError> {
        // The thread made below inherits signals and priority.
        let undisturbed = Undisturbed::begin();
        let mut priority = (limits.raise_priority == RaisePriority::BeforeStop).then(ThreadPriority::raise);
        let traced = Traced { pid: process.pid(), is_own_child: process.is_own_child() };
        let tracer_limits = Limits { reach_max: limits.reach_max, hold_max: limits.hold_max };
        let (tracer, standstill) = TracerThread::start(traced, process.memory_file(), tracer_limits)?;
        if limits.raise_priority == RaisePriority::AfterStop {
            priority = Some(ThreadPriority::raise());
        }
        Ok(Self {
            process,
            threads: standstill.threads,
            began: standstill.began,
            stop_latency: standstill.began.elapsed(),
            budget: limits.budget,
            tracer,
            priority,
            _undisturbed: undisturbed,
            _of_this_thread: PhantomData,
        })
    }

    /// The process.
    pub const fn process(&self) -> &'a Process {
        self.process
    }

    /// All its threads, in the order in which they were found.
    pub fn threads(&self) -> &[StoppedThread] {
        &self.threads
    }

    /// How long the first thread has been standing still.
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
    pub fn release(mut self) -> Pause {
        let released = Instant::now();
        let ending = self.tracer.finish();
        let ended = ending.map_or_else(Instant::now, |ending| ending.ended);
        Pause {
            stop_latency_us: micros(self.stop_latency),
            stopped_us: micros(ended.saturating_duration_since(self.began)),
            release_us: micros(ended.saturating_duration_since(released)),
            thread_count: self.threads.len(),
            raised: self.priority.as_ref().map(ThreadPriority::raised).unwrap_or_default(),
            expired: ending.is_none_or(|ending| ending.expired),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
