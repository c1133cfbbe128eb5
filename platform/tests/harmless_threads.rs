//! Are all threads stopped, whatever they are doing, and do they all go on as before?

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use heaptap_platform::{Process, ProcessError, ReadError, StopError, StopLimits, Stopped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Target, assert_untouched, thread_states, tracers};

/// Patience for a machine that is busy with other things; what is tested is not how fast it is.
fn patient() -> StopLimits {
    StopLimits { reach_max: Duration::from_secs(20), ..StopLimits::default() }
}

/// Checks by `/proc` that every thread of the process is in a trace stop, except ended ones, and is in `stopped`.
fn assert_all_stopped(stopped: &Stopped<'_>) {
    let mut ours: Vec<i32> = stopped.threads().iter().map(|thread| thread.tid).collect();
    let mut theirs: Vec<i32> = Vec::new();
    for (tid, state) in thread_states(stopped.process().pid()) {
        assert!(matches!(state, 't' | 'Z' | 'X'), "thread {tid} is in state {state}");
        theirs.extend((state == 't').then_some(tid));
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
}

#[test]
fn five_hundred_threads() {
    let mut target = Target::start(&["threads", "500"]);
    let process = Process::open(target.pid()).unwrap();
    for _ in 0..20 {
        let stopped = Stopped::stop(&process, &patient()).unwrap();
        assert_eq!(stopped.threads().len(), 501);
        assert_all_stopped(&stopped);
        let pause = stopped.release();
        assert_eq!(pause.thread_count, 501);
        assert!(pause.stop_latency_us <= pause.stopped_us && pause.release_us <= pause.stopped_us);
        assert_untouched(target.pid());
    }
    (0..3).for_each(|counter| target.wait_for_progress(counter));
    assert_eq!(target.counters()[7], 0, "a system call that can go on was interrupted");
}

/// Threads that are stopped already have to be given a processor before they can be attached to; where that takes long, another
/// thread of the tool looks after them.
#[test]
fn a_stopped_process_on_a_busy_machine() {
    let target = Target::start(&["threads", "64"]);
    let process = Process::open(target.pid()).unwrap();
    kill(Pid::from_raw(target.pid()), Signal::SIGSTOP).unwrap();
    let all_stopped = || thread_states(target.pid()).iter().all(|(_, state)| *state == 'T');
    let wait_until_stopped = || {
        while !all_stopped() {
            std::thread::yield_now();
        }
    };
    wait_until_stopped();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let outcomes: Vec<_> = (0..8)
            .map(|_| {
                let outcome = Stopped::stop(&process, &patient()).map(|stopped| stopped.threads().len());
                wait_until_stopped();
                outcome
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            assert_eq!(outcome.unwrap(), 65);
        }
    });
    assert_eq!(tracers(target.pid()), [] as [i32; 0]);
}

#[test]
fn threads_that_come_and_go_all_the_time() {
    let mut target = Target::start(&["churn"]);
    let process = Process::open(target.pid()).unwrap();
    for _ in 0..200 {
        let stopped = Stopped::stop(&process, &patient()).unwrap();
        assert_all_stopped(&stopped);
        let before = thread_states(target.pid());
        assert_eq!(before, thread_states(target.pid()));
        drop(stopped);
        assert_eq!(tracers(target.pid()), [] as [i32; 0]);
    }
    target.wait_for_progress(0);
    assert_untouched(target.pid());
}

#[test]
fn registers_lie_where_the_kernel_says() {
    let target = Target::start(&["threads", "8"]);
    let process = Process::open(target.pid()).unwrap();
    let mappings = process.mappings().unwrap();
    let stopped = Stopped::stop(&process, &patient()).unwrap();
    for thread in stopped.threads() {
        // State, then number of the system call or `running`, its arguments, stack pointer, program counter.
        let path = format!("/proc/{}/task/{}/syscall", target.pid(), thread.tid);
        let line = std::fs::read_to_string(path).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
        let [.., stack_pointer, program_counter] = words[..] else { panic!("{line}") };
        assert_eq!(number(stack_pointer), thread.registers.stack_pointer);
        assert_eq!(number(program_counter), thread.registers.program_counter);
        assert_eq!(words[0] != "-1", thread.registers.in_system_call, "{line}");
        let code = mappings.iter().find(|mapping| mapping.range.contains(thread.registers.program_counter));
        assert!(code.unwrap().executable);
        assert!(mappings.iter().any(|mapping| mapping.range.contains(thread.registers.thread_pointer)));
    }
}

#[test]
fn the_first_thread_has_ended() {
    let mut target = Target::start(&["leader-exits"]);
    while thread_states(target.pid())[0].1 != 'Z' {}
    let process = Process::open(target.pid()).unwrap();
    let mappings = process.mappings().unwrap();
    let stopped = Stopped::stop(&process, &patient()).unwrap();
    assert_all_stopped(&stopped);
    assert_eq!(stopped.threads().len(), 2);
    let mut magic = [0; 4];
    let program = mappings.iter().find(|mapping| mapping.path().is_some()).unwrap();
    process.memory().read(program.range.start, &mut magic).unwrap();
    assert_eq!(&magic, b"\x7fELF");
    assert!(process.open_module(program).unwrap().found_by.is_mapped_file());
    assert!(process.page_table().is_ok());
    assert!(process.resident_bytes().unwrap().total_bytes > 0);
    drop(stopped);
    target.wait_for_progress(0);
    assert_untouched(target.pid());
}

#[test]
fn children_are_left_alone() {
    let target = Target::start(&["children"]);
    let words: Vec<&str> = target.greeting.split_whitespace().collect();
    let children: Vec<i32> = words.iter().step_by(2).map(|word| word.parse().unwrap()).collect();
    let counters = target.addresses();
    let process = Process::open(target.pid()).unwrap();
    // The counters lie in memory that the children share with the target.
    let count = |address| {
        let mut bytes = [0; 8];
        process.memory().read(address, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    };
    for _ in 0..50 {
        let stopped = Stopped::stop(&process, &patient()).unwrap();
        for (&child, &counter) in children.iter().zip(&counters) {
            assert_untouched(child);
            let before = count(counter);
            // The priority of the stopped window must not keep them from running for ever.
            while count(counter) == before {
                std::thread::yield_now();
            }
        }
        drop(stopped);
    }
    children.iter().for_each(|&child| assert_untouched(child));
}

#[test]
fn a_process_that_forks_and_executes_programs() {
    let mut target = Target::start(&["forks"]);
    let process = Process::open(target.pid()).unwrap();
    for _ in 0..100 {
        let stopped = Stopped::stop(&process, &patient()).unwrap();
        assert_all_stopped(&stopped);
    }
    target.wait_for_progress(0);
    target.wait_for_progress(1);
    assert_eq!(target.counters()[2], 0, "a child failed");
    assert_untouched(target.pid());
}

/// Stops a process that executes itself all the time until it has done so for the last time.
fn stop_while_it_executes_itself(mut target: Target) {
    let mut executed = 0;
    loop {
        let process = match Process::open(target.pid()) {
            Ok(process) => process,
            Err(ProcessError::Zombie { .. }) => panic!("the target ended: {:?}", target.child().wait()),
            Err(_) => continue,
        };
        let Ok(auxiliary_vector) = process.auxiliary_vector() else { continue };
        match Stopped::stop(&process, &patient()) {
            Ok(stopped) => {
                assert_all_stopped(&stopped);
                assert_eq!(process.auxiliary_vector().unwrap(), auxiliary_vector);
            }
            Err(StopError::Executed { .. }) => executed += 1,
            Err(other) => panic!("{other}"),
        }
        let arguments = std::fs::read(format!("/proc/{}/cmdline", target.pid())).unwrap();
        if process.has_same_image() && arguments.ends_with(b"\0exec\x000\0") {
            break;
        }
    }
    assert_eq!(target.line(), "ready");
    assert!(executed > 0, "no stop met an execution, so nothing was tested");
    target.wait_for_progress(0);
    assert_untouched(target.pid());
}

#[test]
fn a_child_that_executes_itself_again_and_again() {
    stop_while_it_executes_itself(Target::start_unready(&["exec", "300"]));
}

#[test]
fn a_process_that_executes_itself_again_and_again() {
    stop_while_it_executes_itself(Target::start_as_grandchild(&["exec", "300"]));
}

#[test]
fn a_thread_that_cannot_stop_is_named_and_all_go_on() {
    let mut target = Target::start(&["vfork"]);
    let child: i32 = target.greeting.parse().unwrap();
    let process = Process::open(target.pid()).unwrap();
    let limits = StopLimits { reach_max: Duration::from_millis(30), ..StopLimits::default() };
    let waiting = thread_states(target.pid()).into_iter().find(|(_, state)| *state == 'D').unwrap().0;
    for _ in 0..3 {
        match Stopped::stop(&process, &limits) {
            Err(StopError::Unstoppable { tid, state, .. }) => assert_eq!((tid, state), (waiting, 'D')),
            other => panic!("{other:?}"),
        }
        assert_untouched(target.pid());
        assert_untouched(child);
    }
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    while target.counters()[0] == 0 {}
    Stopped::stop(&process, &patient()).unwrap();
    assert_untouched(target.pid());
}

#[test]
fn a_process_that_is_killed_while_it_is_stopped() {
    let target = Target::start(&["threads", "20"]);
    let process = Process::open(target.pid()).unwrap();
    let mappings = process.mappings().unwrap();
    let mut page_table = process.page_table().unwrap();
    let stopped = Stopped::stop(&process, &patient()).unwrap();
    kill(Pid::from_raw(target.pid()), Signal::SIGKILL).unwrap();
    while process.memory().exists() {}
    let error = process.memory().read(mappings[0].range.start, &mut [0]).unwrap_err();
    assert_eq!(error, ReadError::Gone { pid: target.pid() });
    let all = mappings[0].range;
    assert_eq!(page_table.present_ranges(all, &mut |_| ()), Err(ReadError::Gone { pid: target.pid() }));
    drop(stopped);
    assert_eq!(target.wait().signal(), Some(9));
    assert!(matches!(Stopped::stop(&process, &patient()), Err(StopError::Gone { .. })));
    assert!(process.check_same().is_err());
}

/// Stops a process that was told to end until it has.
fn stop_while_it_ends(target: &mut Target) {
    let process = Process::open(target.pid()).unwrap();
    target.say("exit");
    loop {
        match Stopped::stop(&process, &patient()) {
            Ok(_) => {}
            Err(StopError::Gone { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_child_that_ends_while_it_is_being_stopped() {
    for _ in 0..100 {
        let mut target = Target::start(&["threads", "12"]);
        stop_while_it_ends(&mut target);
        assert_eq!(target.wait().code(), Some(7));
    }
}

#[test]
fn a_process_that_ends_while_it_is_being_stopped() {
    for _ in 0..100 {
        let mut target = Target::start_as_grandchild(&["threads", "12"]);
        assert_eq!(target.line(), "ready");
        stop_while_it_ends(&mut target);
        // Its parent, a shell that waits for it, learns of the end and ends too.
        assert_eq!(target.wait().code(), Some(0));
    }
}

/// What the guard promises for a panic in the middle of the work.
#[test]
fn a_panic_lets_all_threads_go() {
    let mut target = Target::start(&["threads", "4"]);
    let process = Process::open(target.pid()).unwrap();
    let outcome = std::panic::catch_unwind(|| {
        let _stopped = Stopped::stop(&process, &patient()).unwrap();
        panic!("in the middle of the work");
    });
    assert!(outcome.is_err());
    assert_untouched(target.pid());
    target.wait_for_progress(0);
}

/// A caller that does not come back does not hold the process for ever.
#[test]
fn a_stop_ends_by_itself_when_nobody_asks() {
    let mut target = Target::start(&["threads", "4"]);
    let process = Process::open(target.pid()).unwrap();
    let limits = StopLimits { hold_max: Duration::from_millis(20), ..patient() };
    let stopped = Stopped::stop(&process, &limits).unwrap();
    target.wait_for_progress(0);
    assert_untouched(target.pid());
    assert!(stopped.release().expired);
    assert!(!Stopped::stop(&process, &patient()).unwrap().release().expired);
}

/// The calling thread is scheduled as before, also when another thread's window is open.
#[test]
fn the_own_priority_is_restored() {
    let own = || std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let priority = |stat: String| -> Vec<String> {
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // Fields 18, 19 and 40, 41 of the line: priority and nice value, real-time priority and policy.
        [15, 16, 37, 38].map(|field| fields[field].to_owned()).to_vec()
    };
    let target = Target::start(&["threads", "4"]);
    let process = Process::open(target.pid()).unwrap();
    let before = priority(own());
    let stopped = Stopped::stop(&process, &patient()).unwrap();
    let during = priority(own());
    let pause = stopped.release();
    assert_eq!(priority(own()), before);
    assert_eq!(during != before, pause.raised != heaptap_platform::Raised::Nothing);
}
