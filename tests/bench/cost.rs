//! heaptap itself, run as a user runs it.

#![allow(dead_code, reason = "each benchmark uses its part")]

use heaptap_test_programs::SPENT;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HEAPTAP: &str = env!("CARGO_BIN_EXE_heaptap");

/// A folder for what a run leaves behind; removed when dropped.
pub struct Files {
    folder: PathBuf,
}

/// What a command cost.
pub struct Spent {
    /// From start to end.
    pub wall_s: f64,
    /// Of all processors.
    pub cpu_s: f64,
    /// Peak of its resident memory.
    pub peak_bytes: f64,
}

impl Files {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("heaptap-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Runs `heaptap` with these arguments and tells what it cost.
    pub fn heaptap(&self, arguments: &[&str]) -> Spent {
        self.spend(HEAPTAP, arguments, Stdio::piped()).expect("heaptap starts")
    }

    /// Runs another program, and takes no notice of what it prints; none where it is not installed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Option<Spent> {
        self.spend(program, arguments, Stdio::null())
    }

    fn spend(&self, program: &str, arguments: &[&str], prints: Stdio) -> Option<Spent> {
        const NOT_FOUND: i32 = 127;
        let report = self.folder.join("spent");
        let mut command = Command::new(SPENT.expect("this benchmark is for Linux"));
        command.arg(&report).arg(program).args(arguments).stdin(Stdio::null()).stdout(prints);
        let output = command.stderr(Stdio::piped()).output().expect("it starts");
        match output.status.code() {
            Some(NOT_FOUND) => return None,
            // What is partial cost as much.
            Some(0 | 1) => {}
            _ => panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
        }
        let text = std::fs::read_to_string(&report).expect("the report");
        let fields: Vec<f64> = text.split_whitespace().map(|field| field.parse().expect("numbers")).collect();
        Some(Spent { wall_s: fields[0] / 1e6, cpu_s: fields[1] / 1e6, peak_bytes: fields[2] * 1024.0 })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The pause that `heaptap snap` says it took.
pub fn snapshot_pause_ms(pid: u32) -> f64 {
    let summary = snapshot(pid);
    assert!(summary.get("missing").is_none(), "the snapshot is whole: {}", summary["missing"]);
    summary["pause_ms"].as_f64().expect("a pause")
}

/// What `heaptap snap` says, without any option; it may be partial.
pub fn snapshot(pid: u32) -> serde_json::Value {
    let output = Command::new(HEAPTAP).args(["snap", &pid.to_string(), "--json"]).output();
    let output = output.expect("heaptap starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    })
}
