//! Does a breakpoint show each write of a thread, and does the thread go on as before?

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap_platform::{Aim, Process, SamplerError, ThreadSampler};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A running `programs/writer.c`.
struct Writer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    words: [u64; 2],
}

impl Writer {
    fn start() -> Self {
        let mut child = Command::new(program()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let words: Vec<u64> =
            line.split_whitespace().map(|word| u64::from_str_radix(word, 16).unwrap()).collect();
        Self { child, input, output, words: words.try_into().unwrap() }
    }

    fn process(&self) -> Process {
        Process::open(self.tid()).unwrap()
    }

    fn tid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Has it write `count` times to a word; returns when it has.
    fn write(&mut self, word: usize, count: u32) {
        writeln!(self.input, "{word} {count}").unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n", "the target is alive and obeys");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn program() -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/writer.c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("writer-{}", nonce()));
    let status =
        Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).status().expect("a C compiler");
    assert!(status.success());
    program
}

fn nonce() -> String {
    format!("{}-{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "")
}

fn writes_to(address: u64) -> Aim {
    Aim::Writes { address, len_bytes: 8 }
}

#[test]
fn every_write_while_enabled_is_a_hit_with_registers_and_stack() {
    let mut writer = Writer::start();
    let mut sampler =
        ThreadSampler::open(&writer.process(), writer.tid(), writes_to(writer.words[0]), 4096).unwrap();
    writer.write(0, 3);
    assert_eq!((sampler.waiting_len_bytes(), sampler.hit_count()), (0, Ok(0)), "it begins disabled");
    sampler.enable().unwrap();
    writer.write(0, 5);
    writer.write(1, 5);
    sampler.disable().unwrap();
    writer.write(0, 7);
    assert!(sampler.wait(Duration::ZERO));
    let hits = sampler.take();
    assert_eq!((hits.len(), sampler.hit_count(), sampler.lost()), (5, Ok(5), 0));
    for (hit, value) in hits.iter().zip(1_u64..) {
        assert_eq!(hit.tid, writer.tid());
        // The caller of the function that writes keeps a text on its stack.
        assert!(hit.stack.windows(12).any(|text| text == b"STACK MARKER"));
        assert!(hit.registers.general().contains(&(0x5eed_0000 + value)), "{:x?}", hit.registers.general());
    }
    assert!(hits.is_sorted_by_key(|hit| hit.time_ns));
    assert_eq!(sampler.take(), []);
}

#[test]
fn a_breakpoint_moves_to_another_word() {
    let mut writer = Writer::start();
    let process = writer.process();
    let mut sampler = ThreadSampler::open(&process, writer.tid(), writes_to(writer.words[0]), 1024).unwrap();
    sampler.aim(writes_to(writer.words[1])).unwrap();
    writer.write(1, 2);
    assert_eq!(sampler.hit_count(), Ok(0), "moving does not enable it");
    sampler.enable().unwrap();
    writer.write(0, 3);
    writer.write(1, 2);
    sampler.disable().unwrap();
    assert_eq!((sampler.take().len(), sampler.hit_count()), (2, Ok(2)));
}

#[test]
fn more_hits_than_the_ring_holds_are_counted() {
    let mut writer = Writer::start();
    let mut sampler =
        ThreadSampler::open(&writer.process(), writer.tid(), writes_to(writer.words[0]), 32768).unwrap();
    sampler.enable().unwrap();
    writer.write(0, 100);
    sampler.disable().unwrap();
    let kept = sampler.take().len() as u64;
    assert!((1..20).contains(&kept), "{kept}");
    // The kernel tells of losses with the first record that finds room again.
    sampler.enable().unwrap();
    writer.write(0, 1);
    sampler.disable().unwrap();
    assert_eq!(sampler.take().len(), 1);
    assert_eq!((sampler.lost() + kept, sampler.hit_count()), (100, Ok(101)));
}

#[test]
fn debug_registers_run_out_and_come_back() {
    let mut writer = Writer::start();
    let process = writer.process();
    let open = |word: usize| ThreadSampler::open(&process, writer.tid(), writes_to(writer.words[word]), 0);
    let mut samplers = Vec::new();
    let refused = loop {
        match open(0) {
            Ok(sampler) => samplers.push(sampler),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SamplerError::NoRegister { tid: writer.tid() });
    assert!(!samplers.is_empty());
    samplers.clear();
    assert!(open(1).is_ok());
    writer.write(0, 1);
}

#[test]
fn a_thread_that_has_ended_is_told_from_other_failures() {
    let writer = Writer::start();
    let (process, tid, word) = (writer.process(), writer.tid(), writer.words[0]);
    drop(writer);
    assert_eq!(
        ThreadSampler::open(&process, tid, writes_to(word), 0).err(),
        Some(SamplerError::Gone { tid })
    );
}

#[test]
fn what_one_hit_costs_can_be_measured() {
    let writer = Writer::start();
    let architecture = writer.process().architecture().unwrap();
    let cost = heaptap_platform::hit_cost(architecture, 8192).unwrap();
    assert!(cost > Duration::ZERO && cost < Duration::from_millis(5), "{cost:?}");
}
