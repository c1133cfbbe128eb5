//! Does stopping a process of FreeBSD leave it as it was, in whatever order the kernel's events come?

#[path = "support/fake_freebsd.rs"]
mod fake_freebsd;

use fake_freebsd::{EVENTS, Event, FakeFreebsd};
use heaptap_platform::attach_protocol::{AttachProtocol, Failure, Request};
use proptest::prelude::*;

/// One stop of a fake process.
struct Driver {
    kernel: FakeFreebsd,
    protocol: AttachProtocol,
    tape: Vec<Event>,
    /// Steps after which the driver loses its patience.
    patience: usize,
    steps: usize,
    has_held: bool,
}

impl Driver {
    fn new(kernel: FakeFreebsd, tape: &[Event], patience: usize) -> Self {
        let tape = tape.iter().rev().copied().collect();
        Self { kernel, protocol: AttachProtocol::new(), tape, patience, steps: 0, has_held: false }
    }

    fn run(mut self) -> Self {
        loop {
            let request = self.protocol.next_request();
            self.steps += 1;
            assert!(self.steps < 200, "the stop does not end");
            match request {
                Request::Finished => return self,
                Request::AllStopped => {
                    self.has_held = true;
                    // Something may happen while it is held.
                    self.pass_time();
                    self.pass_time();
                    self.protocol.release();
                    continue;
                }
                request => self.perform(request),
            }
            self.pass_time();
            if self.steps == self.patience {
                self.protocol.give_up();
            }
        }
    }

    fn perform(&mut self, request: Request) {
        let answer = match request {
            Request::Look => self.kernel.look(),
            Request::Attach => self.kernel.attach(),
            Request::Wait => self.kernel.wait(),
            Request::Inspect => self.kernel.cause(),
            Request::Detach { signal } => self.kernel.detach(signal),
            Request::StopAgain => {
                self.kernel.stop_again();
                heaptap_platform::attach_protocol::Answer::Done
            }
            Request::Nap | Request::AllStopped | Request::Finished => {
                heaptap_platform::attach_protocol::Answer::Done
            }
        };
        self.protocol.answer(answer);
        self.kernel.is_between = self.protocol.next_request() == Request::Attach;
    }

    /// The next event; when the tape is at its end, whoever waits for a device comes back.
    fn pass_time(&mut self) {
        let at_end = if self.kernel.is_waiting { Event::Device } else { Event::Nothing };
        let event = self.tape.pop().unwrap_or(at_end);
        self.kernel.pass_time(event);
    }

    fn check(&self) {
        let kernel = &self.kernel;
        assert!(!kernel.is_traced, "still traced: {:?}", self.protocol);
        assert!(!self.protocol.is_attached());
        assert!(self.has_held || self.protocol.failure().is_some());
        if kernel.is_gone {
            return;
        }
        let mut reached: Vec<i32> = kernel.delivered.iter().copied().chain(kernel.pending()).collect();
        reached.sort_unstable();
        assert_eq!(reached, kernel.sent, "every signal once");
    }
}

fn tapes(len: usize) -> impl Iterator<Item = Vec<Event>> {
    let count = EVENTS.len().pow(len as u32);
    (0..count).map(move |number| {
        let digit = |place: usize| EVENTS[number / EVENTS.len().pow(place as u32) % EVENTS.len()];
        (0..len).map(digit).collect()
    })
}

#[test]
fn every_order_of_five_events_leaves_the_process_as_it_was() {
    for tape in tapes(5) {
        for is_old in [false, true] {
            for was_stopped in [false, true] {
                let kernel = FakeFreebsd {
                    is_old,
                    is_job_stopped: was_stopped,
                    ought_to_be_stopped: was_stopped,
                    ..FakeFreebsd::default()
                };
                let done = Driver::new(kernel, &tape, 60).run();
                done.check();
                if !done.kernel.is_gone && !done.kernel.is_waiting {
                    let (is, ought) = (done.kernel.is_job_stopped, done.kernel.ought_to_be_stopped);
                    assert_eq!(is, ought, "{tape:?} old {is_old} stopped {was_stopped}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_attached_to_that_waits_in_the_kernel() {
    let kernel = FakeFreebsd { is_waiting: true, ..FakeFreebsd::default() };
    let done = Driver::new(kernel, &[Event::Nothing; 40], 20).run();
    assert!(!done.has_held);
    assert!(matches!(done.protocol.failure(), Some(Failure::Waiting(_))));
}

#[test]
fn a_debugger_keeps_what_it_has() {
    let done = Driver::new(FakeFreebsd::default(), &[Event::Nothing; 2], 20).run();
    assert!(done.has_held && done.protocol.failure().is_none());
    let mut kernel = FakeFreebsd::default();
    kernel.pass_time(Event::Debugger);
    let done = Driver::new(kernel, &[], 20).run();
    assert_eq!((done.has_held, done.protocol.failure()), (false, Some(Failure::Traced)));
}

#[test]
fn an_execution_in_progress_is_waited_for_and_one_that_comes_between_is_told() {
    let mut kernel = FakeFreebsd::default();
    kernel.pass_time(Event::Execute);
    let done = Driver::new(kernel, &[Event::Nothing, Event::Nothing, Event::Execute], 20).run();
    assert!(done.has_held, "{:?}", done.protocol.failure());
    let mut kernel = FakeFreebsd::default();
    kernel.pass_time(Event::Execute);
    let done = Driver::new(kernel, &[Event::Nothing; 40], 10).run();
    assert_eq!(done.protocol.failure(), Some(Failure::Executing));
}

proptest! {
    #[test]
    fn any_tape_leaves_nothing_attached_and_loses_no_signal(
        events in prop::collection::vec(0..EVENTS.len(), 0..40), is_old: bool, was_stopped: bool, patience in 1_usize..40
    ) {
        let tape: Vec<Event> = events.into_iter().map(|event| EVENTS[event]).collect();
        let kernel = FakeFreebsd { is_old, is_job_stopped: was_stopped, ..FakeFreebsd::default() };
        Driver::new(kernel, &tape, patience).run().check();
    }
}
