//! Do all formats of a recording say the same, does its file say it again, and what does a base take off?

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod leak_server;
mod profile_proto;

use heaptap_test_programs::LEAK_SERVER_JEMALLOC;
use leak_server::Server;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Recordings of a few seconds find the site nearly always; a busy machine may take away the time for samples.
const TRIES: u32 = 6;

/// Records with every output until a site was found.
fn recorded(server: &Server, folder: &Path) -> Value {
    for _ in 0..TRIES {
        let mut command = server.record("8s");
        for (option, name) in
            [("--folded", "folded"), ("--svg", "svg"), ("--pprof", "pb.gz"), ("--output", "rec")]
        {
            command.arg(option).arg(folder.join(name));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let recording: Value = serde_json::from_slice(&output.stdout).unwrap();
        if !recording["sites"].as_array().unwrap().is_empty() {
            return recording;
        }
    }
    panic!("no site in {TRIES} recordings");
}

fn report(arguments: &[&Path]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_heaptap"))
        .args(["report", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_format_says_the_same_and_the_file_says_it_again() {
    let Some(program) = LEAK_SERVER_JEMALLOC else { return };
    let server = Server::start(program, &["--rate", "40000", "--leak", "0.05", "--minute", "2"]);
    let folder = tempfile::tempdir().unwrap();
    let recording = recorded(&server, folder.path());
    let sites = recording["sites"].as_array().unwrap();
    let delta = |field: &str| sites.iter().map(|site| site[field].as_i64().unwrap()).sum::<i64>();

    let profile = profile_proto::read(&folder.path().join("pb.gz"));
    let types = [("inuse_objects", "count"), ("inuse_space", "bytes")];
    let types = types.map(|(name, unit)| (name.to_owned(), unit.to_owned()));
    assert_eq!(profile.sample_types, types);
    assert_eq!(profile.default_sample_type, "inuse_space");
    assert_eq!(profile.samples.len(), sites.len());
    for (sample, site) in profile.samples.iter().zip(sites) {
        assert_eq!(sample.values, [&site["delta_blocks"], &site["delta_bytes"]].map(|v| v.as_i64().unwrap()));
        let functions: Vec<&str> = sample.functions.iter().map(String::as_str).collect();
        let frames = site["frames"].as_array().unwrap();
        assert_eq!(functions.len(), frames.len());
        for (function, frame) in functions.iter().zip(frames) {
            assert!(frame["function"].as_str().is_none_or(|name| name == *function), "{function}");
        }
        let label = |name: &str| {
            let mut found = sample.labels.iter().filter(|(key, _)| key == name);
            found.next().map(|(_, value)| value.as_str())
        };
        assert_eq!(label("allocator"), Some("jemalloc"));
        assert_eq!(label("bytes"), Some(site["size_bytes"].to_string().as_str()));
        assert_eq!(label("type"), site["type"].as_str());
        assert!(label("arena").is_some_and(|arena| arena.parse::<u32>().is_ok()), "{:?}", sample.labels);
    }
    let (main, build_id) = &profile.modules[0];
    assert_eq!(Path::new(main), Path::new(program).canonicalize().unwrap());
    let is_hexadecimal = build_id.chars().all(|c| c.is_ascii_hexdigit());
    assert!(build_id.is_empty() || (build_id.len() >= 16 && is_hexadecimal), "{build_id}");

    let folded = std::fs::read_to_string(folder.path().join("folded")).unwrap();
    let bytes =
        folded.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap()).sum::<i64>();
    assert_eq!(bytes, delta("delta_bytes"));
    assert!(folded.contains("Worker::serve();"), "{folded}");
    let svg = std::fs::read_to_string(folder.path().join("svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("RankResults::allocate"));

    assert_eq!(report(&[&folder.path().join("rec")]), recording);
}

#[test]
fn a_recording_less_itself_has_grown_nothing() {
    let Some(program) = LEAK_SERVER_JEMALLOC else { return };
    let server = Server::start(program, &["--rate", "40000", "--leak", "0.05", "--minute", "2"]);
    let folder = tempfile::tempdir().unwrap();
    let recording = recorded(&server, folder.path());
    let file = folder.path().join("rec");
    let less = report(&[&file, Path::new("--base"), &file]);
    let sites = less["sites"].as_array().unwrap();
    assert_eq!(sites.len(), recording["sites"].as_array().unwrap().len());
    assert!(sites.iter().all(|site| site["delta_bytes"] == 0 && site["delta_blocks"] == 0), "{less}");
    assert_eq!(less["base"]["scale"], 1.0);
    assert_eq!(less["growth"], recording["growth"]);
}
