//! The driver of a [`StopProtocol`]: each request of it as a system call, and a limit on every wait.

use super::undisturbed::WAKE_UP;
use super::{proc_file, system_call, threads};
use crate::StopError;
use crate::format::wait_status::WaitStatus;
use crate::stop_protocol::{Answer, Failure, Request, StopProtocol};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{SigEvent, SigevNotify};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::{Pid, gettid};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one wait lasts before other threads are looked at.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// How long a thread that was killed, or that runs in the kernel, gets to show itself before it is left to the end of the
/// tracing thread.
const PATIENCE: Duration = Duration::from_millis(200);

/// The process that is traced.
#[derive(Clone, Copy, Debug)]
pub struct Traced {
    pub pid: i32,
    pub is_own_child: bool,
}

/// Attaches to the threads of one process. Belongs to one thread of this tool, as ptrace does.
#[derive(Debug)]
pub struct Tracer {
    traced: Traced,
    protocol: StopProtocol,
    /// Interrupts waits; made once, as making it costs more than setting it.
    timer: Timer,
    timer_is_set: bool,
    refused: Option<Errno>,
    /// Odd while the thread is in a call that the kernel may hold up; see [`super::tracer_thread`].
    attaching: Arc<AtomicU64>,
    pub first_interrupt: Option<Instant>,
    pub last_detach: Option<Instant>,
}

impl Tracer {
    pub fn new(traced: Traced, attaching: Arc<AtomicU64>) -> Result<Self, StopError> {
        let wake_up =
            SigevNotify::SigevThreadId { signal: WAKE_UP, thread_id: gettid().as_raw(), si_value: 0 };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(wake_up)).map_err(|errno| {
            StopError::Os { pid: traced.pid, call: "timer_create", os_error: errno as i32 }
        })?;
        Ok(Self {
            traced,
            protocol: StopProtocol::new(traced.pid, threads::count(traced.pid).unwrap_or(0)),
            timer,
            timer_is_set: false,
            refused: None,
            attaching,
            first_interrupt: None,
            last_detach: None,
        })
    }

    pub fn held(&self) -> impl Iterator<Item = i32> + '_ {
        self.protocol.held()
    }

    /// Works until all threads are stopped, or until the stop has failed and all are let go.
    ///
    /// The time runs from the moment when the first thread is asked to stop. Before that nobody waits for this tool, while this
    /// tool may have to wait: a thread that is stopped already must be given a processor before the kernel lets anybody
    /// attach to it (Linux, `ptrace_attach` in kernel/ptrace.c: `JOBCTL_TRAPPING`).
    pub fn stop(&mut self, reach_max: Duration) -> Result<(), StopError> {
        self.run(|tracer| tracer.first_interrupt.is_some_and(|first| first.elapsed() >= reach_max));
        self.set_timer(false);
        let Some(failure) = self.protocol.failure() else { return Ok(()) };
        let error = self.failure_error(failure);
        self.let_go();
        Err(error)
    }

    /// Lets all threads go, in whatever state they are.
    pub fn let_go(&mut self) {
        self.protocol.release();
        let began = Instant::now();
        self.run(|_| began.elapsed() >= PATIENCE);
        self.set_timer(false);
    }

    /// Whether a thread has not come to a stop from which it could be let go. The end of the calling thread lets it go.
    pub fn has_left_attached(&self) -> bool {
        !self.protocol.left_attached().is_empty()
    }

    /// Does what the protocol asks for until it has nothing more to ask or changes from stopping to letting go.
    fn run(&mut self, is_over: impl Fn(&Self) -> bool) {
        let failed_before = self.protocol.failure().is_some();
        loop {
            let request = self.protocol.next_request();
            if matches!(request, Request::AllStopped | Request::Finished) {
                return;
            }
            self.perform(request);
            if self.protocol.failure().is_some() && !failed_before {
                return;
            }
            let waits = matches!(request, Request::Wait(_) | Request::List | Request::Count);
            if waits && is_over(self) {
                self.protocol.give_up();
            }
        }
    }

    fn perform(&mut self, request: Request) {
        match request {
            Request::List => match threads::list(self.traced.pid) {
                Ok(tids) => self.protocol.answer(Answer::Listed(&tids)),
                Err(_) => self.protocol.answer(Answer::NoSuchThread),
            },
            Request::Count => self.protocol.answer(Answer::Count(threads::count(self.traced.pid))),
            Request::Seize(tid) => {
                let answer = self.seize(tid);
                self.protocol.answer(answer);
            }
            Request::Interrupt(tid) => {
                self.first_interrupt.get_or_insert_with(Instant::now);
                self.protocol.answer(if interrupt(tid) { Answer::Done } else { Answer::NoSuchThread });
            }
            Request::Wait(tid) => {
                self.set_timer(true);
                self.protocol.answer(self.wait(tid, 0));
            }
            Request::Poll(tid) => self.protocol.answer(self.wait(tid, libc::WNOHANG)),
            Request::Detach { tid, signal } => {
                let detached = system_call::ptrace_detach(tid, signal);
                self.last_detach = Some(Instant::now());
                self.protocol.answer(if detached.is_ok() { Answer::Done } else { Answer::NoSuchThread });
            }
            Request::AllStopped | Request::Finished => {}
        }
    }

    fn seize(&mut self, tid: i32) -> Answer<'static> {
        self.attaching.fetch_add(1, Ordering::Relaxed);
        let answer = self.try_to_seize(tid);
        self.attaching.fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn try_to_seize(&mut self, tid: i32) -> Answer<'static> {
        /// A thread in the middle of executing a program or of ending is refused, and a moment later is something else.
        const ATTEMPTS_MAX: usize = 5;
        for _ in 0..ATTEMPTS_MAX {
            match ptrace::seize(Pid::from_raw(tid), ptrace::Options::PTRACE_O_TRACEEXEC) {
                Ok(()) => return Answer::Done,
                Err(Errno::ESRCH) => return Answer::NoSuchThread,
                Err(errno) => self.refused = Some(errno),
            }
            match proc_file::status(tid) {
                Err(_) => return Answer::NoSuchThread,
                Ok(status) if status.state.starts_with(['Z', 'X']) => return Answer::Ended,
                Ok(status) if status.tracerpid == gettid().as_raw() => return Answer::Done,
                Ok(status) if status.tracerpid != 0 => return Answer::Refused,
                Ok(_) => {}
            }
        }
        Answer::Refused
    }

    /// Looks at a thread's status and leaves it where it is: a stop that nobody has taken note of is undone by the kernel as if
    /// it had not been, with the signal that came up, should this tool be killed now.
    fn wait(&self, tid: i32, flags: i32) -> Answer<'static> {
        let is_own_child = self.traced.is_own_child && tid == self.traced.pid;
        let status = match system_call::wait_for(tid, flags | libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT)
        {
            Ok(Some((code, status))) => WaitStatus::decode(code, status),
            // A child can be waited for whether it is traced or not, so that is asked in another way.
            Ok(None) | Err(Errno::EINTR) if is_own_child && !interrupt(tid) => return Answer::NoSuchThread,
            Ok(None) | Err(Errno::EINTR) => return Answer::NotYet,
            Err(_) => return Answer::NoSuchThread,
        };
        // The kernel tells whoever made the process of its end when the tracer has taken note. Where both are the same, the end
        // is for that part of this tool to learn of.
        if status == WaitStatus::Ended && !is_own_child {
            let _ = system_call::wait_for(tid, libc::WEXITED | libc::WNOHANG);
        }
        // A thread that has changed its id so is let go by nobody who has not taken note (`ptrace_freeze_traced` in Linux 5.13,
        // kernel/ptrace.c), and no signal depends on this stop.
        if status == WaitStatus::Executed {
            let _ = system_call::wait_for(tid, libc::WSTOPPED | libc::WNOHANG);
        }
        Answer::Status(status)
    }

    /// A set timer interrupts whatever system call the thread is in, again and again, as the first time may come just before a
    /// wait begins.
    fn set_timer(&mut self, on: bool) {
        if self.timer_is_set != on {
            self.timer_is_set = on;
            let interval =
                if on { TimeSpec::from_duration(WAIT_MAX) } else { TimeSpec::from_duration(Duration::ZERO) };
            let _ = self.timer.set(Expiration::Interval(interval), TimerSetTimeFlags::empty());
        }
    }

    fn failure_error(&self, failure: Failure) -> StopError {
        let pid = self.traced.pid;
        let waited = self.first_interrupt.map(|start| start.elapsed()).unwrap_or_default();
        match failure {
            Failure::NoThreads => StopError::Gone { pid },
            Failure::Executed => StopError::Executed { pid },
            Failure::Refused(tid) => self.refusal_error(tid),
            Failure::NotStopped(tid) => StopError::Unstoppable {
                pid,
                tid,
                name: threads::name(pid, tid).unwrap_or_default(),
                state: proc_file::state_and_start(pid, tid).map_or('?', |(state, _)| state),
                waited,
            },
            Failure::EndlessThreads => {
                StopError::EndlessThreads { pid, thread_count: self.protocol.thread_count(), waited }
            }
        }
    }

    fn refusal_error(&self, tid: i32) -> StopError {
        let pid = self.traced.pid;
        let tracer_pid = proc_file::status(tid).map_or(0, |status| status.tracerpid);
        match self.refused {
            Some(errno) if errno != Errno::EPERM => {
                StopError::Os { pid, call: "ptrace(PTRACE_SEIZE)", os_error: errno as i32 }
            }
            _ if tracer_pid != 0 => {
                let tracer_name = super::access::tracer_name(tracer_pid);
                StopError::AlreadyTraced { pid, tid, tracer_pid, tracer_name }
            }
            _ => StopError::NotPermitted { pid, tid },
        }
    }
}

/// Asks a traced thread to stop. False if it is not traced by the calling thread; a thread that has ended is, until somebody
/// has taken note.
fn interrupt(tid: i32) -> bool {
    ptrace::interrupt(Pid::from_raw(tid)) != Err(Errno::ESRCH)
}
