//! A model of what Linux does with traced threads, driven by a tape of bytes that decide what happens when.
//!
//! It follows ptrace(2) and knows nothing of how heaptap stops a process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use heaptap_platform::format::wait_status::WaitStatus;
use std::collections::{BTreeMap, VecDeque};

pub const PROCESS_ID: i32 = 100;
const SIGSTOP: i32 = 19;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Running,
    /// In the kernel, until `leave_kernel`; for good if `stuck`.
    Uninterruptible,
    TraceStopped,
    GroupStopped,
    /// Has called exec and waits for all other threads to be gone.
    Executing,
    Zombie,
}

#[derive(Clone, Debug)]
pub struct Thread {
    pub run: Run,
    pub traced: bool,
    pub stuck: bool,
    interrupt_pending: bool,
    killed: bool,
    signals: VecDeque<i32>,
    in_delivery: Option<i32>,
    status: Option<WaitStatus>,
}

impl Thread {
    fn new(run: Run) -> Self {
        Self {
            run,
            traced: false,
            stuck: false,
            interrupt_pending: false,
            killed: false,
            signals: VecDeque::new(),
            in_delivery: None,
            status: None,
        }
    }
}

/// One process with its threads.
#[derive(Debug)]
pub struct FakeKernel {
    pub threads: BTreeMap<i32, Thread>,
    pub group_stopped: bool,
    /// Every signal ever sent has a number of its own, and stands here once it has reached the program.
    pub delivered: Vec<i32>,
    pub sent: Vec<i32>,
    /// Signals of threads that ended before they could take them.
    pub died_with_thread: Vec<i32>,
    /// Signals whose thread was replaced by another program while they were on their way.
    pub executed: bool,
    tape: VecDeque<u8>,
    clock: usize,
    next_tid: i32,
}

impl FakeKernel {
    pub fn new(thread_count: i32, tape: Vec<u8>) -> Self {
        let threads =
            (0..thread_count).map(|index| (PROCESS_ID + index, Thread::new(Run::Running))).collect();
        Self {
            threads,
            group_stopped: false,
            delivered: Vec::new(),
            sent: Vec::new(),
            died_with_thread: Vec::new(),
            executed: false,
            tape: tape.into(),
            clock: 0,
            next_tid: PROCESS_ID + thread_count,
        }
    }

    /// Lets whatever the tape says happen, then lets one thread get on.
    pub fn pass_time(&mut self) {
        let events = self.roll() % 3;
        for _ in 0..events {
            self.event();
        }
        let roll = self.roll();
        self.clock += 1;
        let tids = self.tids();
        if !tids.is_empty() {
            self.progress(tids[(self.clock + roll) % tids.len()]);
        }
    }

    /// Lets every thread get on until nothing changes any more, without anything new happening.
    pub fn settle(&mut self) {
        self.tape.clear();
        for _ in 0..self.sent.len() + 2 * self.threads.len() + 4 {
            for tid in self.tids() {
                if self.threads.get(&tid).is_some_and(|thread| !thread.stuck) {
                    self.leave_kernel(tid);
                    self.progress(tid);
                }
            }
        }
    }

    pub fn is_tape_over(&self) -> bool {
        self.tape.is_empty()
    }

    fn tids(&self) -> Vec<i32> {
        self.threads.keys().copied().collect()
    }

    fn roll(&mut self) -> usize {
        self.tape.pop_front().map_or(0, usize::from)
    }

    fn pick(&mut self, fits: fn(&Thread) -> bool) -> Option<i32> {
        let tids: Vec<i32> =
            self.threads.iter().filter(|(_, thread)| fits(thread)).map(|(&tid, _)| tid).collect();
        let roll = self.roll();
        (!tids.is_empty()).then(|| tids[roll % tids.len()])
    }

    fn event(&mut self) {
        match self.roll() % 16 {
            0..=3 => self.send_signal(),
            4..=5 => self.clone_thread(),
            6..=7 => drop(self.exit_thread()),
            8 => self.group_stopped = true,
            9 => self.continue_group(),
            10..=11 => self.enter_kernel(),
            12..=13 => {
                if let Some(tid) = self.pick(|thread| thread.run == Run::Uninterruptible) {
                    self.leave_kernel(tid);
                }
            }
            14 if self.roll().is_multiple_of(8) => self.exec(),
            15 if self.roll().is_multiple_of(8) => self.kill_all(),
            _ => {}
        }
    }

    fn send_signal(&mut self) {
        if let Some(tid) = self.pick(|thread| thread.run != Run::Zombie && !thread.killed) {
            let signal = self.sent.len() as i32 + 1;
            self.sent.push(signal);
            self.threads.get_mut(&tid).unwrap().signals.push_back(signal);
        }
    }

    fn clone_thread(&mut self) {
        if self.threads.len() < 24
            && self.pick(|thread| thread.run == Run::Running && !thread.killed).is_some()
        {
            self.threads.insert(self.next_tid, Thread::new(Run::Running));
            self.next_tid += 1;
        }
    }

    fn exit_thread(&mut self) -> bool {
        match self.pick(|thread| thread.run == Run::Running) {
            Some(tid) => {
                self.end(tid);
                true
            }
            None => false,
        }
    }

    fn enter_kernel(&mut self) {
        if let Some(tid) = self.pick(|thread| thread.run == Run::Running) {
            let stuck = self.roll().is_multiple_of(4);
            let thread = self.threads.get_mut(&tid).unwrap();
            thread.run = Run::Uninterruptible;
            thread.stuck = stuck;
        }
    }

    fn leave_kernel(&mut self, tid: i32) {
        let thread = self.threads.get_mut(&tid).unwrap();
        if thread.run == Run::Uninterruptible {
            thread.run = Run::Running;
            thread.stuck = false;
        }
    }

    fn continue_group(&mut self) {
        self.group_stopped = false;
        for thread in self.threads.values_mut().filter(|thread| thread.run == Run::GroupStopped) {
            thread.run = Run::Running;
        }
    }

    fn kill_all(&mut self) {
        for thread in self.threads.values_mut() {
            thread.killed = true;
        }
    }

    /// A thread executes another program: all others are killed, and it takes the first one's id.
    fn exec(&mut self) {
        if self.threads.values().any(|thread| thread.run == Run::Executing) {
            return;
        }
        if let Some(tid) = self.pick(|thread| thread.run == Run::Running && !thread.killed) {
            for thread in self.threads.values_mut() {
                thread.killed = true;
            }
            let thread = self.threads.get_mut(&tid).unwrap();
            thread.killed = false;
            thread.run = Run::Executing;
        }
    }

    fn finish_exec(&mut self, tid: i32) {
        let others_are_gone = self
            .threads
            .iter()
            .all(|(&other, thread)| other == tid || (other == PROCESS_ID && thread.run == Run::Zombie));
        if others_are_gone {
            self.executed = true;
            let mut thread = self.threads.remove(&tid).unwrap();
            thread.run = Run::Running;
            if thread.traced {
                stop(&mut thread, WaitStatus::Executed);
            }
            self.threads.insert(PROCESS_ID, thread);
        }
    }

    /// The end of a thread: its tracer is to learn of it; without one it is gone, unless it is the first of several.
    fn end(&mut self, tid: i32) {
        let thread = self.threads.get_mut(&tid).unwrap();
        thread.run = Run::Zombie;
        thread.status = Some(WaitStatus::Ended);
        let signals = thread.signals.drain(..).chain(thread.in_delivery.take());
        self.died_with_thread.extend(signals);
        self.bury();
    }

    fn bury(&mut self) {
        self.threads.retain(|&tid, thread| thread.run != Run::Zombie || thread.traced || tid == PROCESS_ID);
        if self.threads.len() == 1
            && self.threads.get(&PROCESS_ID).is_some_and(|first| first.run == Run::Zombie && !first.traced)
        {
            self.threads.clear();
        }
    }

    /// One thread gets on by one step.
    fn progress(&mut self, tid: i32) {
        let group_stopped = self.group_stopped;
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        if thread.killed && !matches!(thread.run, Run::Uninterruptible | Run::Zombie) {
            return self.end(tid);
        }
        match thread.run {
            Run::Executing => self.finish_exec(tid),
            Run::Running if thread.interrupt_pending => {
                thread.interrupt_pending = false;
                let status = if group_stopped {
                    WaitStatus::GroupStop { signal: SIGSTOP }
                } else {
                    WaitStatus::Interrupted
                };
                stop(thread, status);
            }
            Run::Running if group_stopped && thread.traced => {
                stop(thread, WaitStatus::GroupStop { signal: SIGSTOP })
            }
            Run::Running if group_stopped => thread.run = Run::GroupStopped,
            Run::Running => match thread.signals.pop_front() {
                Some(signal) if thread.traced => {
                    thread.in_delivery = Some(signal);
                    stop(thread, WaitStatus::SignalDelivery { signal });
                }
                Some(signal) => self.delivered.push(signal),
                None => {}
            },
            _ => {}
        }
    }

    // The tracer's side.

    /// All threads; one may be missed if another one ends just then.
    pub fn list(&mut self, may_miss: bool) -> Vec<i32> {
        let has_ended = may_miss && self.roll() % 4 == 1 && self.exit_thread();
        let mut tids = self.tids();
        if has_ended && !tids.is_empty() {
            let roll = self.roll();
            tids.remove(roll % tids.len());
        }
        tids
    }

    /// `None`: no such thread. `Some(false)`: it has ended.
    pub fn seize(&mut self, tid: i32) -> Option<bool> {
        let thread = self.threads.get_mut(&tid)?;
        if thread.run == Run::Zombie {
            return Some(false);
        }
        // It may have taken the first thread's id since it was seized. A driver sees that it is its own.
        if thread.traced {
            return Some(true);
        }
        thread.traced = true;
        if thread.run == Run::GroupStopped {
            stop(thread, WaitStatus::GroupStop { signal: SIGSTOP });
        }
        Some(true)
    }

    /// False for a thread that is not traced; an ended one that nobody has taken note of is.
    pub fn interrupt(&mut self, tid: i32) -> bool {
        match self.threads.get_mut(&tid).filter(|thread| thread.traced) {
            Some(thread) => {
                thread.interrupt_pending |= thread.run != Run::TraceStopped;
                true
            }
            None => false,
        }
    }

    /// `None`: not a traced thread. `Some(None)`: nothing to report. A stop is reported again and again; an end takes the thread
    /// away.
    pub fn wait(&mut self, tid: i32) -> Option<Option<WaitStatus>> {
        let is_alone = self.threads.len() == 1;
        let thread = self.threads.get_mut(&tid).filter(|thread| thread.traced)?;
        // The first thread's end is reported last.
        if thread.run == Run::Zombie && tid == PROCESS_ID && !is_alone {
            return Some(None);
        }
        let status = thread.status;
        if status == Some(WaitStatus::Ended) {
            self.threads.remove(&tid);
        }
        Some(status)
    }

    pub fn detach(&mut self, tid: i32, signal: i32) -> bool {
        match self.threads.get_mut(&tid) {
            Some(thread) if thread.traced && thread.run == Run::TraceStopped && !thread.killed => {
                thread.traced = false;
                thread.interrupt_pending = false;
                thread.status = None;
                thread.run = Run::Running;
                thread.in_delivery = None;
                if signal != 0 {
                    self.delivered.push(signal);
                }
                true
            }
            _ => false,
        }
    }
}

fn stop(thread: &mut Thread, status: WaitStatus) {
    thread.run = Run::TraceStopped;
    thread.status = Some(status);
}
