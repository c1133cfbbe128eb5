//! Is a capture as good as the process? The census of the file equals that of the process, and gdb reads it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;

use heaptap::snapshot::schema::Summary;
use heaptap::target::{Contents, Options, Target, TargetError};
use heaptap_test_programs::{LEDGER, LEDGER_STATIC};
use ledger::Ledger;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Debian's package, stripped; `.ci/run` installs it.
const DEBIAN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// Another.
const TCMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4";

/// A directory of its own for a test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("heaptap-capture-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(contents: Contents) -> Options {
    // Other work on a busy machine may make a pause long; it is not what is asked here.
    Options { pause_budget: Duration::from_secs(10), contents, ..Options::default() }
}

fn capture(ledger: &Ledger, contents: Contents, path: &Path) {
    let target = Target::open(&ledger.pid().to_string()).expect("the ledger runs");
    target.capture(&options(contents)).expect("it can be captured").write(path, false).expect("written");
}

fn summary(spec: &str) -> Summary {
    let target = Target::open(spec).expect("it can be opened");
    target.snapshot(&options(Contents::Records)).expect("its heap can be read").summary
}

fn of_file(path: &Path) -> Summary {
    summary(path.to_str().unwrap())
}

/// What no two stops have in common, and what a file cannot know.
fn without_the_moment(mut summary: Summary) -> Summary {
    summary.target.kind.clear();
    summary.taken_at = 0.0;
    summary.pause_ms = 0.0;
    summary.stops = 0;
    summary.resident.clear();
    summary.resident_bytes = None;
    summary
}

fn assert_census_kept(name: &str, ledger: &Ledger, contents: Contents) {
    let folder = Folder::new(name);
    let path = folder.path("ledger.core");
    let target = Target::open(&ledger.pid().to_string()).unwrap();
    let captured = target.capture(&options(contents)).unwrap();
    captured.write(&path, false).unwrap();
    let live = captured.snapshot(captured.walk().unwrap(), None).unwrap().summary;
    let mut file = of_file(&path);
    assert_eq!(file.target.kind, "capture");
    file.target.kind.clone_from(&live.target.kind);
    let text = |summary: &Summary| serde_json::to_string_pretty(summary).unwrap();
    assert_eq!(text(&file), text(&live), "{name}: the same moment, in memory and in a file");
    let running = without_the_moment(summary(&ledger.pid().to_string()));
    assert_eq!(
        text(&without_the_moment(file)),
        text(&running),
        "{name}: the same heap, running and in a file"
    );
    assert!(live.allocators.iter().all(|allocator| allocator.complete && allocator.verified), "{name}");
}

#[test]
fn a_capture_gives_the_census_of_the_process() {
    let debian = Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", &[]);
    assert_census_kept("debian", &debian, Contents::Data);
    assert_census_kept("debian-no-data", &debian, Contents::NoData);
    let settings = "narenas:1,bin_shards:8-160:16|161-1024:4,tcache:false";
    assert_census_kept(
        "settings",
        &Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, settings, &[]),
        Contents::NoData,
    );
    let linked = Ledger::start(LEDGER_STATIC.expect("built wherever jemalloc is not the C library's"), &[]);
    assert_census_kept("static", &linked, Contents::Data);
    assert_census_kept("static-no-data", &linked, Contents::NoData);
    assert_census_kept("glibc", &Ledger::start(LEDGER, &[]), Contents::Data);
    let mimalloc = Ledger::preloaded(LEDGER, "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0", "", &[]);
    assert_census_kept("mimalloc", &mimalloc, Contents::Data);
    let tcmalloc = Ledger::preloaded(LEDGER, TCMALLOC, "", &[]);
    assert_census_kept("tcmalloc", &tcmalloc, Contents::Data);
}

#[test]
fn a_capture_is_understood_without_the_modules_files() {
    let folder = Folder::new("fileless");
    let program = folder.path("program");
    fs::copy(LEDGER_STATIC.unwrap(), &program).unwrap();
    let path = folder.path("program.core");
    let ledger = Ledger::start(program.to_str().unwrap(), &[]);
    capture(&ledger, Contents::NoData, &path);
    let with_file = of_file(&path);
    drop(ledger);
    fs::remove_file(&program).unwrap();
    let without_file = of_file(&path);
    assert_eq!(without_file.allocators[0].shards, with_file.allocators[0].shards);
    assert_eq!(without_file.allocators[0].version, with_file.allocators[0].version);
    assert!(without_file.allocators[0].verified);
    fs::copy(LEDGER, &program).unwrap();
    let with_another = of_file(&path);
    assert_eq!(with_another.allocators[0].shards, with_file.allocators[0].shards);
    assert!(
        with_another.missing.iter().any(|what| what.contains("another build")),
        "{:?}",
        with_another.missing
    );
}

/// What gdb prints for `commands`, with its chatter.
fn gdb(arguments: &[&str], commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set auto-load safe-path /", "-iex", "set debuginfod enabled off"]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.args(arguments).output().expect("gdb is installed: .ci/run does");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Function names of the frames in gdb's backtraces, one thread after the other.
fn frames(text: &str) -> Vec<String> {
    let function = |line: &str| {
        let (_, rest) = line.strip_prefix('#')?.split_once(' ')?;
        let rest = rest.trim_start();
        let rest =
            rest.split_once(" in ").filter(|(head, _)| head.starts_with("0x")).map_or(rest, |(_, rest)| rest);
        rest.split_whitespace().next().map(str::to_owned)
    };
    text.lines().filter_map(function).collect()
}

#[test]
fn gdb_opens_a_capture_and_unwinds_every_thread_as_in_the_process() {
    let folder = Folder::new("gdb");
    let path = folder.path("ledger.core");
    let ledger = Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", &[]);
    capture(&ledger, Contents::Data, &path);
    let live = gdb(&["-p", &ledger.pid().to_string()], &["thread apply all bt"]);
    let file = gdb(&[LEDGER, path.to_str().unwrap()], &["thread apply all bt", "info threads"]);
    let expected = frames(&live);
    assert!(expected.iter().filter(|frame| *frame == "worker_live").count() >= 4, "{live}");
    assert!(expected.iter().any(|frame| frame == "main"), "{live}");
    // gdb prints the current thread's first frame once more when it opens a core.
    let found = frames(&file);
    assert!(found.ends_with(&expected), "in the process: {expected:?}\nin the capture: {file}");
}

#[test]
fn captures_without_data_hold_no_byte_of_the_programs_blocks() {
    const TEXT: &[u8] = b"LEDGER USER DATA";
    let folder = Folder::new("data");
    for (name, ledger) in [
        ("debian", Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", &[])),
        ("static", Ledger::start(LEDGER_STATIC.unwrap(), &[])),
    ] {
        let path = folder.path(name);
        capture(&ledger, Contents::NoData, &path);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(memchr::memmem::find(&bytes, TEXT), None, "{name}");
    }
}

#[test]
fn compressed_captures_are_read_as_they_are() {
    let folder = Folder::new("compressed");
    let path = folder.path("ledger.core");
    capture(&Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", &[]), Contents::NoData, &path);
    let plain = of_file(&path);
    // With small blocks, so that the beginning of a file that is cut off can be unpacked.
    for (tool, option, ending) in
        [("zstd", "-3", "zst"), ("gzip", "-6", "gz"), ("xz", "-1", "xz"), ("lz4", "-B4", "lz4")]
    {
        let packed = folder.path(&format!("ledger.core.{ending}"));
        let output = Command::new(tool).args([option, "-c"]).arg(&path).output();
        fs::write(&packed, output.expect("the tool is installed: .ci/run does").stdout).unwrap();
        assert_eq!(of_file(&packed), plain, "{tool}");
        let whole = fs::read(&packed).unwrap();
        fs::write(&packed, &whole[..whole.len() * 2 / 3]).unwrap();
        let said = said_of(&packed);
        assert!(said.contains("unpacking ended at byte"), "{tool}: {said}");
    }
}

/// What is missing of a file that is not whole, or why it cannot be used.
fn said_of(path: &Path) -> String {
    let outcome =
        Target::open(path.to_str().unwrap()).and_then(|target| target.snapshot(&options(Contents::Records)));
    match outcome {
        Ok(snapshot) => snapshot.summary.missing.join("; "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = Folder::new("errors");
    let path = folder.path("ledger.core");
    capture(&Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", &[]), Contents::NoData, &path);
    let whole = fs::read(&path).unwrap();
    let damaged = folder.path("damaged.core");
    let open = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        Target::open(damaged.to_str().unwrap())
    };
    let error = open(&whole[..10]).expect_err("it is cut off");
    assert!(error.to_string().contains("ELF header"), "{error}");
    assert_eq!((error.exit_code(), error.hint().is_some()), (6, true));
    // What is there is used; it is not enough for a heap.
    for (length, what) in [(500, "program headers are there"), (20_000, "of memory are cut off")] {
        let target = open(&whole[..length]).expect("it is the head of a core");
        let error = target.snapshot(&Options::default()).expect_err("nothing of the heap is there");
        let said = error.to_string();
        assert!(said.contains(&format!("ends at byte {length}")) && said.contains(what), "{length}: {said}");
    }
    let mut other = whole.clone();
    other[4] = 1;
    assert!(open(&other).unwrap_err().to_string().contains("32 bits"));
    other[4] = 2;
    other[16] = 2;
    assert!(open(&other).unwrap_err().to_string().contains("a program or a library"));
    open(&whole[..whole.len() - 100_000]).unwrap();
    assert!(said_of(&damaged).contains("bytes of memory are cut off"), "{}", said_of(&damaged));
    assert!(matches!(Target::open("no-such-file"), Err(TargetError::NotATarget { .. })));
}
