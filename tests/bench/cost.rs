//! heaptap itself, run as a user runs it.

use heaptap_test_programs::SPENT;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HEAPTAP: &str = env!("CARGO_BIN_EXE_heaptap");

/// A folder for what a run leaves behind; removed when dropped.
pub struct Files {
    folder: PathBuf,
}

/// What a command cost.
pub struct Spent {
    /// From start to end.
    pub wall_s: f64,
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
        let report = self.folder.join("spent");
        let spent = SPENT.expect("this benchmark is for Linux");
        let output = Command::new(spent).arg(&report).arg(HEAPTAP).args(arguments).output();
        succeeded(&output.expect("heaptap starts"));
        let text = std::fs::read_to_string(&report).expect("the report");
        let fields: Vec<f64> = text.split_whitespace().map(|field| field.parse().expect("numbers")).collect();
        Spent { wall_s: fields[0] / 1e6, peak_bytes: fields[2] * 1024.0 }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The pause that `heaptap snap` says it took.
pub fn snapshot_pause_ms(pid: u32) -> f64 {
    let output = Command::new(HEAPTAP).args(["snap", &pid.to_string(), "--json"]).output();
    let output = output.expect("heaptap starts");
    succeeded(&output);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(summary.get("missing").is_none(), "the snapshot is whole: {}", summary["missing"]);
    summary["pause_ms"].as_f64().expect("a pause")
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}
