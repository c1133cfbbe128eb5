//! How often a recording is right, and what it costs: the leak server, which knows its truth.
//!
//! Run by `cargo bench --bench record`. Each kind of leak is recorded again and again, each time beside the same server
//! undisturbed, one after the other. `HEAPTAP_BENCH_RUNS` (20) makes it shorter, `HEAPTAP_BENCH_SPAN` (30 seconds) too;
//! `HEAPTAP_BENCH_RATE` (200000) is the server's rate, 0 for as fast as it can; `HEAPTAP_BENCH_SERVER` is another program
//! than the server on jemalloc; `HEAPTAP_BENCH_LEAK` (0.001) is the part of all allocations that leaks. With
//! `HEAPTAP_BENCH_RIVALS` set it measures instead what other tools that attach cost the same server.

#[path = "../leak_server/mod.rs"]
mod leak_server;
mod sheet;

use heaptap_test_programs::{LEAK_SERVER, LEAK_SERVER_JEMALLOC};
use leak_server::{Server, functions};
use serde_json::Value;
use sheet::{Demand, Sheet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KINDS: [&str; 4] = ["polymorphic", "struct", "bytes", "strings"];

struct Setting {
    runs: usize,
    span_s: u64,
    rate: String,
    leak: String,
    server: String,
}

/// What one recording said.
struct Run {
    is_first: bool,
    /// Part of its class's growth that the leaking path is blamed for.
    blamed: f64,
    /// The same of all others together.
    others: f64,
    interval_holds: bool,
    throughput: f64,
    added_us: f64,
    target_cpu: f64,
}

fn main() {
    let setting = Setting {
        runs: text("HEAPTAP_BENCH_RUNS", "20").parse().expect("a number"),
        span_s: text("HEAPTAP_BENCH_SPAN", "30").parse().expect("a number"),
        rate: text("HEAPTAP_BENCH_RATE", "200000"),
        leak: text("HEAPTAP_BENCH_LEAK", "0.001"),
        server: text("HEAPTAP_BENCH_SERVER", LEAK_SERVER_JEMALLOC.unwrap_or(LEAK_SERVER)),
    };
    println!("machine: {}", sheet::machine());
    let mut sheet = Sheet::default();
    if std::env::var_os("HEAPTAP_BENCH_RIVALS").is_some() {
        rivals(&setting, &mut sheet);
    } else {
        KINDS.iter().for_each(|kind| leaks(&setting, kind, &mut sheet));
        without_leak(&setting, &mut sheet);
    }
    println!("machine: {}", sheet::machine());
    sheet.print();
}

fn text(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn leaks(setting: &Setting, kind: &str, sheet: &mut Sheet) {
    let arguments = ["--rate", &setting.rate, "--leak", &setting.leak, "--kind", kind, "--minute", "20"];
    let mut runs = Vec::new();
    for _ in 0..setting.runs {
        let mut server = Server::start(&setting.server, &arguments);
        runs.push(run(setting, &mut server));
    }
    let count = |is: &dyn Fn(&Run) -> bool| runs.iter().filter(|run| is(run)).count() as f64;
    let all = runs.len() as f64;
    let named = count(&|run| run.is_first && run.blamed >= 0.9) / all;
    sheet.figure(
        &format!("{kind}: first, with 0.9 of its class"),
        "of runs",
        &[named],
        Demand::AtLeast(0.95),
    );
    let clean = count(&|run| run.others < 0.05) / all;
    sheet.figure(&format!("{kind}: all others below 0.05"), "of runs", &[clean], Demand::AtLeast(0.95));
    let honest = count(&|run| run.interval_holds) / all;
    sheet.figure(&format!("{kind}: interval holds the truth"), "of runs", &[honest], Demand::AtLeast(0.9));
    let each = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
    sheet.figure(
        &format!("{kind}: throughput, of undisturbed"),
        "ratio",
        &each(|run| run.throughput),
        Demand::AtLeast(0.99),
    );
    sheet.figure(
        &format!("{kind}: worst request, more than undisturbed"),
        "us",
        &each(|run| run.added_us),
        Demand::None,
    );
    sheet.figure(
        &format!("{kind}: target's core that hits took"),
        "part",
        &each(|run| run.target_cpu),
        Demand::AtMost(0.011),
    );
}

fn run(setting: &Setting, server: &mut Server) -> Run {
    server.pace();
    std::thread::sleep(Duration::from_secs(setting.span_s) / 2);
    let undisturbed = server.pace();
    let before = server.live("RankResults");
    let recording = record(setting, server);
    let leaked = (server.live("RankResults") - before) as f64;
    let recorded = server.pace();
    let sites = recording["sites"].as_array().expect("sites");
    let is_leak = |site: &&Value| functions(site).contains("RankResults::allocate");
    let class = sites.iter().find(is_leak).and_then(|site| site["size_bytes"].as_u64()).unwrap_or(0);
    let share = |site: &Value| site["share"].as_f64().unwrap_or(0.0);
    let in_class = |site: &&Value| site["size_bytes"].as_u64() == Some(class);
    let rows = recording["growth"]["rows"].as_array().expect("rows");
    let grown: f64 = rows.iter().filter(in_class).filter_map(|row| row["delta_blocks"].as_f64()).sum();
    // The server counts a little longer than the recording.
    let truth = (leaked / grown).min(1.0);
    let edge = |name: &str, fold: fn(f64, f64) -> f64, start: f64| {
        sites.iter().filter(is_leak).filter_map(|site| site[name].as_f64()).fold(start, fold)
    };
    Run {
        is_first: sites.first().is_some_and(|site| is_leak(&site)),
        blamed: sites.iter().filter(is_leak).map(share).sum(),
        others: sites.iter().filter(|site| !is_leak(site)).map(share).sum(),
        interval_holds: (edge("share_low", f64::min, 1.0)..=edge("share_high", f64::max, 0.0) + 0.005)
            .contains(&truth),
        throughput: recorded.per_second / undisturbed.per_second,
        added_us: recorded.worst_us - undisturbed.worst_us,
        target_cpu: recording["cost"]["target_cpu_fraction"].as_f64().unwrap_or(f64::NAN),
    }
}

fn record(setting: &Setting, server: &Server) -> Value {
    let output = server.record(&format!("{}s", setting.span_s)).output().expect("heaptap starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Nothing leaks: all come and go, a cache fills and stops.
fn without_leak(setting: &Setting, sheet: &mut Sheet) {
    let arguments = ["--rate", &setting.rate, "--leak", "0", "--cache", "2000", "--minute", "20"];
    let quiet = (0..setting.runs).filter(|_| {
        let server = Server::start(&setting.server, &arguments);
        let recording = record(setting, &server);
        recording["sites"].as_array().expect("sites").is_empty()
    });
    let part = quiet.count() as f64 / setting.runs.max(1) as f64;
    sheet.figure("no leak: no site is named", "of runs", &[part], Demand::AtLeast(1.0));
}

/// What attaching costs, each tool for a span of its own, beside the same server undisturbed just before.
fn rivals(setting: &Setting, sheet: &mut Sheet) {
    let arguments = ["--rate", &setting.rate, "--leak", &setting.leak, "--minute", "20"];
    let tools: [(&str, &[&str]); 3] = [
        ("heaptap record", &[env!("CARGO_BIN_EXE_heaptap"), "record", "PID", "--for", "1h", "--json"]),
        ("heaptrack -p", &["heaptrack", "--record-only", "-o", "/tmp/heaptap-bench-heaptrack", "-p", "PID"]),
        ("memleak-bpfcc -p", &["memleak-bpfcc", "-p", "PID", "5"]),
    ];
    for (name, words) in tools {
        let mut ratios = Vec::new();
        let mut added = Vec::new();
        for _ in 0..setting.runs {
            let mut server = Server::start(&setting.server, &arguments);
            server.pace();
            std::thread::sleep(Duration::from_secs(setting.span_s) / 2);
            let undisturbed = server.pace();
            let pid = server.child.id().to_string();
            let words: Vec<&str> =
                words.iter().map(|word| if *word == "PID" { &pid } else { *word }).collect();
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let Ok(mut tool) = command.spawn() else { break };
            let until = Instant::now() + Duration::from_secs(setting.span_s);
            let mut ended = None;
            while Instant::now() < until && ended.is_none() {
                ended = tool.try_wait().expect("it is a child");
                std::thread::sleep(Duration::from_millis(50));
            }
            if let Some(status) = ended {
                println!("{name}: ended by itself: {status}");
                break;
            }
            let recorded = server.pace();
            // The signal by which all three let go.
            let _ = Command::new("kill").args(["-INT", &tool.id().to_string()]).status();
            let _ = tool.wait();
            ratios.push(recorded.per_second / undisturbed.per_second);
            added.push(recorded.worst_us - undisturbed.worst_us);
        }
        if !ratios.is_empty() {
            sheet.figure(&format!("{name}: throughput, of undisturbed"), "ratio", &ratios, Demand::None);
            sheet.figure(&format!("{name}: worst request, more"), "us", &added, Demand::None);
        }
    }
}
