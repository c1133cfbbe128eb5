//! The order of the steps that stop a process of FreeBSD and let it go again, without any system call.
//!
//! There a process stops and goes on as a whole. A driver asks [`AttachProtocol::next_request`] what to do, does it, and tells what came
//! of it with [`AttachProtocol::answer`]. This module knows nothing of time: when the driver's patience ends it calls
//! [`AttachProtocol::give_up`]. It makes no heap allocation, as the driver is a process that was forked and may make none.
//!
//! Rules that it keeps, whatever the answers:
//!
//! - Nothing is attached to that cannot be let go at once: who waits for a device in the kernel comes to no stop, and until it does
//!   the kernel refuses to detach.
//! - The process is never told to go on before it is let go, so that it stops once and holds back at most one signal; that signal
//!   is handed over when it is let go.
//! - Who was stopped by a signal before is so again afterwards.
//! - What is attached is let go, or has ended; until then there is a further request.

/// The signal that attaching sends.
pub const SIGSTOP: i32 = 17;

/// What the driver shall do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Ask the kernel how the process is. Answer with [`Answer::Seen`].
    Look,
    /// Leave it alone for a moment, then go on. Answer with [`Answer::Done`].
    Nap,
    /// Attach, which asks it to stop.
    Attach,
    /// Wait until it stops or ends. Answer with [`Answer::Stopped`], [`Answer::Ended`] or, at anything else, [`Answer::Done`].
    Wait,
    /// Ask why it stopped. Answer with [`Answer::Cause`].
    Inspect,
    /// It stands still. Nothing to do until [`AttachProtocol::release`].
    AllStopped,
    /// Let it go, and deliver `signal` to it unless that is 0.
    Detach {
        /// The signal.
        signal: i32,
    },
    /// Send it the signal that stops it.
    StopAgain,
    /// Nothing is attached.
    Finished,
}

/// How a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Somebody traces it.
    pub is_traced: bool,
    /// A stop signal has stopped it.
    pub is_stopped: bool,
    /// It is about to execute another program.
    pub is_executing: bool,
    /// A thread of it waits in the kernel where no signal reaches it.
    pub waiting_tid: Option<i32>,
}

/// Why it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is about to receive the signal that it stopped with.
    Signal,
    /// It has executed another program.
    Executed,
    /// Another event of ptrace.
    Event,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It is so.
    Seen(Seen),
    /// There is no such process.
    NoSuchProcess,
    /// It is traced, executes a program, or does not stand still.
    Busy,
    /// It stopped with a signal.
    Stopped {
        /// The signal's number.
        signal: i32,
    },
    /// It ended.
    Ended,
    /// Why it stopped.
    Cause(Cause),
    /// The kernel refused, with this error number.
    Refused(i32),
}

/// Why a stop was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It has ended.
    Gone,
    /// Somebody else traces it.
    Traced,
    /// It has executed another program.
    Executed,
    /// It was about to execute another program until the driver gave up.
    Executing,
    /// This thread waited in the kernel until the driver gave up.
    Waiting(i32),
    /// It did not stop until the driver gave up.
    NotStopped,
    /// The kernel refused, with this error number.
    Refused(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Looking,
    Napping,
    Attaching,
    Waiting,
    Inspecting { signal: i32 },
    AllStopped { signal: i32 },
    Detaching { signal: i32 },
    StoppingAgain,
    Finished,
}

/// The state of one stop.
#[derive(Clone, Copy, Debug)]
pub struct AttachProtocol {
    phase: Phase,
    /// It was stopped before.
    was_stopped: bool,
    /// It is to be let go as soon as it stands still.
    is_releasing: bool,
    /// What kept it from being attached to last.
    obstacle: Failure,
    failure: Option<Failure>,
}

impl Default for AttachProtocol {
    fn default() -> Self {
        Self::new()
    }
}

impl AttachProtocol {
    /// A stop that has not begun.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Looking,
            was_stopped: false,
            is_releasing: false,
            obstacle: Failure::NotStopped,
            failure: None,
        }
    }

    /// What to do next. Asking again without an answer gives the same request.
    pub const fn next_request(&self) -> Request {
        match self.phase {
            Phase::Looking => Request::Look,
            Phase::Napping => Request::Nap,
            Phase::Attaching => Request::Attach,
            Phase::Waiting => Request::Wait,
            Phase::Inspecting { .. } => Request::Inspect,
            Phase::AllStopped { .. } => Request::AllStopped,
            Phase::Detaching { signal } => Request::Detach { signal },
            Phase::StoppingAgain => Request::StopAgain,
            Phase::Finished => Request::Finished,
        }
    }

    /// Why the stop was given up, if it was.
    pub const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Whether the process is attached to, and so must be let go.
    pub const fn is_attached(&self) -> bool {
        matches!(
            self.phase,
            Phase::Waiting | Phase::Inspecting { .. } | Phase::AllStopped { .. } | Phase::Detaching { .. }
        )
    }

    /// Lets the process go, from whatever state: one that has not come to its stop, when it has.
    pub const fn release(&mut self) {
        self.is_releasing = true;
        match self.phase {
            Phase::Looking | Phase::Napping | Phase::Attaching => self.phase = Phase::Finished,
            Phase::AllStopped { signal } => self.phase = Phase::Detaching { signal },
            _ => {}
        }
    }

    /// Ends the waiting, where it has not come to an end. What is attached has to be waited for all the same.
    pub const fn give_up(&mut self) {
        if matches!(self.phase, Phase::AllStopped { .. } | Phase::Finished) {
            return;
        }
        self.fail(if self.is_attached() { Failure::NotStopped } else { self.obstacle });
        self.release();
    }

    /// What came of the last request.
    pub const fn answer(&mut self, answer: Answer) {
        match (self.phase, answer) {
            (Phase::Looking, Answer::Seen(seen)) => self.saw(seen),
            (Phase::Napping, _) => self.phase = Phase::Looking,
            (Phase::Attaching, Answer::Done) => self.phase = Phase::Waiting,
            // Looking again tells by what.
            (Phase::Attaching, Answer::Busy) => self.phase = Phase::Napping,
            (Phase::Waiting, Answer::Stopped { signal: SIGSTOP }) => {
                self.stopped(if self.was_stopped { SIGSTOP } else { 0 });
            }
            (Phase::Waiting, Answer::Stopped { signal }) => self.phase = Phase::Inspecting { signal },
            (Phase::Waiting, Answer::Ended | Answer::NoSuchProcess | Answer::Refused(_)) => {
                self.fail(Failure::Gone);
                self.phase = Phase::Finished;
            }
            (Phase::Waiting, _) => {}
            (Phase::Inspecting { .. }, Answer::Cause(Cause::Executed)) => {
                self.fail(Failure::Executed);
                self.is_releasing = true;
                self.stopped(0);
            }
            (Phase::Inspecting { .. }, Answer::Cause(Cause::Event)) => self.stopped(0),
            (Phase::Inspecting { signal }, _) => self.stopped(signal),
            (Phase::Detaching { .. }, Answer::Done) if self.stops_again() => {
                self.phase = Phase::StoppingAgain;
            }
            (Phase::Detaching { .. }, Answer::Done) => self.phase = Phase::Finished,
            // It was killed: its end is to be taken note of. Or it runs, and will stop.
            (Phase::Detaching { .. }, _) => self.phase = Phase::Waiting,
            (Phase::Looking | Phase::Attaching, Answer::NoSuchProcess | Answer::Ended) => {
                self.fail(Failure::Gone);
                self.phase = Phase::Finished;
            }
            (Phase::Looking | Phase::Attaching, Answer::Refused(error)) => {
                self.fail(Failure::Refused(error));
                self.phase = Phase::Finished;
            }
            (Phase::StoppingAgain, _) => self.phase = Phase::Finished,
            (Phase::Looking | Phase::Attaching | Phase::AllStopped { .. } | Phase::Finished, _) => {}
        }
    }

    const fn saw(&mut self, seen: Seen) {
        self.was_stopped = seen.is_stopped;
        self.phase = match (seen.is_traced, seen.is_executing, seen.waiting_tid) {
            (true, _, _) => {
                self.fail(Failure::Traced);
                Phase::Finished
            }
            (false, true, _) => {
                self.obstacle = Failure::Executing;
                Phase::Napping
            }
            (false, false, Some(tid)) => {
                self.obstacle = Failure::Waiting(tid);
                Phase::Napping
            }
            (false, false, None) => Phase::Attaching,
        };
    }

    /// Stands still, with the signal that letting it go has to deliver.
    const fn stopped(&mut self, signal: i32) {
        self.phase =
            if self.is_releasing { Phase::Detaching { signal } } else { Phase::AllStopped { signal } };
    }

    /// Whether letting it go has delivered something else than the stop that it was in.
    const fn stops_again(&self) -> bool {
        self.was_stopped && !matches!(self.phase, Phase::Detaching { signal: SIGSTOP })
    }

    const fn fail(&mut self, failure: Failure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }
}
