//! A target as `/proc` shows it, and heaptap as a shell runs it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long something may take that must happen at all; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's jemalloc, stripped; `.ci/run` installs it.
pub const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub report: String,
    pub errors: String,
}

impl Told {
    /// The report of `--json`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.report).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs heaptap; one that does not come to an end fails the test.
pub fn heaptap(words: &[&str]) -> Told {
    told(limited().arg(env!("CARGO_BIN_EXE_heaptap")).args(words))
}

/// `timeout`, to which the command is to be added.
pub fn limited() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &format!("{}", PATIENCE.as_secs())]);
    command
}

/// Runs a command to its end.
pub fn told(command: &mut Command) -> Told {
    let Output { status, stdout, stderr } =
        command.env_remove("LD_LIBRARY_PATH").stdin(Stdio::null()).output().expect("it can be started");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (report, errors) = (text(stdout), text(stderr));
    let code = status.code().unwrap_or_else(|| panic!("{command:?} did not end: {errors}"));
    Told { code, report, errors }
}

/// Waits for something to become true, which it must.
pub fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// One line of a thread's `status`.
pub fn status(pid: u32, tid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// The ids of all threads.
pub fn threads(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).expect("the target lives");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Each thread's state letter and tracer, as far as the thread has not ended meanwhile.
pub fn states(pid: u32) -> Vec<(u32, char, u32)> {
    let state = |tid: u32| {
        let letter = status(pid, tid, "State")?.chars().next()?;
        Some((tid, letter, status(pid, tid, "TracerPid")?.parse().ok()?))
    };
    threads(pid).into_iter().filter_map(state).collect()
}

/// Checks that no thread is stopped or traced.
pub fn assert_runs(pid: u32) {
    let held: Vec<_> = states(pid)
        .into_iter()
        .filter(|(_, letter, tracer)| matches!(letter, 't' | 'T') || *tracer != 0)
        .collect();
    assert!(held.is_empty(), "threads of {pid} are stopped or traced: {held:?}");
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let list = |tid: u32| fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    let lists: Vec<String> = threads(pid).into_iter().map(list).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|word| word.parse().ok()).collect()
}

/// A folder that is removed with all that is in it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("heaptap-folder-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder for temporary files");
        Self(path.canonicalize().expect("it exists"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Numbers that look random. The seed is printed, and is taken from `HEAPTAP_SEED` where that is set.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64);
        let given = std::env::var("HEAPTAP_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(now);
        eprintln!("HEAPTAP_SEED={seed}");
        Self(seed)
    }

    /// A time below `limit`.
    pub fn below(&mut self, limit: Duration) -> Duration {
        // Splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_nanos((bits ^ (bits >> 31)) % limit.as_nanos().max(1) as u64)
    }
}
