//! Every command that reads a process reads a core as well: one of FreeBSD, one of Linux, and what was made of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;
mod outside;

use heaptap_test_programs::LEDGER;
use ledger::Ledger;
use outside::{JEMALLOC, heaptap};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of its own for a test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("heaptap-commands-{name}-{}", std::process::id()));
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

fn recorded(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name).to_str().unwrap().to_owned()
}

/// A core by gdb's gcore.
fn gcore(pid: u32, folder: &Folder, name: &str) -> String {
    let output = Command::new("gcore").arg("-o").arg(folder.path(name)).arg(pid.to_string()).output();
    let output = output.expect("gdb is installed: .ci/run does");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.path(&format!("{name}.{pid}"))
}

/// The JSON of a command that ends with code 0.
fn json(words: &[&str]) -> Value {
    let told = heaptap(&[words, &["--json"]].concat());
    assert_eq!(told.code, 0, "{words:?}: {}", told.errors);
    told.json()
}

/// The same with whatever code it ends.
fn json_of(words: &[&str]) -> Value {
    heaptap(&[words, &["--json"]].concat()).json()
}

/// Threads with the places of their frames.
fn places(stacks: &Value) -> Vec<(Value, Vec<Value>)> {
    let groups = stacks["groups"].as_array().unwrap();
    let frames = |group: &Value| -> Vec<Value> {
        group["frames"].as_array().unwrap().iter().map(|frame| frame["address"].clone()).collect()
    };
    groups.iter().map(|group| (group["threads"].clone(), frames(group))).collect()
}

#[test]
fn a_core_of_freebsd_goes_through_every_command() {
    let folder = Folder::new("freebsd");
    let core = recorded("freebsd-15.1-amd64.core.zst");
    let snap = json(&["snap", &core]);
    assert_eq!(json(&["info", &core])["allocators"], snap["allocators"]);
    let stacks = json_of(&["stacks", &core]);
    let mut names: Vec<&str> = Vec::new();
    let all = places(&stacks);
    for (threads, _) in &all {
        names.extend(threads.as_array().unwrap().iter().map(|thread| thread["name"].as_str().unwrap()));
    }
    assert_eq!(names, ["worker-0", "worker-1", "worker-2", "work"], "the kernel's names of the threads");

    let kept = folder.path("kept.heaptap");
    json(&["snap", &core, "-o", &kept]);
    let growth = json(&["diff", &core, &kept, &core]);
    let changes = ["delta_blocks", "born_blocks", "died_blocks"];
    for row in growth["rows"].as_array().unwrap() {
        assert!(changes.iter().all(|key| row[key] == 0), "{row}");
    }

    let written = folder.path("stacks.json");
    fs::write(&written, serde_json::to_vec(&stacks).unwrap()).unwrap();
    assert_eq!(places(&json_of(&["symbolize", &written])), places(&stacks));

    for command in [["watch", &core], ["record", &core]] {
        let told = heaptap(&command);
        assert_eq!(told.code, 2, "{told:?}");
        assert!(told.errors.contains("only a running process can be"), "{}", told.errors);
    }
}

#[test]
fn a_core_becomes_a_small_capture_that_says_the_same() {
    let folder = Folder::new("converted");
    for name in
        ["freebsd-15.1-amd64.core.zst", "freebsd-13.2-userland-amd64.core.zst", "ledger-5.3.0.core.zst"]
    {
        let core = recorded(name);
        let capture = folder.path("capture.core");
        let told = heaptap(&["capture", &core, "-o", &capture, "--force"]);
        assert_eq!(told.code, 0, "{}", told.errors);
        let (before, after) = (json(&["snap", &core]), json(&["snap", &capture]));
        assert_eq!(after["target"]["kind"], "capture");
        assert_eq!(after["allocators"], before["allocators"], "{name}");
        let target = |snapshot: &Value| {
            ["pid", "exe", "os", "arch", "threads"].map(|key| snapshot["target"][key].clone())
        };
        assert_eq!(target(&after), target(&before), "{name}");
        assert_eq!(places(&json_of(&["stacks", &capture])), places(&json_of(&["stacks", &core])), "{name}");
        let bare = folder.path("bare.core");
        let told = heaptap(&["capture", &core, "-o", &bare, "--no-data", "--force"]);
        assert_eq!(told.code, 0, "{}", told.errors);
        assert_eq!(json(&["snap", &bare])["allocators"], before["allocators"], "{name}");
        let bytes = |path: &str| fs::metadata(path).unwrap().len();
        assert!(bytes(&bare) <= bytes(&capture), "{name}");
    }
}

#[test]
fn moments_of_every_kind_are_compared_with_each_other() {
    let folder = Folder::new("mixed");
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &[]);
    let pid = ledger.pid().to_string();
    ledger.command("grow 1000 48 0");
    let core = gcore(ledger.pid(), &folder, "before");
    let (capture, kept) = (folder.path("capture.core"), folder.path("kept.heaptap"));
    json(&["snap", &pid, "-o", &kept, "--pause-budget", "10s"]);
    let told = heaptap(&["capture", &pid, "-o", &capture, "--pause-budget", "10s"]);
    assert_eq!(told.code, 0, "{}", told.errors);
    ledger.command("grow 500 48 0");
    let grown = gcore(ledger.pid(), &folder, "after");
    for from in [&core, &capture, &kept] {
        for to in [&grown, &pid] {
            let growth = json(&["diff", from, to, "--pause-budget", "10s"]);
            let rows = growth["rows"].as_array().unwrap();
            let row = rows.iter().find(|row| row["size_bytes"] == 48).expect("blocks of 48 bytes grew");
            assert!(growth["notes"].as_array().is_none_or(Vec::is_empty), "{growth}");
            let counts = ["delta_blocks", "born_blocks", "died_blocks"].map(|key| row[key].as_i64().unwrap());
            assert_eq!(counts, [500, 500, 0], "{from} {to}: {growth}");
        }
    }
}

/// A path as systemd names the cores that it keeps, of this core under this name.
fn kept_by_systemd(core: &str, folder: &Folder, suffix: &str, pack: &[&str]) -> String {
    let name = format!("core.work\\x2e1.1000.0123456789abcdef0123456789abcdef.4121.1795425245123456{suffix}");
    let path = folder.path(&name);
    let packed = Command::new(pack[0]).args(&pack[1..]).arg(core).output().expect("packers are installed");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    fs::write(&path, packed.stdout).unwrap();
    path
}

#[test]
fn files_of_systemd_are_read_as_they_are_and_their_names_tell_whose_they_are() {
    let folder = Folder::new("systemd");
    let plain = folder.path("plain.core");
    let bytes = zstd::decode_all(fs::File::open(recorded("freebsd-15.1-amd64.core.zst")).unwrap()).unwrap();
    fs::write(&plain, bytes).unwrap();
    let of_plain = json(&["snap", &plain]);
    for (suffix, pack) in [
        ("", &["cat"][..]),
        (".zst", &["zstd", "-c", "-q", "-1"]),
        (".lz4", &["lz4", "-c", "-q"]),
        (".xz", &["xz", "-c", "-0"]),
        (".gz", &["gzip", "-c", "-1"]),
    ] {
        let kept = json(&["snap", &kept_by_systemd(&plain, &folder, suffix, pack)]);
        assert_eq!(kept["allocators"], of_plain["allocators"], "{suffix}");
        let target = &kept["target"];
        assert_eq!(target["pid"], 4121, "as the host saw it: {suffix}");
        assert_eq!(target["boot_id"], "01234567-89ab-cdef-0123-456789abcdef", "{suffix}");
        assert_eq!(kept["taken_at"], 1_795_425_245.123_456, "{suffix}");
    }
}
