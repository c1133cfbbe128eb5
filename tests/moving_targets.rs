//! Does every look at a target that does not keep still end, with an answer or with a reason?

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod exactness;
mod leak_server;
mod ledger;
mod outside;

use exactness::assert_exact;
use heaptap_test_programs::{LEAK_SERVER, LEDGER};
use leak_server::Server;
use ledger::Ledger;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outside::{JEMALLOC, Random, Told, assert_runs, await_that, heaptap, status};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn snap(pid: u32) -> Told {
    heaptap(&["snap", &pid.to_string(), "--json", "--pause-budget", "10s"])
}

/// Checks that an answer is verified, or says what it lacks and how far it may be off; returns how often the
/// target was stopped and whether it is verified.
fn assert_sound(told: &Told) -> (u64, bool) {
    let report = told.json();
    let allocators = report["allocators"].as_array().unwrap();
    let allocator = allocators.iter().find(|allocator| allocator["name"] == "jemalloc").unwrap();
    let verified = allocator["verified"].as_bool().unwrap();
    let bound = allocator["blocks_in_motion_max"].as_u64().unwrap_or(0);
    if !verified {
        assert_eq!(told.code, 1, "{}", told.errors);
        assert!(bound > 0, "what is not verified has a bound: {}", told.errors);
        assert!(told.errors.contains("in motion"), "and says so: {}", told.errors);
    }
    (report["stops"].as_u64().unwrap(), verified)
}

#[test]
fn threads_and_arenas_that_come_and_go() {
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "3"]);
    ledger.command("start");
    ledger.command("spawner start");
    let (mut answers, mut verified) = (0, 0);
    for round in 0..30 {
        if round % 3 == 0 {
            ledger.command("arena 50 160");
        }
        let told = snap(ledger.pid());
        if told.code == 5 {
            // On a busy machine the target may change faster than it can be looked at: no layout is believed then.
            assert!(told.errors.contains("does not fit"), "{told:?}");
            continue;
        }
        assert!(told.code <= 1, "{told:?}");
        answers += 1;
        verified += u32::from(assert_sound(&told).1);
    }
    assert!(answers >= 15, "only {answers} of 30 looks had an answer");
    ledger.command("spawner stop");
    ledger.command("stop");
    assert!(verified > 0, "not one snapshot was exact");
    assert_runs(ledger.pid());
    assert_exact(&mut ledger);
}

#[test]
fn a_lock_that_is_often_held() {
    let configuration = "narenas:1,tcache:false";
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, configuration, &["--empty", "--threads", "16"]);
    ledger.command("start");
    let mut retried = 0;
    let begun = Instant::now();
    // Until a stop has caught a lock.
    while retried == 0 {
        assert!(begun.elapsed() < outside::PATIENCE, "no stop caught a lock");
        let told = snap(ledger.pid());
        assert!(told.code <= 1, "{}", told.errors);
        retried += u32::from(assert_sound(&told).0 > 1);
    }
    ledger.command("stop");
    assert_exact(&mut ledger);
}

/// Few pages, most of which change while they are looked at.
#[test]
fn a_busy_server_on_mimalloc() {
    let library = "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0";
    // `env` becomes the server.
    let server = Server::start("env", &[library, LEAK_SERVER]);
    for _ in 0..10 {
        let told = heaptap(&["info", &server.pid().to_string(), "--json"]);
        let names = told.json()["allocators"].as_array().map(|all| {
            all.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        });
        assert_eq!(names.unwrap_or_default(), ["mimalloc"], "{}", told.errors);
    }
}

#[test]
fn five_hundred_threads() {
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty"]);
    ledger.command("threads 500");
    let snapshot = assert_exact(&mut ledger);
    assert_eq!(snapshot.summary.target.threads, 505);
}

/// The shell ends its loop when a child fails.
#[test]
fn a_process_that_forks_all_the_time() {
    let mut shell = Command::new("sh")
        .args(["-c", "while /bin/true; do :; done"])
        .env("LD_PRELOAD", JEMALLOC)
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = shell.id();
    await_that("it has children", || !outside::children(pid).is_empty());
    let mut answers = 0;
    for _ in 0..30 {
        let told = snap(pid);
        // A thread that waits for the child of a vfork cannot be stopped before that has executed its program.
        assert!(matches!(told.code, 0 | 1 | 7), "{told:?}");
        answers += u32::from(told.code <= 1);
    }
    let ended = shell.try_wait().unwrap();
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert_eq!(ended, None, "a child was hurt");
    assert!(answers > 0, "not one snapshot could be taken");
}

#[test]
fn a_process_that_executes_itself_all_the_time() {
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "2"]);
    let pid = ledger.pid();
    let looks = std::thread::spawn(move || (0..30).map(|_| snap(pid)).collect::<Vec<_>>());
    let mut executed = 0;
    while !looks.is_finished() {
        ledger.send("exec");
        let ready = ledger.answer();
        assert!(ready.starts_with("ready"), "{ready}");
        executed += 1;
    }
    for told in looks.join().unwrap() {
        let reasons =
            ["executed another program", "no longer the one", "begins to execute", "about to execute"];
        let is_told = reasons.iter().any(|reason| told.errors.contains(reason));
        // In the middle of being loaded it has no allocator yet.
        let is_bare = told.errors.contains("no supported allocator");
        assert!(told.code <= 1 || is_told || is_bare, "{told:?}");
        assert_ne!(told.code, 101, "{told:?}");
    }
    assert!(executed > 30, "it executed itself only {executed} times");
    assert_runs(pid);
    assert_exact(&mut ledger);
}

#[test]
fn a_process_that_ends_meanwhile() {
    let mut random = Random::new();
    let mut gone = 0;
    for _ in 0..40 {
        let ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "12"]);
        let pid = ledger.pid();
        let look = std::thread::spawn(move || snap(pid));
        let begun = Instant::now();
        let delay = random.below(Duration::from_millis(60));
        while begun.elapsed() < delay {
            std::hint::spin_loop();
        }
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        let told = look.join().unwrap();
        let is_gone = told.code == 3 && told.errors.contains("\nhint: ");
        assert!(told.code <= 1 || is_gone, "{told:?}");
        gone += u32::from(is_gone);
        await_that("it ends", || status(pid, pid, "State").is_none_or(|state| state.starts_with('Z')));
    }
    assert!(gone > 0, "no process ended while it was looked at");
}
