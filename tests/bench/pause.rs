//! What a snapshot costs: the target's pause, the command's time and memory, the walk, the diff, the file.
//!
//! Run by `cargo bench --bench pause`. The target is a Redis with 16 million keys and a heartbeat thread inside. Every
//! demand is a ratio of two figures of the same run, taken alternately, or a figure beside its limit; each line says
//! whether it is met. `HEAPTAP_BENCH_KEYS` makes the heap smaller and `HEAPTAP_BENCH_ROUNDS` the run shorter.

mod cost;
mod crowd;
mod heart;
mod in_process;
mod rivals;
mod sheet;
mod store;

use cost::Files;
use crowd::Crowd;
use heaptap_platform::AddressRange;
use heaptap_test_programs::LEDGER_JEMALLOC;
use heart::Heart;
use rivals::BulkRead;
use sheet::{Demand, Sheet, Spread};
use store::Store;

/// Keys of a heap of 2 GB with 437 thousand slabs.
const KEYS: u64 = 16_000_000;
/// Slabs that a heap must have for the demands to be of it.
const SLABS_MIN: u64 = 400_000;
const ROUNDS: usize = 21;
/// gdb stops its target for more than half a second, gcore for several.
const GDB_ROUNDS: usize = 5;
const GCORE_ROUNDS: usize = 2;
const CROWDS: [u32; 2] = [64, 500];

fn main() {
    let keys = setting("HEAPTAP_BENCH_KEYS", KEYS);
    let rounds = usize::try_from(setting("HEAPTAP_BENCH_ROUNDS", ROUNDS as u64)).expect("a small number");
    let files = Files::new();
    println!("machine: {}", sheet::machine());
    let store = Store::fill(keys, &files);
    let heart = Heart::of(&store.heartbeat_file());
    let mut sheet = Sheet::default();

    let metadata = in_process::metadata(store.pid());
    let bytes: u64 = metadata.iter().map(|range| range.len_bytes()).sum();
    println!("target: redis-server, {keys} keys; {bytes} bytes of metadata in {} ranges", metadata.len());
    let pause_ms = pause(&mut sheet, "redis", store.pid(), &heart, &metadata, rounds);
    debuggers(&mut sheet, store.pid(), &heart, pause_ms);
    command(&mut sheet, &store, &files, bytes, rounds);
    let walk = in_process::walk(store.pid(), rounds);
    println!("walk: {} slots in {} slabs", walk.slots, walk.slabs);
    if walk.slabs < SLABS_MIN {
        println!("the heap is smaller than the one that the demands are made for ({SLABS_MIN} slabs)");
    }
    sheet.figure("slots walked a second, one core", "million", &walk.slots_per_us, Demand::AtLeast(50.0));
    drop(store);

    for threads in CROWDS {
        crowd(&mut sheet, threads, &files, rounds);
    }
    println!("machine: {}", sheet::machine());
    sheet.print();
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The pause of a snapshot against the least possible, seen from both sides; the median that the heartbeat saw.
fn pause(
    sheet: &mut Sheet,
    of: &str,
    pid: u32,
    heart: &Heart,
    metadata: &[AddressRange],
    rounds: usize,
) -> f64 {
    let bulk = BulkRead::of(pid, metadata);
    let mut own = Paired::default();
    let mut felt = Paired::default();
    let mut quiet = Vec::new();
    for _ in 0..rounds {
        quiet.push(heart.gap_ms(heart::idle));
        let mut least_ms = 0.0;
        let least_gap = heart.gap_ms(|| least_ms = bulk.run().pause_ms);
        let mut snapshot_ms = 0.0;
        let snapshot_gap = heart.gap_ms(|| snapshot_ms = cost::snapshot_pause_ms(pid));
        own.add(snapshot_ms, least_ms);
        felt.add(snapshot_gap, least_gap);
    }
    let mut line = |what: &str, unit, figures: &[f64], demand| {
        sheet.figure(&format!("{of}: {what}"), unit, figures, demand);
    };
    line("longest gap of the heartbeat in 50 ms undisturbed", "ms", &quiet, Demand::None);
    line("stop + bulk read + release, own clock", "ms", &own.against, Demand::None);
    line("stop + bulk read + release, heartbeat", "ms", &felt.against, Demand::None);
    line("pause of a snapshot, own clock", "ms", &own.taken, Demand::None);
    line("pause of a snapshot, heartbeat", "ms", &felt.taken, Demand::None);
    line("snapshot / bulk read, own clock", "times", &own.ratios(), Demand::AtMost(1.5));
    line("snapshot / bulk read, heartbeat", "times", &felt.ratios(), Demand::AtMost(1.5));
    Spread::of(&felt.taken).median
}

/// What debuggers do to the target, against a pause of `pause_ms`.
fn debuggers(sheet: &mut Sheet, pid: u32, heart: &Heart, pause_ms: f64) {
    rival(sheet, "gdb attach and detach", &rivals::gdb(pid, heart, GDB_ROUNDS), pause_ms, 10.0);
    rival(sheet, "gcore", &rivals::gcore(pid, heart, GCORE_ROUNDS), pause_ms, 50.0);
}

fn rival(sheet: &mut Sheet, name: &str, gaps_ms: &[f64], pause_ms: f64, times: f64) {
    if gaps_ms.is_empty() {
        println!("{name}: not measured, it is not installed");
        return;
    }
    let ratios: Vec<f64> = gaps_ms.iter().map(|gap| gap / pause_ms).collect();
    sheet.figure(&format!("{name}, heartbeat"), "ms", gaps_ms, Demand::None);
    sheet.figure(&format!("{name} / snapshot, heartbeat"), "times", &ratios, Demand::AtLeast(times));
}

/// Whole commands, as a user waits for them.
fn command(sheet: &mut Sheet, store: &Store, files: &Files, metadata_bytes: u64, rounds: usize) {
    let pid = store.pid().to_string();
    let (first, last) = (files.path("first.heaptap"), files.path("last.heaptap"));
    let (mut wall, mut memory) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let kept = if round == 0 { &first } else { &last };
        let spent = files.heaptap(&["snap", &pid, "-o", kept]);
        wall.push(spent.wall_s);
        memory.push(spent.peak_bytes / metadata_bytes as f64);
    }
    sheet.figure("snap, from start to table", "s", &wall, Demand::AtMost(0.5));
    sheet.figure("peak memory of snap / metadata", "times", &memory, Demand::AtMost(3.0));
    let diffs: Vec<f64> = (0..rounds).map(|_| files.heaptap(&["diff", &first, &last]).wall_s).collect();
    sheet.figure("diff of two snapshots", "s", &diffs, Demand::AtMost(0.3));
    let file_bytes = std::fs::metadata(&last).expect("a snapshot").len();
    let percent = [file_bytes as f64 * 100.0 / metadata_bytes as f64];
    sheet.figure("snapshot file / metadata", "%", &percent, Demand::AtMost(10.0));
}

/// Many threads: how long it takes until all stand still, and a whole snapshot.
fn crowd(sheet: &mut Sheet, threads: u32, files: &Files, rounds: usize) {
    let crowd = Crowd::start(LEDGER_JEMALLOC.expect("this benchmark is for Linux"), threads, files);
    let heart = Heart::of(&crowd.heartbeat_file());
    let mut reached = Paired::default();
    let mut stopped = Paired::default();
    let nothing = BulkRead::of(crowd.pid(), &[]);
    for _ in 0..rounds {
        let least = nothing.run();
        let taken = in_process::stop(crowd.pid());
        reached.add(taken.stop_ms, least.stop_ms);
        stopped.add(taken.pause_ms, least.pause_ms);
    }
    let of = format!("{threads} threads");
    let mut line = |what: &str, figures: &[f64]| {
        sheet.figure(&format!("{of}: {what}"), "ms", figures, Demand::None);
    };
    line("all stopped, small program", &reached.against);
    line("all stopped", &reached.taken);
    line("all stopped and released, small program", &stopped.against);
    line("all stopped and released", &stopped.taken);
    let metadata = in_process::metadata(crowd.pid());
    pause(sheet, &of, crowd.pid(), &heart, &metadata, rounds);
}

/// Two figures of each round.
#[derive(Default)]
struct Paired {
    taken: Vec<f64>,
    against: Vec<f64>,
}

impl Paired {
    fn add(&mut self, taken: f64, against: f64) {
        self.taken.push(taken);
        self.against.push(against);
    }

    fn ratios(&self) -> Vec<f64> {
        self.taken.iter().zip(&self.against).map(|(taken, against)| taken / against).collect()
    }
}
