//! A model of what FreeBSD does with a traced process, driven by a tape of events.
//!
//! It follows ptrace(2) and `kern_ptrace`, `ptracestop` and `issignal` of FreeBSD's kernel, and knows nothing of how heaptap stops a
//! process.

use heaptap_platform::attach_protocol::{Answer, Cause, SIGSTOP, Seen};
use std::collections::VecDeque;

/// What happens between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Nothing,
    /// Somebody sends a signal that the program handles.
    Signal,
    /// Somebody stops it, as a shell does.
    Stop,
    Kill,
    Exit,
    /// It begins to execute a program, or is done with that.
    Execute,
    /// A thread goes into the kernel to wait for a device, or comes back.
    Device,
    /// A debugger attaches, or detaches.
    Debugger,
    /// A thread comes or goes, the process forks: nothing of that is seen from outside.
    Thread,
}

pub const EVENTS: [Event; 9] = [
    Event::Nothing,
    Event::Signal,
    Event::Stop,
    Event::Kill,
    Event::Exit,
    Event::Execute,
    Event::Device,
    Event::Debugger,
    Event::Thread,
];

const WAITING_TID: i32 = 100_002;
const SIGTRAP: i32 = 5;

#[derive(Debug, Default)]
pub struct FakeFreebsd {
    /// Kernels before 11 report what comes first, later ones the stop of attaching.
    pub is_old: bool,
    pub is_gone: bool,
    pub is_traced: bool,
    /// Stopped by a signal, and not for a tracer.
    pub is_job_stopped: bool,
    /// Whether it ought to be, were it not for heaptap.
    pub ought_to_be_stopped: bool,
    pub is_waiting: bool,
    pub has_debugger: bool,
    pub is_executing: bool,
    /// The stop that attaching asked for has not been reported.
    pub attach_pending: bool,
    /// An execution is to be reported.
    pub executed_pending: bool,
    /// It stands still for its tracer, about to receive this.
    pub trace_stop: Option<(i32, Cause)>,
    pub end_pending: bool,
    /// Every signal ever sent has a number of its own.
    pub sent: Vec<i32>,
    pub delivered: Vec<i32>,
    pub pending: VecDeque<i32>,
    /// The tool has looked and not yet attached: the moment in which a stop of others goes by unseen.
    pub is_between: bool,
}

impl FakeFreebsd {
    pub fn look(&self) -> Answer {
        if self.is_gone {
            return Answer::NoSuchProcess;
        }
        Answer::Seen(Seen {
            is_traced: self.has_debugger,
            is_stopped: self.is_job_stopped,
            is_executing: self.is_executing,
            waiting_tid: self.is_waiting.then_some(WAITING_TID),
        })
    }

    pub fn attach(&mut self) -> Answer {
        if self.is_gone {
            return Answer::NoSuchProcess;
        }
        if self.has_debugger || self.is_executing {
            return Answer::Busy;
        }
        self.is_traced = true;
        self.attach_pending = true;
        self.is_job_stopped = false;
        Answer::Done
    }

    pub fn wait(&mut self) -> Answer {
        if self.end_pending {
            self.end_pending = false;
            self.is_traced = false;
            return Answer::Ended;
        }
        match self.trace_stop {
            _ if !self.is_traced => Answer::NoSuchProcess,
            Some((signal, _)) => Answer::Stopped { signal },
            None => Answer::Done,
        }
    }

    pub fn cause(&self) -> Answer {
        match self.trace_stop {
            Some((_, cause)) => Answer::Cause(cause),
            None => Answer::NoSuchProcess,
        }
    }

    pub fn detach(&mut self, signal: i32) -> Answer {
        if self.is_gone {
            return Answer::NoSuchProcess;
        }
        let Some((held, cause)) = self.trace_stop.take() else { return Answer::Busy };
        self.is_traced = false;
        self.attach_pending = false;
        if cause == Cause::Signal && held != SIGSTOP {
            assert_eq!(signal, held, "the signal that was held back is handed over");
        }
        match signal {
            0 => {}
            SIGSTOP => self.is_job_stopped = true,
            signal => self.delivered.push(signal),
        }
        self.advance();
        Answer::Done
    }

    pub fn stop_again(&mut self) {
        assert!(!self.is_traced);
        self.is_job_stopped |= !self.is_gone;
    }

    pub fn pass_time(&mut self, event: Event) {
        if self.is_gone {
            return;
        }
        let runs = self.trace_stop.is_none() && !self.is_job_stopped;
        match event {
            Event::Signal => {
                let number = 100 + self.sent.len() as i32;
                self.sent.push(number);
                self.pending.push_back(number);
            }
            // The same signal twice is one: a stop that somebody asks for in this moment cannot be told from the tool's own.
            Event::Stop if !self.is_between && !self.attach_pending => {
                self.pending.push_back(SIGSTOP);
                self.ought_to_be_stopped = true;
            }
            Event::Kill => self.end(),
            Event::Exit if runs && !self.is_waiting => self.end(),
            Event::Execute if runs && self.is_executing => {
                self.is_executing = false;
                self.executed_pending = self.is_traced;
            }
            Event::Execute if runs && !self.is_traced => self.is_executing = true,
            Event::Device if self.is_waiting || runs => self.is_waiting = !self.is_waiting,
            Event::Debugger if !self.is_traced => self.has_debugger = !self.has_debugger,
            _ => {}
        }
        self.advance();
    }

    fn end(&mut self) {
        self.is_gone = true;
        self.trace_stop = None;
        self.end_pending = self.is_traced;
    }

    /// What the process does by itself: threads that wait come to no stop.
    fn advance(&mut self) {
        if self.is_gone || self.is_waiting || self.trace_stop.is_some() {
            return;
        }
        if self.is_traced {
            let first = self.pending.front().copied();
            self.trace_stop = if self.is_old && self.executed_pending {
                self.executed_pending = false;
                Some((SIGTRAP, Cause::Executed))
            } else if let Some(signal) = first.filter(|signal| self.is_old && *signal != SIGSTOP) {
                self.pending.pop_front();
                Some((signal, Cause::Signal))
            } else if self.attach_pending {
                self.attach_pending = false;
                Some((SIGSTOP, Cause::Signal))
            } else {
                None
            };
            return;
        }
        while !self.is_job_stopped
            && let Some(signal) = self.pending.pop_front()
        {
            match signal {
                SIGSTOP => self.is_job_stopped = true,
                signal => self.delivered.push(signal),
            }
        }
    }

    /// Signals that have not come to the program yet, as it is stopped.
    pub fn pending(&self) -> impl Iterator<Item = i32> + '_ {
        self.pending.iter().copied().filter(|signal| *signal != SIGSTOP)
    }
}
