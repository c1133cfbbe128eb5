//! The stopped window: from the first interrupted thread to the last one let go.

use super::priority::{RaisePriority, Raised, ThreadPriority};
use super::tracer::Tracer;
use super::undisturbed::Undisturbed;
use super::{Process, system_call};
use crate::{Registers, StopError};
use nix::libc;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// What a stop may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLimits {
    /// How long the process may stand still. [`Stopped::over_budget`] compares; letting go is up to the caller.
    pub budget: Duration,
    /// How long it may take until all threads stand still. After that those that do are let go.
    pub reach_max: Duration,
    /// Whether the calling thread's priority is raised meanwhile.
    pub raise_priority: RaisePriority,
}

impl Default for StopLimits {
    /// 50 ms of standing still; 250 ms to get there.
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(50),
            reach_max: Duration::from_millis(250),
            raise_priority: RaisePriority::default(),
        }
    }
}

/// One thread of a stopped process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedThread {
    /// Its id, as seen from here.
    pub tid: i32,
    /// Its registers.
    pub registers: Registers,
}

/// What a stop has cost the process, by the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// From the first thread asked to stop until all stood still and their registers were read.
    pub stop_latency_us: u64,
    /// From the first thread asked to stop until the last was let go.
    pub stopped_us: u64,
    /// From the wish to let go until the last thread was.
    pub release_us: u64,
    /// Number of threads stopped.
    pub thread_count: usize,
    /// How the calling thread was scheduled meanwhile.
    pub raised: Raised,
}

/// While this lives, all threads of the process stand still. Dropping it lets them go, also in a panic; so does the end of the
/// calling thread, and of this tool by whatever cause.
///
/// Belongs to the thread that made it, as ptrace does. There is no way to write to the process through it.
#[derive(Debug)]
pub struct Stopped<'a> {
    tracer: Tracer<'a>,
    threads: Vec<StoppedThread>,
    began: Instant,
    stop_latency: Duration,
    budget: Duration,
    // Fields are dropped in this order, after the threads were let go: first the priority, then the signals.
    priority: Option<ThreadPriority>,
    _undisturbed: Undisturbed,
    _of_this_thread: PhantomData<*mut ()>,
}

impl<'a> Stopped<'a> {
    /// Stops all threads of the process and reads their registers.
    ///
    /// In the rare case of [`StopError::Unstoppable`] with threads that are [still attached](StopError::still_attached), the
    /// calling thread should end soon: those threads stop when they come out of the kernel, and only its end lets them go.
    /// [`Stopped::during`] takes care of that.
    ///
    /// # Errors
    ///
    /// One variant of [`StopError`] for each reason. In every case the threads that were stopped run again.
    pub fn stop(process: &'a Process, limits: &StopLimits) -> Result<Self, StopError> {
        let pid = process.pid();
        let mut tracer = Tracer::new(process)?;
        let undisturbed = Undisturbed::begin();
        let mut priority = (limits.raise_priority == RaisePriority::BeforeStop).then(ThreadPriority::raise);
        let entered = Instant::now();
        tracer.stop(entered + limits.reach_max)?;
        let began = tracer.first_interrupt.unwrap_or(entered);
        if limits.raise_priority == RaisePriority::AfterStop {
            priority = Some(ThreadPriority::raise());
        }
        let mut stopped = Self {
            threads: Vec::with_capacity(tracer.held().count()),
            tracer,
            began,
            stop_latency: Duration::ZERO,
            budget: limits.budget,
            priority,
            _undisturbed: undisturbed,
            _of_this_thread: PhantomData,
        };
        stopped.tracer.end_waiting();
        if !process.has_same_image() {
            return Err(StopError::Executed { pid });
        }
        stopped.read_registers().ok_or(StopError::Gone { pid })?;
        stopped.stop_latency = began.elapsed();
        Ok(stopped)
    }

    /// Does `work` while all threads of the process stand still, on a thread of its own. That thread's end lets go of every
    /// thread of the process, whatever state it is in.
    ///
    /// # Errors
    ///
    /// As [`Stopped::stop`].
    pub fn during<R: Send>(
        process: &Process,
        limits: &StopLimits,
        work: impl FnOnce(&Stopped<'_>) -> R + Send,
    ) -> Result<(R, Pause), StopError> {
        let window = || {
            let stopped = Stopped::stop(process, limits)?;
            let result = work(&stopped);
            Ok((result, stopped.release()))
        };
        std::thread::scope(|scope| match scope.spawn(window).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    fn read_registers(&mut self) -> Option<()> {
        for tid in self.tracer.held() {
            self.threads.push(StoppedThread { tid, registers: registers_of(tid)? });
        }
        Some(())
    }

    /// The process.
    pub const fn process(&self) -> &'a Process {
        self.tracer.process()
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
        self.tracer.let_go();
        let ended = self.tracer.last_detach.unwrap_or(released);
        Pause {
            stop_latency_us: micros(self.stop_latency),
            stopped_us: micros(ended.saturating_duration_since(self.began)),
            release_us: micros(ended.saturating_duration_since(released)),
            thread_count: self.threads.len(),
            raised: self.priority.as_ref().map(ThreadPriority::raised).unwrap_or_default(),
        }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.tracer.let_go();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const NT_PRSTATUS: i32 = libc::NT_PRSTATUS;

#[cfg(target_arch = "x86_64")]
fn registers_of(tid: i32) -> Option<Registers> {
    let mut bytes = [0; crate::registers::X86_64_USER_REGS_LEN_BYTES];
    let count = system_call::ptrace_register_set(tid, NT_PRSTATUS, &mut bytes).ok()?;
    Registers::from_x86_64_user_regs(bytes.get(..count)?)
}

#[cfg(target_arch = "aarch64")]
fn registers_of(tid: i32) -> Option<Registers> {
    const NT_ARM_TLS: i32 = 0x401;
    const NT_ARM_SYSTEM_CALL: i32 = 0x404;
    let mut bytes = [0; crate::registers::AARCH64_USER_REGS_LEN_BYTES];
    let count = system_call::ptrace_register_set(tid, NT_PRSTATUS, &mut bytes).ok()?;
    // The set has a second word, TPIDR2_EL0, on processors that know it.
    let mut thread_pointer = [0; 8];
    system_call::ptrace_register_set(tid, NT_ARM_TLS, &mut thread_pointer).ok()?;
    let mut number = [0; 4];
    let system_call = system_call::ptrace_register_set(tid, NT_ARM_SYSTEM_CALL, &mut number).ok();
    let system_call = system_call.map(|_| i32::from_le_bytes(number));
    Registers::from_aarch64_user_regs(bytes.get(..count)?, u64::from_le_bytes(thread_pointer), system_call)
}
