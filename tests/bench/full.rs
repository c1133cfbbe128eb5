//! What a whole core costs: `heaptap capture --full` beside gcore, on one Redis, by turns.
//!
//! Run by `cargo bench --bench full`. Prints for each the longest time that the target's heartbeat stood still, the time of
//! the whole command, the size of its file and the room that takes, and the ratios. `HEAPTAP_BENCH_KEYS` makes the heap
//! smaller and `HEAPTAP_BENCH_ROUNDS` the run shorter.

mod cost;
mod heart;
mod store;

use cost::Files;
use heart::Heart;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Instant;
use store::Store;

const KEYS: u64 = 2_000_000;
const ROUNDS: u64 = 3;

/// What one whole core took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    gap_ms: f64,
    wall_s: f64,
    len_bytes: u64,
    disk_bytes: u64,
}

fn main() {
    let keys = setting("HEAPTAP_BENCH_KEYS", KEYS);
    let rounds = setting("HEAPTAP_BENCH_ROUNDS", ROUNDS);
    let files = Files::new();
    let store = Store::fill(keys, &files);
    let heart = Heart::of(&store.heartbeat_file());
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let path = files.path(&format!("own-{round}"));
        let pid = store.pid().to_string();
        own.push(taken(&heart, &path, &mut heaptap(&["capture", &pid, "--full", "-o", &path])));
        let prefix = files.path("gcore");
        let core = format!("{prefix}.{pid}");
        let mut gcore = Command::new("gcore");
        gcore.args(["-o", &prefix, &pid]);
        others.push(taken(&heart, &core, &mut gcore));
    }
    println!("redis-server with {keys} keys, {rounds} rounds by turns, medians; heaptap, gcore, ratio");
    row("heartbeat stood still, ms", &own, &others, |taken| taken.gap_ms);
    row("whole command, s", &own, &others, |taken| taken.wall_s);
    row("file, MB", &own, &others, |taken| taken.len_bytes as f64 / 1e6);
    row("room on disk, MB", &own, &others, |taken| taken.disk_bytes as f64 / 1e6);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn heaptap(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
    command.args(arguments);
    command
}

fn taken(heart: &Heart, path: &str, command: &mut Command) -> Taken {
    let mut wall_s = 0.0;
    let gap_ms = heart.gap_ms(|| {
        let begun = Instant::now();
        let output = command.output().expect("it starts: gcore comes with gdb");
        wall_s = begun.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    let file = std::fs::metadata(path).expect("it was written");
    std::fs::remove_file(path).expect("it can be removed");
    Taken { gap_ms, wall_s, len_bytes: file.len(), disk_bytes: file.blocks() * 512 }
}

fn row(what: &str, own: &[Taken], others: &[Taken], value: fn(&Taken) -> f64) {
    let median = |all: &[Taken]| {
        let mut values: Vec<f64> = all.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let (own, others) = (median(own), median(others));
    println!("{what:<28} {own:>10.2} {others:>10.2} {:>8.3}", own / others);
}
