//! Does a recording name the path that leaks, and only that one?

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap_test_programs::LEAK_SERVER_JEMALLOC;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start(arguments: &[&str]) -> Option<Self> {
        let mut child = Command::new(LEAK_SERVER_JEMALLOC?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, input, output };
        assert!(server.line().starts_with("ready"));
        Some(server)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the server lives");
        line
    }

    /// Live blocks of a path, by the server's own count.
    fn live(&mut self, path: &str) -> i64 {
        writeln!(self.input, "truth").unwrap();
        let mut found = None;
        loop {
            let line = self.line();
            if line == "end\n" {
                return found.unwrap();
            }
            if line.contains(&format!("name={path} ")) {
                let field = line.split_whitespace().find_map(|field| field.strip_prefix("live="));
                found = field.and_then(|count| count.parse().ok());
            }
        }
    }

    fn record(&self, span: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
        command.args(["record", &self.child.id().to_string(), "--for", span, "--json"]);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn functions(site: &Value) -> String {
    let frames = site["frames"].as_array().unwrap();
    frames.iter().filter_map(|frame| frame["function"].as_str()).collect::<Vec<_>>().join(" < ")
}

#[test]
fn the_leaking_path_is_named_and_no_other() {
    let arguments = ["--rate", "60000", "--leak", "0.01", "--minute", "5"];
    let Some(mut server) = Server::start(&arguments) else { return };
    let before = server.live("RankResults");
    let output = server.record("10s").output().unwrap();
    let leaked = server.live("RankResults") - before;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(recording["schema"], "heaptap/recording/1");
    let sites = recording["sites"].as_array().unwrap();
    let leak: Vec<&Value> =
        sites.iter().filter(|site| functions(site).contains("RankResults::allocate")).collect();
    let blamed: i64 = leak.iter().map(|site| site["delta_blocks"].as_i64().unwrap()).sum();
    let all: i64 = sites.iter().map(|site| site["delta_blocks"].as_i64().unwrap()).sum();
    assert!(functions(&sites[0]).contains("RankResults::allocate"), "{recording:#}");
    // The server counts a little longer than the recording lasts.
    assert!(blamed > 0 && blamed <= leaked, "{blamed} of {leaked}");
    assert!(blamed * 10 >= all * 9, "{blamed} of {all}");
    assert!(functions(&sites[0]).contains("Worker::serve"), "the stack goes down to the thread's work");
}

#[test]
fn a_target_outlives_a_recording_that_is_killed() {
    let Some(mut server) = Server::start(&["--rate", "60000", "--leak", "0.01", "--minute", "5"]) else {
        return;
    };
    let mut recording = server.record("60s").stdout(Stdio::null()).spawn().unwrap();
    // Once it leaks visibly, watchpoints are set.
    let begun = server.live("RankResults");
    while server.live("RankResults") < begun + 2500 {
        std::thread::yield_now();
    }
    recording.kill().unwrap();
    recording.wait().unwrap();
    let killed_at = server.live("RankResults");
    while server.live("RankResults") < killed_at + 500 {
        std::thread::yield_now();
    }
}
