//! Is the walk of `CPython`'s small objects exact? Every figure against what the interpreter says of itself.
//!
//! `sys._debugmallocstats` is written by the interpreter and shares no code with heaptap. The program is at rest while it
//! is looked at: it waits for its input.

use heaptap::snapshot::schema::AllocatorSummary;
use heaptap::target::{Options, Target};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Makes objects, drops some, and lets `sys._debugmallocstats` write; at rest between the lines that it reads.
const PROGRAM: &str = r#"
import random, sys
random.seed(int(sys.argv[1]))
kept = []
for number in range(int(sys.argv[2])):
    kept.append([number * 1000003, str(number) * random.randrange(1, 40), {number: float(number)}])
    if random.random() < 0.4:
        kept[random.randrange(len(kept))] = None
orders, answers, errors = (open(number, mode, 0) for number, mode in ((0, "rb"), (1, "wb"), (2, "wb")))
order, tell = bytearray(1), sys._debugmallocstats
answers.write(b"ready\n")
# Nothing here needs memory while it waits that it does not need while the statistics are made.
while orders.readinto(order):
    tell()
    answers.write(b"done\n")
    errors.write(b"end\n")
"#;

/// An interpreter that runs the program.
struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start(interpreter: &str, seed: u32, objects: u32) -> Self {
        let mut child = Command::new(interpreter)
            .args(["-c", PROGRAM, &seed.to_string(), &objects.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the interpreter starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut python = Self { child, input, output };
        assert_eq!(python.line(), "ready\n");
        python
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the program answers");
        line
    }

    /// What the interpreter writes of its arenas and pools; it then waits again.
    fn statistics(&mut self) -> String {
        self.input.write_all(b".").expect("the program listens");
        let mut errors = BufReader::new(self.child.stderr.take().expect("piped"));
        let mut text = String::new();
        while !text.ends_with("end\n") {
            assert_ne!(errors.read_line(&mut text).expect("the program writes"), 0, "{text}");
        }
        assert_eq!(self.line(), "done\n");
        text
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pools and blocks of each class, by block size.
fn classes(statistics: &str) -> BTreeMap<u64, (u64, u64)> {
    let mut classes = BTreeMap::new();
    for line in statistics.lines() {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let ([_, size, pools, blocks, _], 5) = (numbers.as_slice(), line.split_whitespace().count()) {
            classes.insert(*size, (*pools, *blocks));
        }
    }
    classes
}

/// The number behind the `=` of the line that contains `name`.
fn figure(statistics: &str, name: &str) -> u64 {
    let line = statistics.lines().find(|line| line.contains(name)).expect("the interpreter tells it");
    line.rsplit_once('=').expect("a figure").1.trim().replace(',', "").parse().expect("a number")
}

fn pymalloc(pid: u32) -> (AllocatorSummary, Vec<String>) {
    let target = Target::open(&pid.to_string()).expect("the interpreter runs");
    let options = Options { pause_budget: Duration::from_secs(10), ..Options::default() };
    let snapshot = target.snapshot(&options).expect("its heap can be read");
    let names = snapshot.summary.allocators.iter().map(|allocator| allocator.name.clone()).collect();
    let mut all = snapshot.summary.allocators.into_iter();
    (all.find(|allocator| allocator.name == "pymalloc").expect("it is in it"), names)
}

fn assert_exact(interpreter: &str, objects: u32) {
    let mut python = Python::start(interpreter, 7, objects);
    let statistics = python.statistics();
    let (allocator, names) = pymalloc(python.child.id());
    assert!(allocator.complete && allocator.verified, "{:?}", allocator.anomalies);
    assert!(names.iter().any(|name| name == "glibc"), "what is beneath is walked too: {names:?}");
    let expected = classes(&statistics);
    let [shard] = allocator.shards.as_slice() else { panic!("one shard") };
    let walked: BTreeMap<u64, (u64, u64)> = shard
        .classes
        .iter()
        .filter(|class| class.runs > 0)
        .map(|class| (class.size_bytes, (class.runs, class.live_blocks)))
        .collect();
    assert!(expected.len() > 25, "{statistics}");
    let differing: Vec<_> = expected.iter().filter(|(size, class)| walked.get(size) != Some(class)).collect();
    assert!(differing.is_empty(), "{interpreter}: {differing:?} differ: {walked:?}");
    assert_eq!(walked.len(), expected.len(), "{interpreter}: {walked:?}");
    assert_eq!(allocator.own_figures["arenas"], figure(&statistics, "# arenas allocated current"));
    let bytes = figure(&statistics, "# bytes in allocated blocks");
    assert_eq!(allocator.live_bytes, bytes);
    assert_eq!(allocator.own_figures["available_bytes"], figure(&statistics, "# bytes in available blocks"));
    println!(
        "{interpreter}: {} classes, {} blocks, {bytes} bytes: equal",
        expected.len(),
        allocator.live_blocks
    );
}

#[test]
fn what_the_interpreter_says_of_itself() {
    assert_exact("python3", 0);
    assert_exact("python3", 20_000);
}

#[test]
fn a_capture_of_the_process() {
    let python = Python::start("python3", 3, 5_000);
    let (running, _) = pymalloc(python.child.id());
    let path = std::env::temp_dir().join(format!("heaptap-pymalloc-{}.core", std::process::id()));
    let options = Options {
        pause_budget: Duration::from_secs(10),
        contents: heaptap::target::Contents::Data,
        ..Options::default()
    };
    let target = Target::open(&python.child.id().to_string()).expect("the interpreter runs");
    target.capture(&options).expect("it can be captured").write(&path, true).expect("written");
    let file = Target::open(path.to_str().expect("text")).expect("a capture");
    let summary = file.snapshot(&Options::default()).expect("its heap can be read").summary;
    std::fs::remove_file(&path).expect("it was written");
    let mut all = summary.allocators.into_iter();
    let recorded = all.find(|allocator| allocator.name == "pymalloc").expect("it is in the file");
    assert!(recorded.verified, "{:?}", recorded.anomalies);
    assert_eq!(recorded.shards, running.shards);
}

#[test]
#[ignore = "needs other interpreters; docs/measurements.md tells how"]
fn other_interpreters() {
    let list = std::env::var("HEAPTAP_PYTHONS").expect("HEAPTAP_PYTHONS is set");
    for interpreter in list.split_whitespace() {
        assert_exact(interpreter, 0);
        assert_exact(interpreter, 50_000);
    }
}
