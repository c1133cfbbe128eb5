//! jemalloc's own profile as heaptap reads it from memory, compared with the one that jemalloc writes itself.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod profile_proto;

use heaptap_test_programs::SAMPLED;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
/// Written down as it was counted, without a correction for what was not sampled.
const COUNTED: &str = "prof:true,lg_prof_sample:12,prof_unbias:false";

/// Sampled blocks and their bytes, by return addresses.
type Stacks = BTreeMap<Vec<u64>, (u64, u64)>;

struct Sampled {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Sampled {
    fn start(library: &Path, settings: &str) -> Self {
        let mut child = Command::new(SAMPLED)
            .env("LD_PRELOAD", library)
            .env("MALLOC_CONF", settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut sampled = Self { child, input, output, folder: tempfile::tempdir().unwrap() };
        assert_eq!(sampled.line(), "ready\n");
        sampled
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn obey(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
        assert_eq!(self.line(), "ok\n", "{command}");
    }

    /// What jemalloc says of itself: period and stacks.
    fn dumped(&mut self) -> (u64, Stacks) {
        let path = self.folder.path().join("heap");
        self.obey(&format!("dump {}", path.display()));
        parse(&std::fs::read_to_string(path).unwrap())
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Sampled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of the form `heap_v2`.
fn parse(text: &str) -> (u64, Stacks) {
    let period = text.lines().next().unwrap().strip_prefix("heap_v2/").unwrap().parse().unwrap();
    let mut stacks = Stacks::new();
    let mut stack = Vec::new();
    for line in text.lines() {
        if let Some(addresses) = line.strip_prefix("@ ") {
            let address = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
            stack = addresses.split_whitespace().map(address).collect();
        } else if let Some(counts) = line.strip_prefix("  t*: ").filter(|_| !stack.is_empty()) {
            let mut numbers = counts.split([':', '[', ' ']).filter(|word| !word.is_empty());
            let mut number = || numbers.next().unwrap().parse::<u64>().unwrap();
            let (blocks, bytes) = (number(), number());
            if blocks > 0 {
                let sum = stacks.entry(std::mem::take(&mut stack)).or_default();
                *sum = (sum.0 + blocks, sum.1 + bytes);
            }
        }
    }
    (period, stacks)
}

fn profile(target: &str, more: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_heaptap"))
        .args(["profile", target, "--json"])
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stacks_of(profile: &Value) -> Stacks {
    let mut stacks = Stacks::new();
    for site in profile["sites"].as_array().unwrap() {
        let frames = site["frames"].as_array().unwrap();
        let outer = frames.iter().filter(|frame| frame["inlined"] != true);
        let addresses = outer.map(|frame| frame["address"].as_u64().unwrap()).collect();
        let sum: &mut (u64, u64) = stacks.entry(addresses).or_default();
        sum.0 += site["sampled_blocks"].as_u64().unwrap();
        sum.1 += site["sampled_bytes"].as_u64().unwrap();
    }
    stacks
}

/// Says of thousands of stacks the few that differ.
fn assert_equal(found: &Stacks, written: &Stacks, what: &str) {
    let all: BTreeSet<&Vec<u64>> = found.keys().chain(written.keys()).collect();
    let differing = all.into_iter().filter(|stack| found.get(*stack) != written.get(*stack));
    let shown: Vec<_> =
        differing.map(|stack| (stack.get(..6), found.get(stack), written.get(stack))).collect();
    assert!(shown.is_empty(), "{what}: {} differ: {:x?}", shown.len(), shown.get(..5).unwrap_or(&shown));
}

fn assert_same(sampled: &mut Sampled, what: &str) {
    let found = profile(&sampled.pid(), &[]);
    let (period, stacks) = sampled.dumped();
    assert!(stacks.len() > 50, "{what}: {} stacks", stacks.len());
    assert_equal(&stacks_of(&found), &stacks, what);
    assert_eq!(found["counters_differing"], 0, "{what}");
    assert!(found["counters_compared"].as_u64().unwrap() >= stacks.len() as u64, "{what}");
    if let Some(found_period) = found["period_bytes"].as_u64() {
        assert_eq!(found_period, period, "{what}");
    }
}

#[test]
fn every_stack_with_its_blocks_and_bytes_as_jemalloc_writes_them() {
    let mut sampled = Sampled::start(Path::new(JEMALLOC), COUNTED);
    assert_same(&mut sampled, "at first");
    sampled.obey("more");
    assert_same(&mut sampled, "later");
}

/// Others than Debian's, each built with `--enable-prof`: paths in `HEAPTAP_PROFILING_JEMALLOCS`, with `:` between.
#[test]
#[ignore = "needs builds of jemalloc with its profiler"]
fn other_builds_likewise() {
    let paths = std::env::var("HEAPTAP_PROFILING_JEMALLOCS").expect("builds to test with");
    for path in paths.split(':') {
        let mut sampled = Sampled::start(Path::new(path), COUNTED);
        assert_same(&mut sampled, path);
        sampled.obey("more");
        assert_same(&mut sampled, path);
    }
}

/// jemalloc writes counts that become the estimate when readers of the file scale them by each stack's average size.
#[test]
fn what_sampled_blocks_stand_for_is_as_readers_of_the_file_have_it() {
    let mut sampled = Sampled::start(Path::new(JEMALLOC), "prof:true,lg_prof_sample:14");
    let found = profile(&sampled.pid(), &["--pprof", sampled.file("pb.gz").to_str().unwrap()]);
    let (period, stacks) = sampled.dumped();
    assert_eq!(found["period_bytes"], period);
    let scaled = stacks.values().map(|(blocks, bytes)| {
        let average = *bytes as f64 / *blocks as f64;
        *bytes as f64 / (1.0 - (-average / period as f64).exp())
    });
    let (estimate, live_bytes) = (scaled.sum::<f64>(), found["live_bytes"].as_f64().unwrap());
    assert!((live_bytes / estimate - 1.0).abs() < 0.01, "{live_bytes} and {estimate}");
    assert!(live_bytes > 1.1 * found["sampled_bytes"].as_f64().unwrap());
    let written = profile_proto::read(&sampled.file("pb.gz"));
    let space: i64 = written.samples.iter().map(|sample| sample.values[1]).sum();
    assert_eq!(space, found["live_bytes"].as_i64().unwrap());
    assert_eq!(written.period, period);
    let names = |sample: &profile_proto::Sample| sample.functions.join(" ");
    assert!(written.samples.iter().any(|sample| names(sample).contains("at_the_bottom deeper")));
}

#[test]
fn a_core_gives_the_same() {
    let mut sampled = Sampled::start(Path::new(JEMALLOC), COUNTED);
    let (_, stacks) = sampled.dumped();
    let prefix = sampled.file("core");
    let made = Command::new("gcore").arg("-o").arg(&prefix).arg(sampled.pid()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let core = format!("{}.{}", prefix.display(), sampled.pid());
    assert_equal(&stacks_of(&profile(&core, &[])), &stacks, "core");
}

#[test]
fn without_the_profiler_it_is_said() {
    let sampled = Sampled::start(Path::new(JEMALLOC), "prof:false");
    let output =
        Command::new(env!("CARGO_BIN_EXE_heaptap")).args(["profile", &sampled.pid()]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("has sampled no block") && said.contains("prof:true"), "{said}");
}
