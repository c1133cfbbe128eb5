//! The driver of a [`StopProtocol`]: each request of it as a system call, and a limit on every wait.

use super::undisturbed::WAKE_UP;
use super::{Process, proc_file, system_call, threads};
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
use std::time::{Duration, Instant};

/// How long one wait lasts before other threads are looked at.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// Attaches to the threads of one process. Belongs to one thread of this tool, as ptrace does.
#[derive(Debug)]
pub struct Tracer<'a> {
    process: &'a Process,
    protocol: StopProtocol,
    /// Interrupts waits; made once, as making it costs more than setting it.
    timer: Timer,
    timer_is_set: bool,
    refused: Option<Errno>,
    pub first_interrupt: Option<Instant>,
    pub last_detach: Option<Instant>,
}

impl<'a> Tracer<'a> {
    pub fn new(process: &'a Process) -> Result<Self, StopError> {
        let wake_up =
            SigevNotify::SigevThreadId { signal: WAKE_UP, thread_id: gettid().as_raw(), si_value: 0 };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(wake_up))
            .map_err(|errno| os_error(process, "timer_create", errno))?;
        Ok(Self {
            process,
            protocol: StopProtocol::new(process.pid(), process.thread_count().unwrap_or(0)),
            timer,
            timer_is_set: false,
            refused: None,
            first_interrupt: None,
            last_detach: None,
        })
    }

    pub const fn process(&self) -> &'a Process {
        self.process
    }

    pub fn held(&self) -> impl Iterator<Item = i32> + '_ {
        self.protocol.held()
    }

    /// Works until all threads are stopped, or until the stop has failed and all are let go.
    pub fn stop(&mut self, deadline: Instant) -> Result<(), StopError> {
        self.run(deadline);
        match self.protocol.failure() {
            None => Ok(()),
            Some(failure) => {
                let error = self.failure_error(failure);
                self.let_go();
                Err(with_left_attached(error, self.protocol.left_attached()))
            }
        }
    }

    /// Gives up a stop that was reached, and lets all threads go.
    pub fn let_go(&mut self) {
        /// A thread that was killed, or that runs in the kernel, gets so long to show itself.
        const PATIENCE: Duration = Duration::from_millis(200);
        self.protocol.release();
        self.run(Instant::now() + PATIENCE);
        self.set_timer(false);
    }

    /// Does what the protocol asks for until it has nothing more to ask or changes from stopping to letting go.
    fn run(&mut self, deadline: Instant) {
        let failed_before = self.protocol.failure().is_some();
        loop {
            let request = self.protocol.next_request();
            if matches!(request, Request::AllStopped | Request::Finished) {
                return;
            }
            self.perform(request);
            let waits = matches!(request, Request::Wait(_) | Request::List | Request::Count);
            if waits && Instant::now() >= deadline {
                self.protocol.give_up();
            }
            if self.protocol.failure().is_some() && !failed_before {
                return;
            }
        }
    }

    fn perform(&mut self, request: Request) {
        match request {
            Request::List => match threads::list(self.process.pid()) {
                Ok(tids) => self.protocol.answer(Answer::Listed(&tids)),
                Err(_) => self.protocol.answer(Answer::NoSuchThread),
            },
            Request::Count => self.protocol.answer(Answer::Count(threads::count(self.process.pid()))),
            Request::Seize(tid) => {
                let answer = self.seize(tid);
                self.protocol.answer(answer);
            }
            Request::Interrupt(tid) => {
                self.first_interrupt.get_or_insert_with(Instant::now);
                let _ = ptrace::interrupt(Pid::from_raw(tid));
                self.protocol.answer(Answer::Done);
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
        match ptrace::seize(Pid::from_raw(tid), ptrace::Options::PTRACE_O_TRACEEXEC) {
            Ok(()) => Answer::Done,
            Err(Errno::ESRCH) => Answer::NoSuchThread,
            Err(errno) => self.refusal(tid, errno),
        }
    }

    /// What a thread that cannot be seized is: ended, this tracer's own already, or out of reach.
    fn refusal(&mut self, tid: i32, errno: Errno) -> Answer<'static> {
        match proc_file::status(tid) {
            Err(_) => Answer::NoSuchThread,
            Ok(status) if status.state.starts_with(['Z', 'X']) => Answer::Ended,
            Ok(status) if status.tracerpid == gettid().as_raw() => Answer::Done,
            Ok(_) => {
                self.refused = Some(errno);
                Answer::Refused
            }
        }
    }

    /// Looks at a thread's status and leaves it where it is: a stop that nobody has taken note of is undone by the kernel as if
    /// it had not been, with the signal that came up, should this tool be killed now.
    fn wait(&self, tid: i32, flags: i32) -> Answer<'static> {
        let status = match system_call::wait_for(tid, flags | libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT)
        {
            Ok(Some((code, status))) => WaitStatus::decode(code, status),
            Ok(None) | Err(Errno::EINTR) => return Answer::NotYet,
            Err(_) => return Answer::NoSuchThread,
        };
        // The kernel tells whoever made the process of its end when the tracer has taken note. Where both are the same, the end
        // is for that part of this tool to learn of.
        let is_own_child = self.process.is_own_child() && tid == self.process.pid();
        if status == WaitStatus::Ended && !is_own_child {
            let _ = system_call::wait_for(tid, libc::WEXITED | libc::WNOHANG);
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

    pub fn end_waiting(&mut self) {
        self.set_timer(false);
    }

    fn failure_error(&self, failure: Failure) -> StopError {
        let pid = self.process.pid();
        let waited = self.first_interrupt.map(|start| start.elapsed()).unwrap_or_default();
        match failure {
            Failure::NoThreads => StopError::Gone { pid },
            Failure::Executed => StopError::Executed { pid },
            Failure::Refused(tid) => self.refusal_error(tid),
            Failure::NotStopped(tid) => StopError::Unstoppable {
                pid,
                tid,
                name: self.process.thread_name(tid).unwrap_or_default(),
                state: proc_file::state_and_start(pid, tid).map_or('?', |(state, _)| state),
                waited,
                still_attached: Vec::new(),
            },
            Failure::EndlessThreads => {
                StopError::EndlessThreads { pid, thread_count: self.protocol.thread_count(), waited }
            }
        }
    }

    fn refusal_error(&self, tid: i32) -> StopError {
        let pid = self.process.pid();
        let tracer_pid = proc_file::status(tid).map_or(0, |status| status.tracerpid);
        match self.refused {
            Some(errno) if errno != Errno::EPERM => os_error(self.process, "ptrace(PTRACE_SEIZE)", errno),
            _ if tracer_pid != 0 => {
                let tracer_name = super::access::tracer_name(tracer_pid);
                StopError::AlreadyTraced { pid, tid, tracer_pid, tracer_name }
            }
            _ => StopError::NotPermitted { pid, tid },
        }
    }
}

fn os_error(process: &Process, call: &'static str, errno: Errno) -> StopError {
    StopError::Os { pid: process.pid(), call, os_error: errno as i32 }
}

fn with_left_attached(error: StopError, left: Vec<i32>) -> StopError {
    match error {
        StopError::Unstoppable { pid, tid, name, state, waited, .. } => {
            StopError::Unstoppable { pid, tid, name, state, waited, still_attached: left }
        }
        other => other,
    }
}
