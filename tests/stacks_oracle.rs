//! Stacks of real programs: equal to gdb's, whatever the program was made with.
//!
//! gdb is the oracle: it has an unwinder of its own. Its frames for inlined functions and for tail calls are left
//! out: those are not on the stack, gdb concludes them from debug information.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap::stacks::schema::Stacks;
use heaptap_test_programs::{CALLS, CALLS_DEBUG_FRAME, CALLS_FRAME_POINTER, CALLS_WITHOUT_HDR, SHAPES};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The program counters of each thread, newest first.
type Counters = BTreeMap<i32, Vec<u64>>;

/// A program at rest, ended with the test.
struct AtRest(Child);

impl AtRest {
    /// Starts a program that says when all of its threads sleep.
    fn start(program: &str) -> Self {
        let mut child = Command::new(program).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let this = Self(child);
        assert_eq!(line, "ready\n", "{program}");
        this
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn stacks(&self) -> (Stacks, Option<i32>) {
        // On a busy machine the stop alone can take as long as a pause may be.
        let output = heaptap(&["stacks", &self.pid(), "--json", "--pause-budget", "5s"]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (serde_json::from_slice(&output.stdout).expect(&errors), output.status.code())
    }
}

impl Drop for AtRest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn heaptap(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heaptap")).args(words).output().unwrap()
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("heaptap-stacks-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const ASK_GDB: &str = "
import gdb
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame, counters = gdb.newest_frame(), []
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            counters.append('%x' % frame.pc())
        frame = frame.older()
    print('THREAD', thread.ptid[1], *counters)
";

fn gdb(target: &AtRest, folder: &Path) -> Counters {
    ask_gdb(&["-p", &target.pid()], folder)
}

/// What gdb says of the process or the core that `words` name to it.
fn ask_gdb(words: &[&str], folder: &Path) -> Counters {
    let script = folder.join("ask.py");
    std::fs::write(&script, ASK_GDB).unwrap();
    let output = Command::new("gdb")
        .args(["-batch", "-nx"])
        .args(words)
        .args(["-ex", "set debuginfod enabled off", "-ex", "set backtrace past-main on"])
        .args(["-ex", "set backtrace past-entry on", "-x"])
        .arg(&script)
        .output()
        .expect("gdb is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |line: &str| {
        let mut words = line.strip_prefix("THREAD ")?.split(' ');
        let tid = words.next()?.parse().ok()?;
        Some((tid, words.map(|word| u64::from_str_radix(word, 16).unwrap()).collect()))
    };
    let counters: Counters = text.lines().filter_map(line).collect();
    assert!(!counters.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    counters
}

fn counters(stacks: &Stacks) -> Counters {
    let mut all = Counters::new();
    for group in &stacks.groups {
        let frames = group.frames.iter().filter(|frame| !frame.inlined);
        let counters: Vec<u64> = frames.filter_map(|frame| frame.address).collect();
        all.extend(group.threads.iter().map(|thread| (thread.tid, counters.clone())));
    }
    all
}

/// The names of the functions of the thread that has this name.
fn functions(stacks: &Stacks, thread: &str) -> Vec<String> {
    let is_it = |name: &Option<String>| name.as_deref() == Some(thread);
    let group = stacks.groups.iter().find(|group| group.threads.iter().any(|thread| is_it(&thread.name)));
    let frames = &group.unwrap_or_else(|| panic!("no thread {thread}")).frames;
    frames.iter().map(|frame| frame.function.clone().unwrap_or_default()).collect()
}

#[test]
fn every_frame_is_gdbs() {
    let folder = Folder::new("gdb");
    for program in [SHAPES, CALLS, CALLS_WITHOUT_HDR, CALLS_DEBUG_FRAME] {
        let target = AtRest::start(program);
        let (stacks, code) = target.stacks();
        assert_eq!(counters(&stacks), gdb(&target, &folder.0), "{program}");
        assert_eq!(code, Some(0), "{program}");
        let trusted = |trust: &Option<String>| matches!(trust.as_deref(), Some("registers" | "cfi"));
        assert!(stacks.groups.iter().flat_map(|group| &group.frames).all(|frame| trusted(&frame.trust)));
    }
}

/// gdb guesses at functions without call frame information, and wrongly at these; so the same program with such
/// information is the oracle.
#[test]
fn frame_pointers_lead_to_the_start() {
    let (plain, _) = AtRest::start(CALLS).stacks();
    let (stacks, code) = AtRest::start(CALLS_FRAME_POINTER).stacks();
    assert_eq!(code, Some(0), "{:?}", stacks.missing);
    let named = |stacks: &Stacks| {
        let mut all: Vec<Vec<String>> = stacks
            .groups
            .iter()
            .map(|group| {
                let own = |frame: &&heaptap::stacks::schema::Frame| !frame.inlined;
                let name = |frame: &heaptap::stacks::schema::Frame| {
                    // The compiler's own mark on a copy that it made for one set of arguments.
                    frame.function.clone().unwrap_or_default().replace(".constprop.0", "")
                };
                group.frames.iter().filter(own).map(name).collect()
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(named(&stacks), named(&plain));
    let trusts: Vec<&str> = stacks
        .groups
        .iter()
        .flat_map(|group| &group.frames)
        .filter_map(|frame| frame.trust.as_deref())
        .collect();
    assert!(trusts.contains(&"frame_pointer"), "what was found by frame pointers is marked");
}

#[test]
fn names_are_those_of_the_source() {
    let (stacks, _) = AtRest::start(SHAPES).stacks();
    let inlined = functions(&stacks, "inlining");
    for name in ["inlined", "inlined_twice", "shapes::inlining()"] {
        assert!(inlined.iter().any(|function| function == name), "{name} in {inlined:?}");
    }
    let deep = functions(&stacks, "recursion");
    let recursion = deep.iter().filter(|function| function.starts_with("shapes::recursion("));
    assert!(recursion.count() > 2000 / 10, "the compiler may inline some of 2000 calls into others");
    let templates = functions(&stacks, "templates").join("\n");
    assert!(templates.contains("shapes::Nested<8>::run<shapes::templates()"), "{templates}");
    let frames = stacks.groups.iter().flat_map(|group| &group.frames);
    let source = |file: &Option<String>| file.as_ref().is_some_and(|file| file.ends_with("shapes.cc"));
    assert!(frames.filter(|frame| source(&frame.file) && frame.line.is_some()).count() > 20);
}

#[test]
fn stripped_places_are_named_later() {
    let folder = Folder::new("strip");
    let (with_symbols, stripped) = (folder.0.join("shapes"), folder.0.join("stripped"));
    let build_id = "-Wl,--build-id";
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("test-programs/stacks/shapes.cc");
    let built = Command::new("c++")
        .args(["-std=gnu++17", "-O2", "-g", "-pthread", build_id, "-o"])
        .args([&with_symbols, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let copied = Command::new("strip").arg("-o").args([&stripped, &with_symbols]).status().unwrap();
    assert!(copied.success());
    let target = AtRest::start(stripped.to_str().unwrap());
    let (stacks, code) = target.stacks();
    assert_eq!(code, Some(0));
    assert!(!functions(&stacks, "inlining").iter().any(|function| function.contains("shapes")));
    let json = folder.0.join("stacks.json");
    std::fs::write(&json, serde_json::to_vec(&stacks).unwrap()).unwrap();
    let file = with_symbols.to_str().unwrap();
    let output = heaptap(&["symbolize", json.to_str().unwrap(), "--json", "--file", file]);
    let named: Stacks = serde_json::from_slice(&output.stdout).unwrap();
    assert!(functions(&named, "inlining").iter().any(|function| function == "inlined_twice"));
    let text = heaptap(&["stacks", &target.pid()]);
    let lines = folder.0.join("stacks.txt");
    std::fs::write(&lines, &text.stdout).unwrap();
    let output = heaptap(&["symbolize", lines.to_str().unwrap(), "--file", file]);
    let named = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(named.contains("shapes::tail_end(int) at "), "{named}");
}

/// A core by gdb's gcore.
fn gcore(pid: &str, folder: &Path) -> String {
    let output = Command::new("gcore").arg("-o").arg(folder.join("gcore")).arg(pid).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join(format!("gcore.{pid}")).to_str().unwrap().to_owned()
}

#[test]
fn stacks_of_a_core_are_those_that_gdb_finds_in_it_and_those_of_the_process() {
    let folder = Folder::new("core");
    for program in [SHAPES, CALLS, CALLS_WITHOUT_HDR] {
        let target = AtRest::start(program);
        let (live, _) = target.stacks();
        let core = gcore(&target.pid(), &folder.0);
        let output = heaptap(&["stacks", &core, "--json"]);
        let stacks: Stacks = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(stacks.target.kind, "core");
        assert_eq!(counters(&stacks), ask_gdb(&[program, &core], &folder.0), "{program}");
        assert_eq!(counters(&stacks), counters(&live), "{program}");
        let names = |stacks: &Stacks| -> Vec<Option<String>> {
            let frames = stacks.groups.iter().flat_map(|group| &group.frames);
            frames.map(|frame| frame.function.clone()).collect()
        };
        assert_eq!(names(&stacks), names(&live), "{program}");
    }
}
