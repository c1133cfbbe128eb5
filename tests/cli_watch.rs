//! `heaptap watch` and `heaptap demo` on processes that run: the bundled demo server, and the ledger.

#![cfg(all(feature = "demo", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A program that is asked by lines; it ends when this is dropped.
struct Program {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Program {
    fn start(path: &str, words: &[&str]) -> Self {
        let mut child =
            Command::new(path).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self { child, answers };
        let ready = program.line();
        assert!(ready.starts_with("ready "), "{ready}");
        program
    }

    fn demo_server() -> Self {
        Self::start(env!("HEAPTAP_DEMO_SERVER"), &[])
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.line()
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running heaptap whose lines are read one by one.
struct Heaptap {
    child: Child,
    report: BufReader<ChildStdout>,
}

impl Heaptap {
    fn start(words: &[&str]) -> Self {
        let mut child = command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let report = BufReader::new(child.stdout.take().unwrap());
        Self { child, report }
    }

    /// The lines up to the first that contains `word`.
    fn read_until(&mut self, word: &str) -> String {
        let mut text = String::new();
        while text.lines().next_back().is_none_or(|line| !line.contains(word)) {
            let begun = text.len();
            self.report.read_line(&mut text).unwrap();
            assert!(text.len() > begun, "ended without `{word}`: {text}{}", self.errors());
        }
        text
    }

    fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// What is printed until it ends, and how it ends.
    fn end(mut self) -> (String, String, ExitStatus) {
        let mut text = String::new();
        self.report.read_to_string(&mut text).unwrap();
        let errors = self.errors();
        (text, errors, self.child.wait().unwrap())
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
    command.env_remove("NO_COLOR").args(words).stdin(Stdio::null());
    command
}

/// The figures of a class in JSON growth.
fn row(growth: &Value, size_bytes: u64) -> &Value {
    let rows = growth["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["size_bytes"] == size_bytes).expect("the class")
}

#[test]
fn a_block_of_lines_for_each_moment_and_a_summary() {
    let server = Program::demo_server();
    let output = command(&["watch", &server.pid(), "--every", "50ms", "--count", "4"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for moment in 1..=4 {
        assert_eq!(text.matches(&format!("  moment {moment}  ")).count(), 1, "{text}");
    }
    assert!(text.contains("first moment: growth is counted from here"), "{text}");
    assert!(text.contains("watch done: 4 moments; target stopped for "), "{text}");
    assert_eq!(text.matches("target stopped for ").count(), 5, "each pause is told: {text}");
}

#[test]
fn json_lines_are_a_snapshot_and_then_growth_since_it() {
    let server = Program::demo_server();
    let words = ["watch", &server.pid(), "--every", "50ms", "--count", "4", "--json"];
    let output = command(&words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schemas: Vec<&str> = lines.iter().map(|line| line["schema"].as_str().unwrap()).collect();
    assert_eq!(schemas[0], "heaptap/snapshot/1");
    assert_eq!(schemas[1..], ["heaptap/growth/1"; 3]);
    for growth in &lines[1..] {
        assert_eq!(growth["from"]["taken_at"], lines[0]["taken_at"]);
    }
    assert_eq!(lines[3]["between"].as_array().map(Vec::len), Some(2));
    let leaked: Vec<i64> =
        lines[1..].iter().map(|growth| row(growth, 96)["delta_blocks"].as_i64().unwrap()).collect();
    assert!(leaked.is_sorted() && leaked[0] > 0, "the leak only grows: {leaked:?}");
}

#[test]
fn every_block_that_came_is_counted() {
    let Some(path) = heaptap_test_programs::LEDGER_JEMALLOC else { return };
    let mut ledger = Program::start(path, &["--threads", "3"]);
    let mut watch = Heaptap::start(&["watch", &ledger.pid(), "--every", "20ms", "--json"]);
    watch.read_until("heaptap/snapshot/1");
    let grown = ledger.ask("grow 1000 5000");
    assert!(grown.starts_with("ok"), "{grown}");
    // The moment that was under way may have been before the answer; the one after it was not.
    watch.read_until("heaptap/growth/1");
    let last = watch.read_until("heaptap/growth/1");
    let growth: Value = serde_json::from_str(&last).unwrap();
    let class = row(&growth, 5120);
    assert_eq!(class["delta_blocks"], 1000, "{class}");
    assert_eq!(class["born_blocks"], 1000, "{class}");
    assert_eq!(growth["total_delta_blocks"], 1000);
    watch.signal("INT");
    assert_eq!(watch.end().2.code(), Some(0));
}

#[test]
fn when_the_target_ends_so_does_the_watch() {
    let mut server = Program::demo_server();
    let mut watch = Heaptap::start(&["watch", &server.pid(), "--every", "30ms"]);
    watch.read_until("moment 2 ");
    server.end();
    let (text, errors, status) = watch.end();
    assert!(text.contains("the target has ended: "), "{text}");
    assert!(errors.starts_with("error: "), "{errors}");
    assert_eq!(status.code(), Some(3), "{errors}");
}

#[test]
fn an_interrupt_leaves_a_summary() {
    let server = Program::demo_server();
    for signal in ["INT", "TERM"] {
        let mut watch = Heaptap::start(&["watch", &server.pid(), "--every", "1h"]);
        watch.read_until("first moment");
        watch.signal(signal);
        let (text, errors, status) = watch.end();
        assert!(text.contains("watch interrupted: 1 moment; target stopped for "), "{text}");
        assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_watch() {
    let server = Program::demo_server();
    let mut watch = Heaptap::start(&["watch", &server.pid(), "--every", "20ms"]);
    watch.read_until("moment 2 ");
    let Heaptap { mut child, report } = watch;
    drop(report);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watch_goes_on_when_the_target_executes_a_program() {
    let Some(path) = heaptap_test_programs::LEDGER_JEMALLOC else { return };
    let mut ledger = Program::start(path, &["--threads", "2"]);
    let mut watch = Heaptap::start(&["watch", &ledger.pid(), "--every", "20ms"]);
    watch.read_until("moment 2 ");
    let answer = ledger.ask("exec");
    assert!(answer.starts_with("ready "), "{answer}");
    let told = watch.read_until("first moment: growth is counted from here");
    let news = format!("! process {} executed ledger", ledger.pid());
    assert!(told.contains(&news), "{told}");
    watch.read_until("since first");
    watch.signal("INT");
    let code = watch.end().2.code();
    assert!(matches!(code, Some(0 | 1)), "moments in the middle of the exec may be skipped: {code:?}");
}

#[test]
fn a_terminal_is_redrawn_and_given_back() {
    let server = Program::demo_server();
    let heaptap = env!("CARGO_BIN_EXE_heaptap");
    let line = format!("stty rows 30 cols 100; {heaptap} watch {} --every 50ms --count 3", server.pid());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    // An input that ends would be typed as Ctrl-D.
    let mut child =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script(1) is installed");
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    let (enter, leave) = (text.find("\x1b[?1049h").expect(&text), text.find("\x1b[?1049l").expect(&text));
    let summary = text.find("watch done: 3 moments").expect(&text);
    assert!(enter < leave && leave < summary, "{text}");
    // Later moments change single cells only.
    for drawn in ["moment", "since first", "q leaves"] {
        assert!(text[enter..leave].contains(drawn), "{drawn}: {text}");
    }
}

fn is_running(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

/// The demo's own files, which must not outlive it.
fn files_of(heaptap_pid: u32) -> Vec<PathBuf> {
    let name = format!("heaptap-demo-server-{heaptap_pid}");
    vec![std::env::temp_dir().join(name)].into_iter().filter(|path: &PathBuf| Path::exists(path)).collect()
}

#[test]
fn the_demo_finds_its_leak_and_leaves_nothing() {
    let demo = Heaptap::start(&["demo", "--for", "1s", "--json"]);
    let pid = demo.child.id();
    let (text, errors, status) = demo.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    let growth: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(growth["rows"][0]["size_bytes"], 96, "the leak is on top: {text}");
    assert!(!is_running(&growth["from"]["pid"].to_string()));
    assert_eq!(files_of(pid), Vec::<PathBuf>::new());
}

#[test]
fn the_demo_agrees_with_its_server() {
    let (text, errors, status) = Heaptap::start(&["demo", "--for", "1s"]).end();
    assert_eq!(status.code(), Some(0), "{errors}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |word: &str| {
        let at = words.iter().position(|other| *other == word).expect(word);
        words[at + 1].replace([',', '+'], "").parse::<i64>().expect(word)
    };
    let (least, most, found) = (after("counted"), after("to"), after("outside:"));
    // Four threads rank results that are in use at a moment and not lost.
    let in_use = 4 * 11;
    assert!((least - in_use..=most + in_use).contains(&found), "{least} to {most}, found {found}");
}

#[test]
fn the_server_of_a_demo_that_is_interrupted_or_killed_ends() {
    for signal in ["INT", "KILL"] {
        let mut demo = Heaptap::start(&["demo", "--for", "1h"]);
        let pid = demo.child.id();
        let line = demo.read_until("A server with pid");
        let server = line.split_whitespace().nth(4).expect("the pid").to_owned();
        assert!(is_running(&server));
        demo.signal(signal);
        let (_, errors, status) = demo.end();
        if signal == "INT" {
            assert_eq!(status.code(), Some(1), "{errors}");
            assert_eq!(files_of(pid), Vec::<PathBuf>::new());
        }
        // It ends with its input, which closes with heaptap.
        while is_running(&server) {
            std::thread::yield_now();
        }
        files_of(pid).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
