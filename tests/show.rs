//! Does `show` tell blocks, types and places as the program knows them?

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap_test_programs::{TRAITS, TYPES, TYPES_FIXED, TYPES_STATIC, TYPES_WITHOUT_RTTI};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Objects of one type, as the program said.
struct Kind {
    name: String,
    count: u64,
    usable_bytes: u64,
    first: u64,
}

/// A program with objects of known types.
struct Program {
    child: Child,
    kinds: Vec<Kind>,
}

impl Program {
    fn start(path: &str) -> Self {
        let mut child =
            Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = lines.map(Result::unwrap).take_while(|line| line != "ready");
        let kinds = lines.filter_map(|line| kind(&line)).collect();
        Self { child, kinds }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// `type COUNT SIZE ADDRESS NAME`; Rust knows no usable sizes and leaves them out.
fn kind(line: &str) -> Option<Kind> {
    let (count, rest) = line.strip_prefix("type ")?.split_once(' ')?;
    let (usable_bytes, rest) =
        rest.split_once(' ').filter(|(size, _)| !size.contains('x')).unwrap_or(("0", rest));
    let (first, name) = rest.split_once(' ')?;
    Some(Kind {
        name: name.to_owned(),
        count: count.parse().unwrap(),
        usable_bytes: usable_bytes.parse().unwrap(),
        first: u64::from_str_radix(first.strip_prefix("0x")?, 16).unwrap(),
    })
}

/// What `heaptap show` prints as JSON, and its exit code.
fn show(arguments: &[&str]) -> (Value, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
    // Other work on a busy machine may make a pause long; it is not what is asked here.
    let output =
        command.arg("show").args(arguments).args(["--json", "--pause-budget", "10s"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"));
    (value, output.status.code().unwrap())
}

/// How many blocks of the class of `kind` have a type that `is_it`, and what shows it.
fn counted(target: &str, kind: &Kind, is_it: &dyn Fn(&str) -> bool) -> (u64, Vec<String>) {
    let (inspection, code) = show(&[target, "--class", &kind.usable_bytes.to_string()]);
    assert_eq!((code, &inspection["schema"]), (0, &Value::from("heaptap/block/1")), "{}", kind.name);
    let types = inspection["sample"]["types"].as_array().unwrap();
    assert_eq!(inspection["sample"]["live_blocks"], inspection["sample"]["read_blocks"], "all were read");
    let of_kind = types.iter().filter(|one| is_it(one["type"].as_str().unwrap()));
    let by = of_kind.clone().map(|one| one["type_by"].as_str().unwrap().to_owned()).collect();
    (of_kind.map(|one| one["blocks"].as_u64().unwrap()).sum(), by)
}

/// The name as the compiler's library spells it.
fn is_type(kind: &Kind, found: &str) -> bool {
    if kind.name.starts_with("ads::Holder<") {
        return found.starts_with("ads::Holder<std::") && found.contains("basic_string<char");
    }
    if kind.name.starts_with("std::_Sp_") { found.starts_with(&kind.name) } else { found == kind.name }
}

fn assert_types(target: &str, program: &Program, what: &str) {
    assert_eq!(program.kinds.len(), 8, "{what}");
    for kind in &program.kinds {
        let (count, by) = counted(target, kind, &|found| is_type(kind, found));
        assert_eq!(count, kind.count, "{what}: {}", kind.name);
        let expected = if kind.name == "text" { "text" } else { "rtti" };
        assert_eq!(by, [expected], "{what}: {}", kind.name);
    }
}

#[test]
fn classes_are_named_in_stripped_programs_of_every_kind() {
    for path in [TYPES, TYPES_FIXED, TYPES_STATIC] {
        let program = Program::start(path);
        assert_types(&program.pid(), &program, path);
    }
}

#[test]
fn objects_are_told_apart_without_type_information() {
    let program = Program::start(TYPES_WITHOUT_RTTI);
    for kind in program.kinds.iter().filter(|kind| kind.name != "text") {
        let (count, by) =
            counted(&program.pid(), kind, &|found| found.starts_with("vtable types-without-rtti+0x"));
        assert_eq!((count, by), (kind.count, vec!["vtable".to_owned()]), "{}", kind.name);
    }
}

/// A directory of its own for a test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("heaptap-show-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn captures_and_cores_have_the_types_of_the_process() {
    let folder = Folder::new("files");
    for (number, path) in [TYPES, TYPES_FIXED, TYPES_STATIC].into_iter().enumerate() {
        let program = Program::start(path);
        let capture = folder.path(&format!("{number}.capture"));
        let heaptap = env!("CARGO_BIN_EXE_heaptap");
        let arguments = ["capture", &program.pid(), "-o", &capture, "--pause-budget", "10s"];
        assert!(Command::new(heaptap).args(arguments).output().unwrap().status.success());
        assert_types(&capture, &program, &format!("capture of {path}"));
        // Debuggers write such cores: every byte that the process has written.
        let core = folder.path("core");
        let gcore = Command::new("gcore").args(["-o", &core, &program.pid()]).output();
        assert!(gcore.expect("gdb is installed: .ci/run does").status.success());
        assert_types(&format!("{core}.{}", program.pid()), &program, &format!("core of {path}"));
    }
}

fn hexadecimal(address: u64) -> String {
    format!("{address:#x}")
}

#[test]
fn a_block_is_found_from_any_of_its_bytes() {
    let program = Program::start(TYPES);
    for kind in &program.kinds {
        for offset in [0, 1, kind.usable_bytes - 1] {
            let (inspection, code) = show(&[&program.pid(), &hexadecimal(kind.first + offset)]);
            let block = &inspection["place"]["block"];
            assert_eq!(code, 0, "{}", kind.name);
            assert_eq!(inspection["place"]["kind"], "block");
            assert_eq!(
                (&block["address"], &block["state"]),
                (&Value::from(kind.first), &Value::from("live"))
            );
            assert_eq!(block["usable_bytes"], kind.usable_bytes);
            assert!(is_type(kind, block["type"].as_str().unwrap()), "{block}");
            assert!(inspection["pause_ms"].as_f64().unwrap() > 0.0);
        }
    }
    let offer = program.kinds.iter().find(|kind| kind.name == "ads::Offer").unwrap();
    let (inspection, _) = show(&[&program.pid(), &hexadecimal(offer.first)]);
    let said: Vec<&str> = inspection["words"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|word| word["points_to"].as_str())
        .collect();
    assert_eq!(said, ["vtable of ads::Offer", "vtable of ads::Offer, base at +16"]);
}

#[test]
fn a_sample_is_repeated_by_its_seed() {
    let program = Program::start(TYPES);
    let kind = program.kinds.iter().find(|kind| kind.name == "ads::Campaign").unwrap();
    let class = kind.usable_bytes.to_string();
    let blocks = |seed: &str| {
        let (inspection, _) = show(&[&program.pid(), "--class", &class, "--sample", "7", "--seed", seed]);
        inspection["sample"]["blocks"].clone()
    };
    let first = blocks("11");
    assert_eq!(first.as_array().unwrap().len(), 7);
    assert_eq!(first, blocks("11"));
    assert_ne!(first, blocks("12"));
}

#[test]
fn places_outside_of_blocks_are_explained() {
    let program = Program::start(TYPES);
    let folder = format!("/proc/{}", program.pid());
    // It has said that it is ready, and may still be on its way to wait.
    let stack_pointer = loop {
        let system_call = std::fs::read_to_string(format!("{folder}/syscall")).unwrap();
        if let Some(pointer) = system_call.split_whitespace().rev().nth(1) {
            break pointer.to_owned();
        }
        std::thread::yield_now();
    };
    let (stack, code) = show(&[&program.pid(), &stack_pointer]);
    assert_eq!((code, &stack["place"]["kind"]), (0, &Value::from("stack")));
    assert_eq!(stack["place"]["thread"]["tid"], program.child.id());
    let maps = std::fs::read_to_string(format!("{folder}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains("libc.so.6") && line.contains("r-xp")).unwrap();
    let start = line.split('-').next().unwrap();
    let (module, code) = show(&[&program.pid(), start]);
    assert_eq!((code, &module["place"]["kind"]), (0, &Value::from("module")));
    assert!(module["place"]["module"].as_str().unwrap().ends_with("libc.so.6"), "{module}");
    let (nothing, code) = show(&[&program.pid(), "0x10"]);
    assert_eq!((code, &nothing["place"]["kind"]), (1, &Value::from("unmapped")));
}

#[test]
fn trait_objects_are_named_by_who_refers_to_them() {
    let program = Program::start(TRAITS);
    assert_eq!(program.kinds.len(), 2);
    for kind in &program.kinds {
        let (inspection, _) = show(&[&program.pid(), &hexadecimal(kind.first), "--referrers"]);
        let referrers = &inspection["referrers"];
        assert_eq!(referrers["complete"], true);
        let words = referrers["words"].as_array().unwrap();
        let named = words.iter().filter_map(|word| word["type"].as_str());
        let expected = format!("traits::{}", kind.name);
        assert!(
            named
                .clone()
                .any(|found| found == expected || found.starts_with("trait object with vtable traits+0x")),
            "{}: {words:?}",
            kind.name
        );
    }
}

#[test]
fn blocks_that_are_new_since_a_snapshot_are_told() {
    let program = Program::start(TYPES);
    let folder = Folder::new("since");
    let snapshot = folder.path("before.heaptap");
    let heaptap = env!("CARGO_BIN_EXE_heaptap");
    let arguments = ["snap", &program.pid(), "-o", &snapshot, "--pause-budget", "10s"];
    assert!(Command::new(heaptap).args(arguments).output().unwrap().status.success());
    let class = program.kinds[0].usable_bytes.to_string();
    let (inspection, code) = show(&[&program.pid(), "--class", &class, "--new-since", &snapshot]);
    assert_eq!((code, &inspection["sample"]["live_blocks"]), (1, &Value::from(0)), "nothing came since");
    let other = Program::start(TYPES);
    let arguments = ["show", &other.pid(), "--class", &class, "--new-since", &snapshot];
    let refused = Command::new(heaptap).args(arguments).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "a snapshot of another process");
    assert!(Path::new(&snapshot).exists());
}

#[test]
fn a_snapshot_keeps_the_names_of_types_and_no_data() {
    let program = Program::start(TYPES);
    let folder = Folder::new("types");
    let snapshot = folder.path("types.heaptap");
    let heaptap = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_heaptap")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let pid = program.pid();
    heaptap(&["snap", &pid, "--types", "-o", &snapshot, "--json", "--pause-budget", "10s"]);
    let summary = heaptap(&["snap", &snapshot, "--json"]);
    let rows = summary["types"].as_array().unwrap();
    for kind in program.kinds.iter().filter(|kind| kind.name != "text") {
        let found = rows.iter().filter(|row| is_type(kind, row["type"].as_str().unwrap()));
        assert_eq!(
            found.map(|row| row["blocks"].as_u64().unwrap()).sum::<u64>(),
            kind.count,
            "{}",
            kind.name
        );
    }
    assert!(!summary.to_string().contains("index.html"), "nothing that the blocks hold");
    let arguments = ["diff", &snapshot, &pid, "--types", "--json", "--pause-budget", "10s"];
    let growth = heaptap(&arguments);
    let grown = growth.get("types").and_then(Value::as_array).cloned().unwrap_or_default();
    assert!(
        !grown.iter().any(|row| row["type"].as_str().unwrap().contains("ads::")),
        "none of them grew: {grown:?}"
    );
}
