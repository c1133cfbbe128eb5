//! The leak server as tests and benchmarks talk to it.

#![allow(dead_code, reason = "each file that includes this uses a part of it")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running one; killed when it is dropped.
pub struct Server {
    pub child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What requests were like since the last question.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Allocations a second.
    pub per_second: f64,
    /// Longest request.
    pub worst_us: f64,
    /// That which one in a hundred takes longer than.
    pub p99_us: f64,
}

impl Server {
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, input, output };
        assert!(server.line().starts_with("ready"));
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the server lives");
        line
    }

    /// Live blocks of a path, by the server's own count.
    pub fn live(&mut self, path: &str) -> i64 {
        writeln!(self.input, "truth").unwrap();
        let mut found = None;
        loop {
            let line = self.line();
            if line == "end\n" {
                return found.unwrap();
            }
            if line.contains(&format!("name={path} ")) {
                found = field(&line, "live=").map(|count| count as i64);
            }
        }
    }

    /// How it went since this was last asked.
    pub fn pace(&mut self) -> Pace {
        writeln!(self.input, "pace").unwrap();
        let line = self.line();
        let number = |name| field(&line, name).unwrap();
        Pace {
            per_second: number("allocations=") / number("seconds="),
            worst_us: number("max_ns=") / 1e3,
            p99_us: number("p99_ns=") / 1e3,
        }
    }

    /// A recording of it, yet to be started.
    pub fn record(&self, span: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
        command.args(["record", &self.child.id().to_string(), "--for", span, "--json"]);
        command.args(["--pause-budget", "500ms"]);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn field(line: &str, name: &str) -> Option<f64> {
    line.split_whitespace().find_map(|field| field.strip_prefix(name))?.parse().ok()
}

/// All functions of a site, the newest first.
pub fn functions(site: &Value) -> String {
    let frames = site["frames"].as_array().unwrap();
    frames.iter().filter_map(|frame| frame["function"].as_str()).collect::<Vec<_>>().join(" < ")
}
