//! Is a leak of a Rust program named, stripped or not? What has no name where it runs has one later.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod leak_server;

use heaptap_test_programs::rust_leak_server;
use leak_server::Server;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Sampling is allowed to be wrong now and then, on a busy machine more often.
const TRIES: u32 = 4;

fn program() -> &'static Path {
    rust_leak_server().unwrap()
}

fn heaptap(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heaptap")).args(arguments).output().unwrap()
}

fn functions(site: &Value) -> Vec<&str> {
    let frames = site["frames"].as_array().unwrap();
    frames.iter().filter_map(|frame| frame["function"].as_str()).collect()
}

/// One recording, its file, and what was lost by the server's own count, which goes on a little longer.
fn recorded(server: &mut Server, file: &Path) -> (Value, i64) {
    let before = server.live("RankResults");
    let output = server.record("10s").arg("-o").arg(file).output().unwrap();
    let leaked = server.live("RankResults") - before;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), leaked)
}

/// Whether one site stands first that has nine tenths of all that is blamed on anybody, and no more than has leaked.
fn is_right(recording: &Value, leaked: i64) -> bool {
    let sites = recording["sites"].as_array().unwrap();
    let blocks: Vec<i64> = sites.iter().map(|site| site["delta_blocks"].as_i64().unwrap()).collect();
    let (first, all) = (blocks.first().copied().unwrap_or(0), blocks.iter().sum::<i64>());
    eprintln!("{first} of {all} blamed on the first, {leaked} leaked");
    first > 0 && first * 10 >= all * 9 && first <= leaked
}

/// The innermost function, whatever is inlined into it, is `RankResults::allocate`'s; the outermost ones a worker's.
fn assert_is_the_leak(functions: &[&str]) {
    let place = |part: &str| functions.iter().position(|name| name.contains(part));
    let allocate = place("RankResults::allocate").unwrap_or_else(|| panic!("{functions:?}"));
    let enter = place("Dynamic").unwrap_or_else(|| panic!("{functions:?}"));
    let serve = place("Worker::serve").unwrap_or_else(|| panic!("{functions:?}"));
    assert!(allocate < enter && enter < serve, "{functions:?}");
    assert!(functions.iter().all(|name| !name.contains("_R") && !name.contains("17h")), "{functions:?}");
}

fn named_of_kind(kind: &str) {
    let arguments = ["--rate", "60000", "--leak", "0.01", "--minute", "2", "--kind", kind];
    let mut server = Server::start(program().to_str().unwrap(), &arguments);
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..TRIES {
        let (recording, leaked) = recorded(&mut server, &folder.path().join("rec"));
        if is_right(&recording, leaked) {
            return assert_is_the_leak(&functions(&recording["sites"][0]));
        }
    }
    panic!("no recording of {TRIES} was right");
}

#[test]
fn the_leaking_path_of_a_rust_program_is_named() {
    named_of_kind("struct");
}

#[test]
fn trait_objects_that_leak_are_named() {
    named_of_kind("polymorphic");
}

#[test]
fn a_stripped_program_is_ranked_by_address_and_named_later() {
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("server");
    let status = Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(program()).status();
    assert!(status.unwrap().success());
    let arguments = ["--rate", "60000", "--leak", "0.01", "--minute", "2"];
    let mut server = Server::start(stripped.to_str().unwrap(), &arguments);
    let file = folder.path().join("rec");
    for _ in 0..TRIES {
        let (recording, leaked) = recorded(&mut server, &file);
        if is_named_later(&recording, &stripped, &file, leaked) {
            return;
        }
    }
    panic!("no recording of {TRIES} was right");
}

/// Whether a recording without names has them with the unstripped program's file. Copies of a call in an unrolled loop have
/// different addresses, so that only names tell that they are one site.
fn is_named_later(recording: &Value, stripped: &Path, file: &Path, leaked: i64) -> bool {
    let sites = recording["sites"].as_array().unwrap();
    let Some(first) = sites.first() else { return false };
    let own = |frame: &&Value| frame["module"].as_str() == stripped.to_str();
    let frames = first["frames"].as_array().unwrap();
    assert!(frames.iter().filter(own).count() > 15, "{frames:?}");
    assert!(frames.iter().filter(own).all(|frame| frame["function"].is_null()), "{frames:?}");

    let json = file.with_extension("json");
    std::fs::write(&json, recording.to_string()).unwrap();
    let unstripped = program().to_str().unwrap();
    let output = heaptap(&["symbolize", "--json", json.to_str().unwrap(), "--file", unstripped]);
    let named: Value = serde_json::from_slice(&output.stdout).unwrap();
    let output = heaptap(&["report", "--json", file.to_str().unwrap(), "--file", unstripped]);
    let reported: Value = serde_json::from_slice(&output.stdout).unwrap();
    if !is_right(&reported, leaked) {
        return false;
    }
    assert_is_the_leak(&functions(&named["sites"][0]));
    assert_is_the_leak(&functions(&reported["sites"][0]));
    true
}
