//! What a snapshot is measured against: the least that must be done, and debuggers.

#![allow(dead_code, reason = "each benchmark uses its part")]

use crate::heart::Heart;
use heaptap_platform::AddressRange;
use heaptap_test_programs::BULK_READ;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Stop, one bulk read, release: a program of a few lines that shares no code with heaptap.
pub struct BulkRead {
    pid: u32,
    ranges: String,
}

/// What one run of it took, by its own clock.
pub struct Taken {
    /// Until all threads stood still.
    pub stop_ms: f64,
    /// Until all were let go.
    pub pause_ms: f64,
}

impl BulkRead {
    pub fn of(pid: u32, ranges: &[AddressRange]) -> Self {
        let mut text = String::new();
        for range in ranges {
            writeln!(text, "{:x} {:x}", range.start, range.len_bytes()).expect("text");
        }
        Self { pid, ranges: text }
    }

    pub fn run(&self) -> Taken {
        self.try_run().expect("the ranges can be read")
    }

    /// None where a range is gone since: under load heaps shrink.
    pub fn try_run(&self) -> Option<Taken> {
        let mut command = Command::new(BULK_READ.expect("this benchmark is for Linux"));
        command.arg(self.pid.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("piped").write_all(self.ranges.as_bytes()).expect("it listens");
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let fields: Vec<f64> = text.split_whitespace().map(|field| field.parse().expect("numbers")).collect();
        let [stop_us, pause_us, _] = fields[..] else { return None };
        Some(Taken { stop_ms: stop_us / 1000.0, pause_ms: pause_us / 1000.0 })
    }
}

/// Gaps of the heartbeat while gdb attaches and detaches; none where it is not installed.
pub fn gdb(pid: u32, heart: &Heart, rounds: usize) -> Vec<f64> {
    gaps(heart, rounds, || {
        let mut command = Command::new("gdb");
        command.args(["-nx", "-batch", "-p", &pid.to_string()]);
        command
    })
}

/// Gaps of the heartbeat while gcore writes a core; none where it is not installed.
pub fn gcore(pid: u32, heart: &Heart, rounds: usize) -> Vec<f64> {
    let prefix = std::env::temp_dir().join(format!("heaptap-bench-core-{}", std::process::id()));
    let gaps = gaps(heart, rounds, || {
        let mut command = Command::new("gcore");
        command.arg("-o").arg(&prefix).arg(pid.to_string());
        command
    });
    let _ = std::fs::remove_file(format!("{}.{pid}", prefix.display()));
    gaps
}

fn gaps(heart: &Heart, rounds: usize, command: impl Fn() -> Command) -> Vec<f64> {
    let round = |_| {
        let mut found = false;
        let gap_ms = heart.gap_ms(|| {
            let status = command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            found = status.is_ok_and(|status| status.success());
        });
        found.then_some(gap_ms)
    };
    (0..rounds).map_while(round).collect()
}
