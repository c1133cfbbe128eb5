//! Commands as they are run: what they print, what they tell on standard error, how they end.
//!
//! Moments are snapshot files made by hand; live processes are for the tests of what is read from them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod handmade;

use heaptap::snapshot::schema::LiveBound;
use heaptap::snapshot::{self, Overwrite, Snapshot};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory of its own for a test, with three moments in it; removed at the end.
struct Moments {
    directory: PathBuf,
}

impl Moments {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("heaptap-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let directory = directory.canonicalize().unwrap();
        let moments = Self { directory };
        for (name, seconds, leaked) in [("a.heaptap", 0, 0), ("b.heaptap", 60, 500), ("c.heaptap", 120, 1000)]
        {
            moments.write(name, &handmade::snapshot(seconds, leaked));
        }
        moments
    }

    fn write(&self, name: &str, snapshot: &Snapshot) {
        snapshot::write(snapshot, &self.path(name), Overwrite::AnyFile).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        command(&self.directory, words)
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Standard output of a command that ends with code 0.
    fn report(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Moments {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn command(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
    command.current_dir(directory).env_remove("NO_COLOR").args(words).stdin(Stdio::null());
    command
}

#[test]
fn reports_of_files() {
    let moments = Moments::new("reports");
    insta::assert_snapshot!("report_snap", moments.report(&["snap", "a.heaptap"]));
    insta::assert_snapshot!("report_info", moments.report(&["info", "a.heaptap", "--bytes"]));
    insta::assert_snapshot!("report_diff", moments.report(&["diff", "a.heaptap", "b.heaptap"]));
    let words =
        ["diff", "a.heaptap", "b.heaptap", "c.heaptap", "--sort", "slope", "--top", "2", "--by", "both"];
    insta::assert_snapshot!("report_diff_slope", moments.report(&words));
}

#[test]
fn json_is_one_object_on_one_line() {
    let moments = Moments::new("json");
    for (words, schema) in [
        (vec!["snap", "a.heaptap"], "heaptap/snapshot/1"),
        (vec!["info", "a.heaptap"], "heaptap/snapshot/1"),
        (vec!["diff", "a.heaptap", "b.heaptap", "c.heaptap"], "heaptap/growth/1"),
    ] {
        let text = moments.report(&[words.as_slice(), &["--json", "--top", "1"]].concat());
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["schema"], schema);
        if schema == "heaptap/growth/1" {
            assert!(value["rows"].as_array().unwrap().len() > 1, "rows are never cut in JSON");
            assert_eq!(value["rows"][0]["delta_bytes"], 64 << 20);
        }
    }
}

#[test]
fn a_moment_that_is_read_can_be_kept_again() {
    let moments = Moments::new("keep");
    let told = moments.report(&["snap", "a.heaptap", "-o", "copy.heaptap"]);
    assert!(told.ends_with("kept in copy.heaptap\n"), "{told}");
    let growth = moments.report(&["diff", "a.heaptap", "copy.heaptap", "--json"]);
    let growth: serde_json::Value = serde_json::from_str(&growth).unwrap();
    assert_eq!(growth["total_delta_bytes"], 0);
}

/// Each error as it is told: the words, standard error, the exit code.
#[test]
fn errors_name_the_cause_and_the_next_step() {
    let moments = Moments::new("errors");
    let whole = std::fs::read(moments.path("a.heaptap")).unwrap();
    std::fs::write(moments.path("short.heaptap"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(moments.path("notes.txt"), "remember the milk").unwrap();
    let mut other = handmade::snapshot(5, 0);
    other.summary.target.pid = 77;
    moments.write("other.heaptap", &other);
    let mut told = String::new();
    for words in [
        &["info", "redis-server"][..],
        &["info", "missing.heaptap"],
        &["snap", "short.heaptap"],
        &["snap", "notes.txt"],
        &["snap", "a.heaptap", "-o", "notes.txt"],
        &["snap", "a.heaptap", "--sort", "growth"],
        &["diff", "a.heaptap"],
        &["diff", "a.heaptap", "other.heaptap"],
        &["diff", "a.heaptap", "b.heaptap", "--sort", "slope"],
        &["watch", "a.heaptap"],
        &["watch", "1", "--every", "10"],
        &["watch", "1", "--count", "0"],
        &["snap", "1", "--top", "0"],
        &["trace", "1"],
    ] {
        let output = moments.run(words);
        assert_eq!(output.stdout, b"", "{words:?}");
        let place = format!("{}/", moments.directory.display());
        let errors = String::from_utf8(output.stderr).unwrap().replace(&place, "");
        let code = output.status.code().unwrap();
        assert!(errors.starts_with("error: "), "{words:?}: {errors}");
        writeln!(told, "$ heaptap {}\n{errors}[{code}]\n", words.join(" ")).unwrap();
    }
    insta::assert_snapshot!("errors", told);
}

#[test]
fn what_is_partial_is_told_and_ends_with_1() {
    let moments = Moments::new("partial");
    let mut partial = handmade::snapshot(0, 0);
    partial.summary.allocators[0].complete = false;
    partial.summary.allocators[0].live_bound = Some(LiveBound::Upper);
    partial.summary.missing = vec!["the mappings changed while they were read".to_owned()];
    moments.write("partial.heaptap", &partial);
    for words in [
        &["snap", "partial.heaptap"][..],
        &["info", "partial.heaptap"],
        &["diff", "partial.heaptap", "b.heaptap"],
        &["snap", "partial.heaptap", "--json"],
    ] {
        let output = moments.run(words);
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {told}");
        assert!(told.contains("upper"), "{words:?}: {told}");
    }
}

#[test]
fn colours_are_for_terminals() {
    let moments = Moments::new("colours");
    let diff = ["diff", "a.heaptap", "b.heaptap"];
    assert!(!moments.report(&diff).contains('\x1b'), "no colours in a pipe");
    let always =
        moments.command(&[&diff[..], &["--color", "always"]].concat()).env("NO_COLOR", "1").output().unwrap();
    assert!(String::from_utf8(always.stdout).unwrap().contains("\x1b[31m"), "what is typed wins");
}

/// A terminal by `script(1)`, whose environment is the test's own but for the variables given.
fn on_a_terminal(moments: &Moments, no_color: Option<&str>) -> String {
    let line = format!("{} diff a.heaptap b.heaptap", env!("CARGO_BIN_EXE_heaptap"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(&moments.directory).stdin(Stdio::null());
    script.env_remove("NO_COLOR").env("TERM", "xterm");
    if let Some(value) = no_color {
        script.env("NO_COLOR", value);
    }
    String::from_utf8(script.output().expect("script(1) is installed").stdout).unwrap()
}

#[test]
fn no_color_is_respected_on_a_terminal() {
    let moments = Moments::new("terminal");
    assert!(on_a_terminal(&moments, None).contains("\x1b[31m"));
    assert!(on_a_terminal(&moments, Some("")).contains("\x1b[31m"), "an empty value is none");
    assert!(!on_a_terminal(&moments, Some("1")).contains('\x1b'));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let moments = Moments::new("pipe");
    for words in
        [&["snap", "a.heaptap"][..], &["snap", "a.heaptap", "--json"], &["generate", "man"], &["--help"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = moments.command(words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let moments = Moments::new("full");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = moments.command(&["snap", "a.heaptap"]).stdout(full).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.starts_with("error: cannot write the report: "), "{errors}");
}

#[test]
fn closed_standard_error_is_survived() {
    let moments = Moments::new("stderr");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = moments.command(&["snap", "short"]).stderr(writer).stdout(Stdio::null()).spawn().unwrap();
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{told}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = moments.command(&["snap", "short"]).stderr(writer).stdout(Stdio::null()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn completions_know_every_command() {
    let moments = Moments::new("completions");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = moments.report(&["generate", "completions", shell]);
        for name in ["info", "snap", "diff", "watch", "pause-budget"] {
            assert!(text.contains(name), "{shell} does not know {name}");
        }
    }
}

#[test]
fn a_page_that_is_not_there_is_named() {
    let output = Moments::new("page").run(&["generate", "man", "nothing"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        errors.starts_with("error: there is no command `nothing`\nhint: the commands are info, snap,"),
        "{errors}"
    );
}

#[test]
fn manual_pages_are_complete() {
    let moments = Moments::new("man");
    let whole = moments.report(&["generate", "man"]);
    for part in [".TH heaptap 1", "Exit codes", "heaptap\\-diff(1)", "heaptap demo"] {
        assert!(whole.contains(part), "{part} is missing in {whole}");
    }
    let page = moments.report(&["generate", "man", "diff"]);
    for part in [".TH heaptap-diff 1", "before.heaptap", "pause\\-budget"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
}
