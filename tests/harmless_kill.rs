//! Does a target live on as before when heaptap is killed, whenever that happens?
//!
//! Half of the moments are spread over the whole life of a snapshot, half are in the stopped window: they are
//! counted from the moment when `/proc` shows a thread of the target stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;
mod outside;

use heaptap_test_programs::LEDGER;
use ledger::Ledger;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use outside::{JEMALLOC, Random, assert_runs, await_that, heaptap, states, status, threads};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Snapshots that are killed, of which each test takes a part.
const KILLS: usize = 200;

/// When a snapshot is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after its start.
    AfterStart(Duration),
    /// So long after a thread of the target was seen stopped by it.
    AfterStop(Duration),
}

/// How long a snapshot takes here: the command, and the pause in it.
struct Length {
    whole: Duration,
    pause: Duration,
}

impl Length {
    /// The middle one of some.
    fn measure(pid: u32) -> Self {
        let (mut wholes, mut pauses) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            let begun = Instant::now();
            let told = heaptap(&["snap", &pid.to_string(), "--json", "--pause-budget", "5s"]);
            // A target at work may have blocks in motion.
            assert!(told.code <= 1, "{told:?}");
            wholes.push(begun.elapsed());
            let pause_ms = told.json()["pause_ms"].as_f64().unwrap();
            pauses.push(Duration::from_secs_f64(pause_ms / 1000.0));
        }
        wholes.sort_unstable();
        pauses.sort_unstable();
        Self { whole: wholes[wholes.len() / 2], pause: pauses[pauses.len() / 2] }
    }

    /// The number of a kill decides of what kind its moment is.
    fn moment(&self, number: usize, random: &mut Random) -> Moment {
        if number.is_multiple_of(2) {
            Moment::AfterStart(random.below(self.whole))
        } else {
            Moment::AfterStop(random.below(self.pause))
        }
    }
}

/// Whether `/proc` shows a thread in a stop of its tracer; asked often, so the file stays open.
struct Glance(File);

impl Glance {
    /// The first thread is stopped as early as any.
    fn at(pid: u32) -> Self {
        Self(File::open(format!("/proc/{pid}/stat")).unwrap())
    }

    fn is_stopped(&self) -> bool {
        let mut line = [0; 64];
        let count = self.0.read_at(&mut line, 0).unwrap();
        String::from_utf8_lossy(&line[..count]).contains(") t ")
    }
}

fn begin_snapshot(pid: u32) -> Child {
    Command::new(env!("CARGO_BIN_EXE_heaptap"))
        .args(["snap", &pid.to_string(), "--json", "--pause-budget", "5s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_for(duration: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// What became of a kill.
#[derive(Debug, PartialEq, Eq)]
enum Hit {
    /// heaptap was killed while a thread of the target was stopped.
    Stopped,
    /// It was killed while none was seen stopped.
    Running,
    /// It had ended by itself.
    TooLate,
}

/// Begins a snapshot and kills it, doing `meanwhile` just before.
fn kill_at(pid: u32, moment: Moment, meanwhile: impl FnOnce()) -> Hit {
    let glance = Glance::at(pid);
    let mut snapshot = begin_snapshot(pid);
    match moment {
        Moment::AfterStart(delay) => wait_for(delay),
        Moment::AfterStop(delay) => {
            while !glance.is_stopped() && snapshot.try_wait().unwrap().is_none() {}
            wait_for(delay);
        }
    }
    meanwhile();
    let was_stopped = glance.is_stopped();
    snapshot.kill().unwrap();
    let status = snapshot.wait().unwrap();
    match (status.signal(), was_stopped) {
        (Some(9), true) => Hit::Stopped,
        (Some(9), false) => Hit::Running,
        _ => Hit::TooLate,
    }
}

/// Kills so many snapshots, and goes on until a quarter of so many have been killed with the target stopped.
/// `check` is called after each.
fn kill_all(pid: u32, kills: usize, meanwhile: impl Fn(), mut check: impl FnMut()) {
    let mut random = Random::new();
    let length = Length::measure(pid);
    check();
    let (mut stopped, mut running, mut late) = (0, 0, 0);
    while stopped + running < kills || stopped < kills / 4 {
        let moment = length.moment(stopped + running + late, &mut random);
        match kill_at(pid, moment, &meanwhile) {
            Hit::Stopped => stopped += 1,
            Hit::Running => running += 1,
            Hit::TooLate => late += 1,
        }
        check();
        assert!(stopped + running + late < 20 * kills, "the kills do not meet what they are for");
    }
    eprintln!("killed: {stopped} with the target stopped, {running} at other times; {late} too late");
}

fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let value = answer.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

fn number(answer: &str, name: &str) -> u64 {
    field(answer, name).parse().unwrap()
}

/// The signals that a process blocks, ignores and handles.
fn signal_setting(pid: u32) -> Vec<Option<String>> {
    ["SigBlk", "SigIgn", "SigCgt"].map(|key| status(pid, pid, key)).to_vec()
}

#[test]
fn a_target_at_rest_with_its_signals_timer_and_child() {
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "64"]);
    for thread in 0..64 {
        ledger.command(&format!("grow 200 {} {thread}", 32 + thread * 16));
    }
    ledger.command("signals");
    let pid = ledger.pid();
    let table = ledger.table();
    let setting = signal_setting(pid);
    let child = outside::children(pid);
    assert_eq!(child.len(), 1);
    let before = ledger.command("check");
    let (mut sent, mut alarms) = (0, number(&before, "alarms"));
    let usr1 = std::cell::Cell::new(0);
    let send = || {
        kill(Pid::from_raw(pid as i32), Signal::SIGUSR1).unwrap();
        usr1.set(usr1.get() + 1);
    };
    kill_all(pid, KILLS * 3 / 5, send, || {
        assert_runs(pid);
        assert_runs(child[0]);
        sent = usr1.get();
        ledger.command(&format!("await usr1 {sent}"));
        let now = ledger.command(&format!("await alarms {}", alarms + 2));
        alarms = number(&now, "alarms");
        assert_eq!(number(&now, "usr1"), sent, "a signal was lost or came twice: {now}");
        for (name, value) in [("chld", "0"), ("cont", "0"), ("child", "running"), ("threads", "65")] {
            assert_eq!(field(&now, name), value, "{now}");
        }
        assert_eq!(threads(pid).len(), 65);
    });
    assert!(sent >= KILLS as u64 / 2);
    assert_eq!(outside::children(pid), child);
    assert_eq!(signal_setting(pid), setting);
    assert_eq!(ledger.table(), table);
    let last = heaptap(&["snap", &pid.to_string(), "--json", "--pause-budget", "5s"]);
    assert_eq!(last.code, 0, "{}", last.errors);
}

#[test]
fn a_target_at_work() {
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "4"]);
    let pid = ledger.pid();
    ledger.command("start");
    kill_all(
        pid,
        KILLS / 5,
        || (),
        || {
            assert_runs(pid);
            assert_eq!(threads(pid).len(), 5);
        },
    );
    // All of them end their round: none has been left behind.
    assert!(number(&ledger.command("stop"), "operations") > 0);
    let last = heaptap(&["snap", &pid.to_string(), "--json", "--pause-budget", "5s"]);
    assert_eq!(last.code, 0, "{}", last.errors);
}

/// What the parent is told of stops, continuations and the end since it last asked.
fn news(pid: u32) -> WaitStatus {
    let flags = WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
    waitpid(Pid::from_raw(pid as i32), Some(flags)).unwrap()
}

#[test]
fn a_target_that_is_stopped_stays_stopped() {
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "16"]);
    ledger.command("signals");
    let pid = ledger.pid();
    let target = Pid::from_raw(pid as i32);
    let is_stopped = || states(pid).iter().all(|(_, letter, tracer)| (*letter, *tracer) == ('T', 0));
    kill(target, Signal::SIGSTOP).unwrap();
    await_that("the target stops", is_stopped);
    assert_eq!(news(pid), WaitStatus::Stopped(target, Signal::SIGSTOP));
    kill_all(
        pid,
        KILLS / 5,
        || (),
        || {
            // A thread that was let go takes a moment to notice that its process is stopped.
            await_that("all threads are stopped again, and not traced", is_stopped);
            assert_eq!(news(pid), WaitStatus::StillAlive, "its parent was told of something");
        },
    );
    kill(target, Signal::SIGCONT).unwrap();
    let now = ledger.command("await alarms 5");
    assert_eq!((field(&now, "cont"), field(&now, "child")), ("1", "running"), "{now}");
    assert_eq!(news(pid), WaitStatus::Continued(target));
    assert_runs(pid);
}
