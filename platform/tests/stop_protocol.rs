//! Does the order of the steps of a stop hold in whatever order the kernel's events come?

#[path = "support/fake_kernel.rs"]
mod fake_kernel;

use fake_kernel::{FakeKernel, PROCESS_ID, Run};
use heaptap_platform::format::wait_status::WaitStatus;
use heaptap_platform::stop_protocol::{Answer, Failure, Request, StopProtocol};
use proptest::prelude::*;

/// One stop of a fake process. Counts what was asked, so that endless work shows.
struct Driver {
    kernel: FakeKernel,
    protocol: StopProtocol,
    tells_count: bool,
    requests: usize,
    /// Waits in vain after which the driver loses its patience.
    patience: usize,
    waited_in_vain: usize,
    is_releasing: bool,
}

impl Driver {
    fn new(thread_count: i32, tape: Vec<u8>, tells_count: bool, patience: usize) -> Self {
        Self {
            kernel: FakeKernel::new(thread_count, tape),
            protocol: StopProtocol::new(PROCESS_ID, 0),
            tells_count,
            requests: 0,
            patience,
            waited_in_vain: 0,
            is_releasing: false,
        }
    }

    fn run(&mut self) -> Request {
        loop {
            let request = self.protocol.next_request();
            if matches!(request, Request::AllStopped | Request::Finished) {
                return request;
            }
            self.requests += 1;
            assert!(self.requests < 100_000, "the stop does not end");
            self.perform(request);
            self.kernel.pass_time();
        }
    }

    fn perform(&mut self, request: Request) {
        match request {
            Request::List => {
                let tids = self.kernel.list(self.tells_count);
                self.protocol.answer(if tids.is_empty() {
                    Answer::NoSuchThread
                } else {
                    Answer::Listed(&tids)
                });
            }
            Request::Count => {
                let count = self.tells_count.then_some(self.kernel.threads.len());
                self.protocol.answer(Answer::Count(count));
            }
            Request::Seize(tid) => self.protocol.answer(match self.kernel.seize(tid) {
                None => Answer::NoSuchThread,
                Some(true) => Answer::Done,
                Some(false) => Answer::Ended,
            }),
            Request::Interrupt(tid) => {
                let done = self.kernel.interrupt(tid);
                self.protocol.answer(if done { Answer::Done } else { Answer::NoSuchThread });
            }
            Request::Wait(tid) => self.wait(tid),
            Request::Poll(tid) => self.look(tid),
            Request::Detach { tid, signal } => {
                let done = self.kernel.detach(tid, signal);
                self.protocol.answer(if done { Answer::Done } else { Answer::NoSuchThread });
            }
            Request::AllStopped | Request::Finished => unreachable!(),
        }
    }

    fn look(&mut self, tid: i32) {
        let status = self.kernel.wait(tid);
        self.report(status);
    }

    fn report(&mut self, status: Option<Option<WaitStatus>>) {
        self.protocol.answer(match status {
            None => Answer::NoSuchThread,
            Some(None) => Answer::NotYet,
            Some(Some(status)) => Answer::Status(status),
        });
    }

    /// Waits for some time; then gives up for this time, and in the end for good.
    fn wait(&mut self, tid: i32) {
        for _ in 0..50 {
            match self.kernel.wait(tid) {
                Some(None) => self.kernel.pass_time(),
                status => return self.report(status),
            }
        }
        if self.kernel.is_tape_over() {
            self.kernel.settle();
        }
        self.protocol.answer(Answer::NotYet);
        self.waited_in_vain += 1;
        // Letting go deserves more patience than stopping does.
        let is_letting_go = self.is_releasing || self.protocol.failure().is_some();
        if self.waited_in_vain > if is_letting_go { 100 } else { self.patience } {
            self.waited_in_vain = 0;
            self.protocol.give_up();
        }
    }

    fn check_all_stopped(&self) {
        for (tid, thread) in &self.kernel.threads {
            let still = matches!(thread.run, Run::TraceStopped | Run::Zombie);
            assert!(still, "thread {tid} is {:?} while all should be stopped", thread.run);
            assert!(thread.traced || thread.run == Run::Zombie, "thread {tid} is stopped and not ours");
        }
    }

    fn check_released(&mut self) {
        let left = self.protocol.left_attached();
        for (tid, thread) in &self.kernel.threads {
            assert_eq!(thread.traced, left.contains(tid), "thread {tid}: {thread:?}, left {left:?}");
            // The first thread's end is not told before the others' ends.
            let is_first_of_many =
                *tid == PROCESS_ID && thread.run == Run::Zombie && self.kernel.threads.len() > 1;
            let cannot_go = thread.stuck || thread.run == Run::Executing || is_first_of_many;
            assert!(!thread.traced || cannot_go, "thread {tid} could have been let go: {thread:?}");
        }
        // What the end of the tracing thread does for the others.
        for tid in left {
            if let Some(thread) = self.kernel.threads.get_mut(&tid) {
                thread.traced = false;
            }
        }
        self.kernel.settle();
        for (tid, thread) in self.kernel.threads.iter().filter(|(_, thread)| !thread.stuck) {
            let expected = if self.kernel.group_stopped { Run::GroupStopped } else { Run::Running };
            let first_waits = *tid == PROCESS_ID && thread.run == Run::Zombie;
            assert!(
                thread.run == expected || first_waits || thread.run == Run::Executing,
                "thread {tid}: {thread:?}"
            );
        }
    }

    /// Every signal reached the program at most once, and none was made up or lost.
    fn check_signals(&self) {
        let mut seen = self.kernel.delivered.clone();
        seen.extend(&self.kernel.died_with_thread);
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "twice: {seen:?} of {:?}", self.kernel.sent);
        let nothing_waits = !self.kernel.group_stopped
            && self.kernel.threads.values().all(|thread| thread.run == Run::Running);
        if nothing_waits {
            assert_eq!(seen, self.kernel.sent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_stop_and_all_go_on(
        thread_count in 1..12i32,
        tape in prop::collection::vec(any::<u8>(), 0..600),
        tells_count: bool,
        patience in 1..30usize,
    ) {
        let mut driver = Driver::new(thread_count, tape, tells_count, patience);
        if driver.run() == Request::AllStopped {
            prop_assert!(driver.protocol.failure().is_none());
            // A driver looks whether the address space is still the same, and gives up if not.
            if !driver.kernel.executed {
                driver.check_all_stopped();
                for _ in 0..20 {
                    driver.kernel.pass_time();
                }
                driver.check_all_stopped();
            }
            driver.protocol.release();
            driver.is_releasing = true;
            prop_assert_eq!(driver.run(), Request::Finished);
        } else {
            prop_assert!(driver.protocol.failure().is_some());
        }
        driver.check_released();
        driver.check_signals();
    }

    #[test]
    fn any_answer_to_any_request_ends(
        answers in prop::collection::vec((0u8..8, 0i32..6), 0..300)
    ) {
        let mut protocol = StopProtocol::new(1, 1);
        let tids = [1, 2, 3, 4, 5];
        let mut answers = answers.into_iter();
        for step in 0.. {
            prop_assert!(step < 10_000);
            match protocol.next_request() {
                Request::Finished => break,
                Request::AllStopped => protocol.release(),
                _ => match answers.next() {
                    Some((0, count)) => protocol.answer(Answer::Listed(&tids[..count.clamp(0, 5) as usize])),
                    Some((1, count)) => protocol.answer(Answer::Count(usize::try_from(count).ok())),
                    Some((2, _)) => protocol.answer(Answer::Done),
                    Some((3, _)) => protocol.answer(Answer::NoSuchThread),
                    Some((4, _)) => protocol.answer(Answer::Ended),
                    Some((5, _)) => protocol.answer(Answer::Refused),
                    Some((6, word)) => {
                        protocol.answer(Answer::Status(WaitStatus::decode(word, 0x8005)));
                    }
                    Some(_) => protocol.answer(Answer::NotYet),
                    None => protocol.give_up(),
                },
            }
        }
    }
}

/// The steps in a calm process, one by one: what each thread costs is visible here.
#[test]
fn a_calm_process_is_asked_little() {
    let mut driver = Driver::new(3, Vec::new(), true, 5);
    assert_eq!(driver.run(), Request::AllStopped);
    // Two listings and one count; each thread seized, interrupted, waited for.
    assert_eq!(driver.requests, 2 + 1 + 3 * 3);
    assert_eq!(driver.protocol.held().count(), 3);
    driver.protocol.release();
    assert_eq!(driver.run(), Request::Finished);
    assert_eq!(driver.requests, 2 + 1 + 3 * 4);
    assert_eq!(driver.protocol.left_attached(), [] as [i32; 0]);
}

#[test]
fn a_refused_thread_ends_the_stop_and_frees_the_others() {
    let mut protocol = StopProtocol::new(1, 2);
    assert_eq!(protocol.next_request(), Request::List);
    protocol.answer(Answer::Listed(&[1, 2]));
    assert_eq!(protocol.next_request(), Request::Seize(1));
    protocol.answer(Answer::Done);
    assert_eq!(protocol.next_request(), Request::Seize(2));
    protocol.answer(Answer::Refused);
    assert_eq!(protocol.failure(), Some(Failure::Refused(2)));
    assert_eq!(protocol.next_request(), Request::Interrupt(1));
}
