//! The order of the steps that stop all threads of a process and let them go again, without any system call.
//!
//! A driver asks [`StopProtocol::next_request`] what to do, does it, and tells what came of it with [`StopProtocol::answer`]. This
//! module knows which threads were seen, which are stopped and which signal each was about to receive. It knows nothing of
//! time: when the driver's patience ends it calls [`StopProtocol::give_up`].
//!
//! Rules that it keeps, whatever the answers:
//!
//! - A thread is never told to go on before the end, so that each stops once and holds back at most one signal; that signal is
//!   handed over when it is let go.
//! - All threads count as stopped only when every thread that was listed has stopped or ended, and the kernel's own
//!   count of threads agrees. Stopped threads make no new ones, so from then on nothing can change that.
//! - Whatever goes wrong, every thread that was seized is let go, or is named in [`StopProtocol::left_attached`].

use crate::format::wait_status::WaitStatus;
use std::collections::HashMap;

/// Listings without a new thread after which all threads count as stopped even though the kernel's count disagrees.
const CLEAN_LISTINGS_MAX: u32 = 3;
/// Listings before the first thread is interrupted; more than one only where new threads keep coming.
const EARLY_LISTINGS_MAX: u32 = 4;

/// What the driver shall do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// List the process's threads. Answer with [`Answer::Listed`].
    List,
    /// Attach to a thread without stopping it, and ask for a stop where it executes another program. [`Answer::Done`] also where
    /// that was done before, under another id.
    Seize(i32),
    /// Ask an attached thread to stop. [`Answer::Done`] also where it has ended and is still attached.
    Interrupt(i32),
    /// Wait until a thread stops or ends; may be given up with [`Answer::NotYet`] after a while.
    Wait(i32),
    /// The same without waiting.
    Poll(i32),
    /// Ask the kernel how many threads there are. Answer with [`Answer::Count`].
    Count,
    /// Let a thread go, and deliver `signal` to it unless that is 0.
    Detach {
        /// The thread.
        tid: i32,
        /// The signal that it was about to receive.
        signal: i32,
    },
    /// All threads are stopped, unless a thread that was never seen has executed another program and taken the first thread's
    /// place: so compare the address space. Nothing to do until [`StopProtocol::release`].
    AllStopped,
    /// Nothing is attached any more, except [`StopProtocol::left_attached`].
    Finished,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// These are the threads.
    Listed(&'a [i32]),
    /// There are so many threads, or the kernel does not tell.
    Count(Option<usize>),
    /// It was done.
    Done,
    /// There is no such thread, or it is not attached or not stopped as supposed.
    NoSuchThread,
    /// The thread has ended, and only its entry is left.
    Ended,
    /// It is refused, for a reason that only the driver can know.
    Refused,
    /// The thread's status.
    Status(WaitStatus),
    /// Nothing has happened to the thread so far.
    NotYet,
}

/// Why a stop was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No thread is left.
    NoThreads,
    /// A thread vanished without ending: another one has executed a program.
    Executed,
    /// Attaching to this thread was refused.
    Refused(i32),
    /// This thread did not stop before the driver gave up.
    NotStopped(i32),
    /// New threads kept coming until the driver gave up.
    EndlessThreads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Listed, nothing done yet.
    New,
    /// Attached and running.
    Seized,
    /// Asked to stop, and not yet seen to.
    Interrupted,
    /// Stopped, with the signal that it was about to receive, or 0.
    Held { signal: i32 },
    /// It had ended when it was found. It stays listed until its parent, or its last sibling, notices.
    Remains,
    /// Ended or let go.
    Over,
}

impl State {
    const fn is_attached(self) -> bool {
        matches!(self, Self::Seized | Self::Interrupted | Self::Held { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Listing,
    Seizing,
    Interrupting,
    Waiting,
    /// Looking whether threads that were not waited for have changed, then going on with waiting.
    Sweeping,
    Counting,
    AllStopped,
    /// Every thread that runs is asked to stop, and every thread that is stopped is let go.
    Releasing,
    /// Those that were neither are waited for, before the next round of that.
    AwaitingRest,
    Finished,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    tid: i32,
    state: State,
}

/// The state of one stop, from the first listing to the last detached thread.
#[derive(Debug)]
pub struct StopProtocol {
    process_id: i32,
    threads: Vec<Thread>,
    index_by_tid: HashMap<i32, usize>,
    phase: Phase,
    cursor: usize,
    listings: u32,
    clean_listings: u32,
    interrupting: bool,
    asked: Option<(Request, usize)>,
    failure: Option<Failure>,
}

impl StopProtocol {
    /// A stop of this process that has not begun, with room for so many threads.
    pub fn new(process_id: i32, thread_count: usize) -> Self {
        Self {
            process_id,
            threads: Vec::with_capacity(thread_count + thread_count / 4 + 16),
            index_by_tid: HashMap::with_capacity(thread_count + thread_count / 4 + 16),
            phase: Phase::Listing,
            cursor: 0,
            listings: 0,
            clean_listings: 0,
            interrupting: false,
            asked: None,
            failure: None,
        }
    }

    /// What to do next. Asking again without an answer gives the same request.
    pub fn next_request(&mut self) -> Request {
        loop {
            if let Some((request, _)) = self.asked {
                return request;
            }
            let Some((request, index)) = self.step() else { continue };
            self.asked = Some((request, index));
        }
    }

    /// Why the stop was given up, if it was.
    pub const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Whether threads have been asked to stop by now.
    pub const fn has_interrupted(&self) -> bool {
        self.interrupting
    }

    /// The threads that are stopped.
    pub fn held(&self) -> impl Iterator<Item = i32> + '_ {
        self.threads
            .iter()
            .filter(|thread| matches!(thread.state, State::Held { .. }))
            .map(|thread| thread.tid)
    }

    /// Number of threads that were seen and have not ended.
    pub fn thread_count(&self) -> usize {
        self.threads.iter().filter(|thread| !matches!(thread.state, State::Remains | State::Over)).count()
    }

    /// The threads that could not be let go, once the request is [`Request::Finished`].
    pub fn left_attached(&self) -> Vec<i32> {
        self.threads.iter().filter(|thread| thread.state.is_attached()).map(|thread| thread.tid).collect()
    }

    /// Lets all threads go, from whatever state.
    pub fn release(&mut self) {
        if !self.is_releasing() {
            self.enter(Phase::Releasing);
        }
    }

    /// Ends the waiting: a stop in progress is given up and its threads are let go; letting go itself is ended where some thread
    /// does not stop.
    pub fn give_up(&mut self) {
        match self.phase {
            Phase::Finished => {}
            Phase::Releasing | Phase::AwaitingRest => self.enter(Phase::Finished),
            _ => {
                let unstopped = self.threads.iter().find(|thread| thread.state == State::Interrupted);
                self.fail(
                    unstopped.map_or(Failure::EndlessThreads, |thread| Failure::NotStopped(thread.tid)),
                );
            }
        }
    }

    /// What came of the last request.
    pub fn answer(&mut self, answer: Answer<'_>) {
        let Some((request, index)) = self.asked.take() else { return };
        match (request, answer) {
            (Request::List, Answer::Listed(tids)) => self.listed(tids),
            (Request::List, _) => self.fail(Failure::NoThreads),
            (Request::Count, Answer::Count(count)) => self.counted(count),
            (Request::Seize(tid), answer) => self.seized(tid, index, answer),
            (Request::Interrupt(_), Answer::NoSuchThread) => self.vanished(index),
            (Request::Interrupt(_), _) => self.set(index, State::Interrupted),
            (Request::Wait(_) | Request::Poll(_), answer) => self.waited(request, index, answer),
            (Request::Detach { .. }, Answer::Done) => self.set(index, State::Over),
            // It is about to end, or has become another program and runs: its status will tell.
            (Request::Detach { .. }, _) => self.set(index, State::Seized),
            (Request::Count, _) => self.counted(None),
            (Request::AllStopped | Request::Finished, _) => {}
        }
    }

    fn step(&mut self) -> Option<(Request, usize)> {
        match self.phase {
            Phase::Listing => Some((Request::List, 0)),
            Phase::Counting => Some((Request::Count, 0)),
            Phase::AllStopped => Some((Request::AllStopped, 0)),
            Phase::Finished => Some((Request::Finished, 0)),
            Phase::Seizing => self.each(request_to_seize, Self::after_seizing),
            Phase::Interrupting => self.each(request_to_stop, |stop| stop.enter(Phase::Waiting)),
            Phase::Waiting => self.each(request_to_wait, |stop| stop.enter(Phase::Counting)),
            Phase::Sweeping => self.each(request_to_look, |stop| stop.enter(Phase::Waiting)),
            Phase::Releasing => self.each(request_to_let_go, Self::after_letting_go),
            Phase::AwaitingRest => self.each(request_to_wait, |stop| stop.enter(Phase::Releasing)),
        }
    }

    /// The request for the next thread from the cursor on that needs one, or `after` when there is none.
    fn each(
        &mut self,
        request: fn(&Thread) -> Option<Request>,
        after: fn(&mut Self),
    ) -> Option<(Request, usize)> {
        while let Some(thread) = self.threads.get(self.cursor) {
            let index = self.cursor;
            self.cursor += 1;
            if let Some(request) = request(thread) {
                return Some((request, index));
            }
        }
        after(self);
        None
    }

    fn after_letting_go(&mut self) {
        let all_gone = !self.threads.iter().any(|thread| thread.state.is_attached());
        self.enter(if all_gone { Phase::Finished } else { Phase::AwaitingRest });
    }

    fn after_seizing(&mut self) {
        let goes_on_listing = !self.interrupting && self.listings < EARLY_LISTINGS_MAX;
        if goes_on_listing {
            self.enter(Phase::Listing);
        } else {
            self.interrupting = true;
            self.enter(Phase::Interrupting);
        }
    }

    fn listed(&mut self, tids: &[i32]) {
        self.listings = self.listings.saturating_add(1);
        let mut new_count = 0;
        for thread in self.threads.iter_mut().filter(|thread| thread.state == State::Remains) {
            if !tids.contains(&thread.tid) {
                thread.state = State::Over;
            }
        }
        for &tid in tids {
            match self.index_by_tid.get(&tid).copied() {
                None => {
                    self.add(tid);
                    new_count += 1;
                }
                // The kernel has given the id to a new thread.
                Some(index) if self.state(index) == Some(State::Over) => {
                    self.set(index, State::New);
                    new_count += 1;
                }
                Some(_) => {}
            }
        }
        if new_count > 0 {
            self.clean_listings = 0;
            self.enter(Phase::Seizing);
        } else if !self.interrupting {
            self.interrupting = true;
            self.enter(Phase::Interrupting);
        } else {
            self.clean_listings += 1;
            if self.clean_listings >= CLEAN_LISTINGS_MAX {
                self.all_stopped()
            } else {
                self.enter(Phase::Sweeping)
            }
        }
    }

    fn counted(&mut self, count: Option<usize>) {
        let counts = |state| matches!(state, State::Held { .. } | State::Remains);
        let known = self.threads.iter().filter(|thread| counts(thread.state)).count();
        if count == Some(known) { self.all_stopped() } else { self.enter(Phase::Listing) }
    }

    fn all_stopped(&mut self) {
        if self.held().next().is_some() {
            self.enter(Phase::AllStopped);
        } else {
            self.fail(Failure::NoThreads);
        }
    }

    fn seized(&mut self, tid: i32, index: usize, answer: Answer<'_>) {
        match answer {
            Answer::Done => self.set(index, State::Seized),
            Answer::Ended => self.set(index, State::Remains),
            Answer::Refused => {
                self.set(index, State::Over);
                self.fail(Failure::Refused(tid));
            }
            _ => self.set(index, State::Over),
        }
    }

    fn waited(&mut self, request: Request, index: usize, answer: Answer<'_>) {
        match answer {
            Answer::Status(WaitStatus::Ended) => self.set(index, State::Over),
            Answer::Status(WaitStatus::SignalDelivery { signal }) => self.set(index, State::Held { signal }),
            Answer::Status(WaitStatus::Executed) => {
                self.set(index, State::Held { signal: 0 });
                self.fail(Failure::Executed);
            }
            Answer::Status(WaitStatus::Interrupted | WaitStatus::GroupStop { .. }) => {
                self.set(index, State::Held { signal: 0 });
            }
            Answer::Status(WaitStatus::Other) | Answer::NotYet => {
                // The thread waited for may itself be waiting: for another one, which was killed, to be noticed.
                if matches!(request, Request::Wait(_)) && self.phase == Phase::Waiting {
                    self.enter(Phase::Sweeping);
                }
            }
            _ => self.vanished(index),
        }
    }

    /// A thread that is gone without having ended has executed a program and goes on under the first thread's id: attached,
    /// and perhaps not yet asked to stop. What was known of the first thread before holds no longer.
    fn vanished(&mut self, index: usize) {
        self.set(index, State::Over);
        let first = match self.index_by_tid.get(&self.process_id).copied() {
            Some(first) => first,
            None => self.add(self.process_id),
        };
        match self.state(first) {
            _ if first == index => {}
            // The signal was meant for the program before: the new one stops for the first time as it begins.
            Some(State::Held { .. }) => self.set(first, State::Held { signal: 0 }),
            _ => self.set(first, State::Seized),
        }
        self.fail(Failure::Executed);
    }

    fn fail(&mut self, failure: Failure) {
        if !self.is_releasing() {
            self.failure = Some(failure);
            self.release();
        }
    }

    const fn is_releasing(&self) -> bool {
        matches!(self.phase, Phase::Releasing | Phase::AwaitingRest | Phase::Finished)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.cursor = 0;
        self.asked = None;
    }

    fn add(&mut self, tid: i32) -> usize {
        let index = self.threads.len();
        self.index_by_tid.insert(tid, index);
        self.threads.push(Thread { tid, state: State::New });
        index
    }

    fn state(&self, index: usize) -> Option<State> {
        self.threads.get(index).map(|thread| thread.state)
    }

    fn set(&mut self, index: usize, state: State) {
        if let Some(thread) = self.threads.get_mut(index) {
            thread.state = state;
        }
    }
}

fn request_to_seize(thread: &Thread) -> Option<Request> {
    (thread.state == State::New).then_some(Request::Seize(thread.tid))
}

fn request_to_stop(thread: &Thread) -> Option<Request> {
    (thread.state == State::Seized).then_some(Request::Interrupt(thread.tid))
}

fn request_to_wait(thread: &Thread) -> Option<Request> {
    (thread.state == State::Interrupted).then_some(Request::Wait(thread.tid))
}

fn request_to_look(thread: &Thread) -> Option<Request> {
    matches!(thread.state, State::Interrupted | State::Held { .. }).then_some(Request::Poll(thread.tid))
}

fn request_to_let_go(thread: &Thread) -> Option<Request> {
    match thread.state {
        State::Held { signal } => Some(Request::Detach { tid: thread.tid, signal }),
        State::Seized => Some(Request::Interrupt(thread.tid)),
        _ => None,
    }
}
