//! Are heaps that heaptap does not walk recognised and told apart, so that their memory is accounted for?
//!
//! Real programs of each runtime keep a known amount in their heap. The row of that heap must hold it, and what no one
//! explains must be small.

mod outside;

use outside::{Folder, heaptap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where the programs are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test-programs/other-heaps");

/// A program that has filled its heap; ended when dropped.
struct Filled(Child);

impl Filled {
    fn start(command: &mut Command) -> Self {
        let child =
            command.env_remove("LD_LIBRARY_PATH").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("it speaks");
        assert_eq!(line.trim(), "ready", "{command:?}");
        Self(child)
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn source(name: &str) -> String {
    format!("{SOURCES}/{name}")
}

/// Runs a compiler, which must succeed.
fn compile(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}");
}

/// What `info` says of a process: the code it ends with, and its JSON.
fn info(filled: &Filled) -> (i32, serde_json::Value) {
    let told = heaptap(&["info", "--json", "--pause-budget", "10s", &filled.0.id().to_string()]);
    assert!(told.code == 0 || told.code == 1 || told.code == 5, "{told:?}");
    (told.code, told.json())
}

fn resident(info: &serde_json::Value, kind: &str) -> i64 {
    let rows = info["resident"].as_array().expect("it is accounted for");
    let row = rows.iter().find(|row| row["kind"] == kind);
    row.map_or(0, |row| row["bytes"].as_i64().expect("a number"))
}

/// The heap of that kind holds at least what the program keeps, of what is resident all but little is explained, and
/// what belongs to nobody known is little too.
fn assert_accounted(name: &str, info: &serde_json::Value, kind: &str, kept_bytes: i64) {
    let heaps = info["other_heaps"].as_array().unwrap_or_else(|| panic!("{name}: {info}"));
    let heap = heaps.iter().find(|heap| heap["kind"] == kind).unwrap_or_else(|| panic!("{name}: {heaps:?}"));
    let bytes = resident(info, kind);
    let total = info["resident_bytes"].as_i64().expect("the kernel's figure");
    let (other, unexplained) = (resident(info, "other_anonymous"), resident(info, "unexplained"));
    println!(
        "{name}: {bytes} bytes of {total} resident are {kind}'s, {other} others', {unexplained} unexplained"
    );
    assert!(bytes >= kept_bytes, "{name}: {info}");
    assert!(heap["bytes"].as_i64() >= Some(bytes), "{name}: {heap}");
    assert!(unexplained.abs() <= (total / 100).max(2 << 20), "{name}: {info}");
    assert!(other <= total / 5, "{name}: {info}");
}

#[test]
fn a_static_musl_program() {
    let folder = Folder::new();
    let program = folder.path("fill");
    compile(
        Command::new("musl-gcc").args(["-O1", "-static", "-s", "-o"]).arg(&program).arg(source("fill.c")),
    );
    let filled = Filled::start(&mut Command::new(&program));
    let (code, info) = info(&filled);
    assert_eq!(code, 5, "nothing in it is supported: {info}");
    assert_accounted("musl, static and stripped", &info, "musl_heap", 62 << 20);
    let told = heaptap(&["snap", "--json", &filled.0.id().to_string()]);
    assert_eq!(told.code, 5, "{told:?}");
    assert!(told.errors.contains("musl malloc in fill"), "{told:?}");
}

#[test]
fn a_musl_program_with_the_library() {
    let folder = Folder::new();
    let program = folder.path("fill");
    compile(Command::new("musl-gcc").args(["-O1", "-o"]).arg(&program).arg(source("fill.c")));
    let (code, info) = info(&Filled::start(&mut Command::new(&program)));
    assert_eq!(code, 5, "{info}");
    assert_accounted("musl", &info, "musl_heap", 62 << 20);
}

#[test]
fn a_php_program() {
    let (code, info) = info(&Filled::start(Command::new("php").arg(source("fill.php"))));
    assert_eq!(code, 0, "glibc's malloc beside it is whole: {info}");
    assert_accounted("php", &info, "php_heap", 32 << 20);
}

#[test]
fn a_ruby_program() {
    let (code, info) = info(&Filled::start(Command::new("ruby").arg(source("fill.rb"))));
    assert_eq!(code, 0, "glibc's malloc beside it is whole: {info}");
    assert_accounted("ruby", &info, "ruby_heap", 40 << 20);
}

#[test]
#[ignore = "needs go"]
fn a_go_program() {
    let folder = Folder::new();
    let program = folder.path("fill");
    let mut build = Command::new("go");
    build.args(["build", "-ldflags=-s -w", "-o"]).arg(&program).arg(source("fill.go"));
    compile(build.env("GOCACHE", folder.path("cache")).env("GO111MODULE", "off").env("CGO_ENABLED", "0"));
    let (code, info) = info(&Filled::start(&mut Command::new(&program)));
    assert_eq!(code, 5, "nothing in it is supported: {info}");
    assert_accounted("go", &info, "go_heap", 64 << 20);
}

#[test]
#[ignore = "needs node"]
fn a_node_program() {
    let (_, info) = info(&Filled::start(Command::new("node").arg(source("fill.js"))));
    assert_accounted("node", &info, "v8_heap", 30 << 20);
}

#[test]
#[ignore = "needs java"]
fn a_java_program() {
    assert!(Path::new(&source("Fill.java")).exists());
    for options in [&[][..], &["-XX:+UseSerialGC", "-Xmx128m"], &["-XX:+UseParallelGC"]] {
        let (_, info) = info(&Filled::start(Command::new("java").args(options).arg(source("Fill.java"))));
        assert_accounted(&format!("java {options:?}"), &info, "java_heap", 64 << 20);
    }
}
