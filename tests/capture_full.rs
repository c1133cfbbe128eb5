//! Is a capture of all memory what the process had? Byte by byte, and as gdb sees it.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;

use heaptap_test_programs::{LEDGER, TYPES_NAMED};
use ledger::Ledger;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const PAGE_BYTES: u64 = 4096;

/// A directory of its own for a test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("heaptap-full-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Program(Child);

impl Program {
    fn start() -> Self {
        let mut command = Command::new(TYPES_NAMED);
        // Else the kernel writes into each thread's storage on which processor it runs.
        command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "ready"));
        // It makes the buffer of its input before it waits there: reading is system call 0, its input file 0.
        let system_call = format!("/proc/{}/syscall", child.id());
        while !fs::read_to_string(&system_call).unwrap().starts_with("0 0x0 ") {
            std::thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn capture_full(pid: u32, path: &str, budget: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
    let output =
        command.args(["capture", &pid.to_string(), "--full", "-o", path, "--pause-budget", budget]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Address, length and place in the file of each stretch of memory of an ELF core, by its program headers.
fn stretches(core: &[u8]) -> Vec<(u64, u64, usize)> {
    let table = usize::try_from(word(core, 32)).unwrap();
    let count = usize::from(u16::from_le_bytes(core[56..58].try_into().unwrap()));
    let headers = (0..count).map(|index| &core[table + index * 56..table + (index + 1) * 56]);
    let loads = headers.filter(|header| header[..4] == [1, 0, 0, 0]);
    let stretch =
        |header: &[u8]| (word(header, 16), word(header, 32), usize::try_from(word(header, 8)).unwrap());
    loads.map(stretch).filter(|(_, len_bytes, _)| *len_bytes > 0).collect()
}

/// Start and end of the mappings of a process that are private and can be written to.
fn writable(pid: u32) -> Vec<(u64, u64)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let range = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        rest.starts_with("rw-p").then(|| (number(start), number(end)))
    };
    maps.lines().filter_map(range).collect()
}

/// The pages of a range that are in memory, by the kernel's page map.
fn present_pages(pid: u32, (start, end): (u64, u64)) -> Vec<u64> {
    let map = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let pages = (start..end).step_by(usize::try_from(PAGE_BYTES).unwrap());
    pages
        .filter(|page| {
            let mut entry = [0; 8];
            map.read_exact_at(&mut entry, page / PAGE_BYTES * 8).unwrap();
            u64::from_le_bytes(entry) >> 63 == 1
        })
        .collect()
}

#[test]
fn every_page_that_was_written_is_there_and_equal() {
    let folder = Folder::new("equal");
    let path = folder.path("types.core");
    let program = Program::start();
    let pid = program.0.id();
    let before: Vec<Vec<u64>> = writable(pid).into_iter().map(|range| present_pages(pid, range)).collect();
    // With hardly any budget all but the records is read around the stop; at rest nothing changes meanwhile.
    for budget in ["10s", "20ms"] {
        let _ = fs::remove_file(&path);
        capture_full(pid, &path, budget);
        let core = fs::read(&path).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let stretches = stretches(&core);
        for page in before.iter().flatten() {
            let holder = stretches.iter().find(|(start, len, _)| (*start..start + len).contains(page));
            let (start, _, offset) = holder.unwrap_or_else(|| panic!("page {page:#x} is not in the file"));
            let at = offset + usize::try_from(page - start).unwrap();
            let mut now = [0; 4096];
            memory.read_exact_at(&mut now, *page).unwrap();
            assert!(core[at..at + 4096] == now, "page {page:#x} differs");
        }
    }
    let after: Vec<Vec<u64>> = writable(pid).into_iter().map(|range| present_pages(pid, range)).collect();
    assert_eq!(before, after, "no page was brought in");
}

fn gdb(program: &str, core: &str, commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set auto-load safe-path /", "-iex", "set debuginfod enabled off"]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.args([program, core]).output().expect("gdb is installed: .ci/run does");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn gdb_prints_stacks_globals_and_the_heap() {
    let folder = Folder::new("gdb");
    let path = folder.path("types.core");
    let program = Program::start();
    capture_full(program.0.id(), &path, "10s");
    let text = gdb(
        TYPES_NAMED,
        &path,
        &["bt", "set print object on", "print *chosen", "info symbol chosen->_vptr.Campaign"],
    );
    assert!(text.contains(" main "), "{text}");
    assert!(text.contains("price_ = 1.5"), "{text}");
    assert!(text.contains("vtable for ads::Campaign"), "{text}");
    let size = fs::metadata(&path).unwrap();
    assert!(size.blocks() * 512 <= size.len(), "holes take no room");
}

#[test]
fn a_busy_process_is_captured_and_its_census_is_that_of_the_stop() {
    let folder = Folder::new("busy");
    let path = folder.path("ledger.core");
    let mut ledger = Ledger::start(LEDGER, &["--threads", "2"]);
    ledger.command("start");
    let output = capture_full(ledger.pid(), &path, "10s");
    assert!(String::from_utf8_lossy(&output.stdout).contains("pause"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
    let snap = command.args(["snap", &path, "--json"]).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&snap.stdout).unwrap();
    assert_eq!(summary["target"]["kind"], "capture");
    assert!(summary["allocators"][0]["live_blocks"].as_u64().unwrap() > 0, "{summary}");
    let text = gdb(LEDGER, &path, &["thread apply all bt"]);
    assert!(text.contains(" main "), "{text}");
    ledger.command("stop");
}
