//! The thread of this tool that traces. It lives as long as one stop, so that its end lets go of whatever is still attached,
//! and it lets go by itself when the one who asked for the stop does not come back.

use super::process::{address_space_exists, find_living_thread};
use super::system_call;
use super::tracer::{Traced, Tracer};
use crate::format::wait_status::WaitStatus;
use crate::{Registers, StopError};
use nix::libc;
use nix::unistd::gettid;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One thread of a stopped process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedThread {
    /// Its id, as seen from here.
    pub tid: i32,
    /// Its registers.
    pub registers: Registers,
}

/// All threads stand still.
#[derive(Debug)]
pub struct Standstill {
    /// When the first of them was asked to stop.
    pub began: Instant,
    pub threads: Vec<StoppedThread>,
}

/// All threads were let go.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// When the last of them was.
    pub ended: Instant,
    /// Whether that was because nobody had asked for it in time.
    pub expired: bool,
}

/// How long the parts of a stop may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub reach_max: Duration,
    pub hold_max: Duration,
}

/// A thread that traces a process.
#[derive(Debug)]
pub struct TracerThread {
    /// Dropping it asks for the end.
    wish: Option<Sender<()>>,
    ending: Receiver<Ending>,
    handle: Option<JoinHandle<Remainder>>,
}

/// What the thread leaves to its own end.
#[derive(Clone, Copy, Debug)]
struct Remainder {
    tid: i32,
    has_left_attached: bool,
}

impl TracerThread {
    /// Starts the thread and waits until all threads of the process stand still.
    pub fn start(
        traced: Traced,
        memory_file: Arc<File>,
        limits: Limits,
    ) -> Result<(Self, Standstill), StopError> {
        let (wish, wishes) = channel();
        let (report, reports) = channel();
        let (ending_report, ending) = channel();
        let attaching = Arc::new(AtomicU64::new(0));
        let attaching_there = Arc::clone(&attaching);
        let body = move || {
            let mut tracer = match Tracer::new(traced, attaching_there) {
                Ok(tracer) => tracer,
                Err(error) => return leave(report.send(Err(error)).is_ok()),
            };
            let reached = reach_standstill(&mut tracer, traced.pid, &memory_file, limits);
            let is_reached = reached.is_ok();
            let _ = report.send(reached);
            if is_reached {
                let _ = ending_report.send(hold(&mut tracer, &wishes, limits));
            }
            leave(tracer.has_left_attached())
        };
        let spawned = std::thread::Builder::new().name("heaptap-stop".to_owned()).spawn(body);
        let handle = spawned.map_err(|error| StopError::Os {
            pid: traced.pid,
            call: "clone",
            os_error: error.raw_os_error().unwrap_or(libc::EAGAIN),
        })?;
        let mut thread = Self { wish: Some(wish), ending, handle: Some(handle) };
        match await_report(traced.pid, &reports, limits, &attaching) {
            Some(Ok(standstill)) => Ok((thread, standstill)),
            Some(Err(error)) => {
                thread.finish();
                Err(error)
            }
            None => {
                // It ends when the kernel lets it, and lets go of everything then.
                thread.handle = None;
                Err(StopError::Executing { pid: traced.pid, waited: limits.reach_max })
            }
        }
    }

    /// Has all threads let go, waits for that, and for the end of the tracing thread.
    pub fn finish(&mut self) -> Option<Ending> {
        drop(self.wish.take());
        let handle = self.handle.take()?;
        let ending = self.ending.recv().ok();
        if let Ok(remainder) = handle.join()
            && remainder.has_left_attached
        {
            wait_until_gone(remainder.tid);
        }
        ending
    }
}

impl Drop for TracerThread {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A joined thread has still to pass through the kernel, and it lets go there.
fn wait_until_gone(tid: i32) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let began = Instant::now();
    let folder = format!("/proc/self/task/{tid}");
    while std::fs::exists(&folder).unwrap_or(false) && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

fn leave(has_left_attached: bool) -> Remainder {
    Remainder { tid: gettid().as_raw(), has_left_attached }
}

fn reach_standstill(
    tracer: &mut Tracer,
    pid: i32,
    memory_file: &File,
    limits: Limits,
) -> Result<Standstill, StopError> {
    let entered = Instant::now();
    let outcome = tracer.stop(limits.reach_max).and_then(|()| {
        if !address_space_exists(memory_file) {
            return Err(StopError::Executed { pid });
        }
        registers_of_all(tracer).ok_or(StopError::Gone { pid })
    });
    match outcome {
        Ok(threads) => Ok(Standstill { began: tracer.first_interrupt.unwrap_or(entered), threads }),
        Err(error) => {
            tracer.let_go();
            Err(if matches!(error, StopError::Gone { .. }) { fate(pid, memory_file) } else { error })
        }
    }
}

/// What became of a process whose threads were killed: that happens when it ends and when it executes a program.
fn fate(pid: i32, memory_file: &File) -> StopError {
    const PATIENCE: Duration = Duration::from_millis(100);
    const PERIOD: Duration = Duration::from_micros(200);
    let began = Instant::now();
    while find_living_thread(pid).is_some() && began.elapsed() < PATIENCE {
        if !address_space_exists(memory_file) {
            return StopError::Executed { pid };
        }
        std::thread::sleep(PERIOD);
    }
    StopError::Gone { pid }
}

/// Waits for the wish to let go, or for the time limit, and lets go.
fn hold(tracer: &mut Tracer, wishes: &Receiver<()>, limits: Limits) -> Ending {
    // Whoever waits drops the other end to wish.
    let expired = wishes.recv_timeout(limits.hold_max) == Err(RecvTimeoutError::Timeout);
    tracer.let_go();
    Ending { ended: tracer.last_detach.unwrap_or_else(Instant::now), expired }
}

/// The tracing thread's report, or `None` where the kernel does not let it go on.
fn await_report(
    pid: i32,
    reports: &Receiver<Result<Standstill, StopError>>,
    limits: Limits,
    attaching: &AtomicU64,
) -> Option<Result<Standstill, StopError>> {
    /// What the tracing thread itself may take beyond its limit, letting go included.
    const GRACE: Duration = Duration::from_secs(1);
    const TICK: Duration = Duration::from_millis(5);
    let mut progressed = Instant::now();
    let mut attaching_before = 0;
    loop {
        match reports.recv_timeout(TICK) {
            Ok(report) => return Some(report),
            Err(RecvTimeoutError::Disconnected) => return Some(Err(StopError::Gone { pid })),
            Err(RecvTimeoutError::Timeout) if progressed.elapsed() >= limits.reach_max + GRACE => {
                return None;
            }
            Err(RecvTimeoutError::Timeout) => {
                let attaching_now = attaching.load(Ordering::Relaxed);
                if attaching_now != attaching_before {
                    progressed = Instant::now();
                } else if attaching_now % 2 == 1 {
                    // In the same call for so long: it is held up.
                    take_note_of_ended(pid);
                }
                attaching_before = attaching_now;
            }
        }
    }
}

/// A thread that executes a program waits in the kernel until its siblings have ended and their tracer has taken note. Attaching
/// to it waits until it has executed the program. So a tracer that attaches just then would wait for itself; another thread
/// of this tool has to take note for it. (Linux, `ptrace_attach` and `de_thread`: `cred_guard_mutex`.)
///
/// Only of those that have ended: the kernel tells a tracer of stops too, whatever it asks for (Linux, `wait_task_stopped` in
/// kernel/exit.c), and a stop that was taken note of here would never reach the tracing thread.
fn take_note_of_ended(pid: i32) {
    let flags = libc::WEXITED | libc::WNOHANG;
    let has_ended = |tid: i32| {
        let looked = system_call::wait_for(tid, flags | libc::WNOWAIT);
        matches!(looked, Ok(Some((code, status))) if WaitStatus::decode(code, status) == WaitStatus::Ended)
    };
    let tids = super::threads::list(pid).unwrap_or_default();
    for tid in tids.into_iter().filter(|&tid| tid != pid && has_ended(tid)) {
        let _ = system_call::wait_for(tid, flags);
    }
}

fn registers_of_all(tracer: &Tracer) -> Option<Vec<StoppedThread>> {
    let mut threads = Vec::with_capacity(tracer.held().count());
    for tid in tracer.held() {
        threads.push(StoppedThread { tid, registers: registers_of(tid)? });
    }
    Some(threads)
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
