//! What a snapshot of a large glibc heap costs while the program allocates and frees as fast as it can.
//!
//! Run by `cargo bench --bench glibc`. The target is a ledger with 1.75 million blocks in 1 GB, two threads of which
//! churn. Taken in two ways: the default one, that reads most of the heap around the stop, and in a stop for all of it.
//! `HEAPTAP_BENCH_ROUNDS` makes the run shorter.

mod cost;
mod crowd;
mod heart;
mod rivals;
mod sheet;

use cost::Files;
use crowd::Crowd;
use heaptap::target::{Options, Target};
use heaptap_platform::AddressRange;
use heaptap_test_programs::LEDGER;
use heart::Heart;
use rivals::BulkRead;
use sheet::{Demand, Sheet, Spread};
use std::time::Duration;

const ROUNDS: usize = 11;
const GDB_ROUNDS: usize = 5;
const GCORE_ROUNDS: usize = 2;
/// The heap, by two threads.
const GROWTH: [&str; 2] = ["grow 1200000 560 0", "grow 550000 560 1"];
/// Blocks that the heap must have for the demands to be of it.
const BLOCKS_MIN: f64 = 1_750_000.0;
/// Enough for the whole heap on any machine.
const AMPLE: Duration = Duration::from_secs(30);

fn main() {
    let rounds = std::env::var("HEAPTAP_BENCH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let files = Files::new();
    println!("machine: {}", sheet::machine());
    let mut ledger = Crowd::start(LEDGER, 3, &files);
    GROWTH.iter().for_each(|command| ledger.command(command));
    let heart = Heart::of(&ledger.heartbeat_file());
    let mut sheet = Sheet::default();

    whole(&mut sheet, "at rest", ledger.pid(), rounds);
    ledger.command("start");
    let pause_ms = around(&mut sheet, ledger.pid(), &heart, rounds, &files);
    whole(&mut sheet, "under load", ledger.pid(), rounds);
    rival(&mut sheet, "gdb attach and detach", &rivals::gdb(ledger.pid(), &heart, GDB_ROUNDS), pause_ms);
    rival(&mut sheet, "gcore", &rivals::gcore(ledger.pid(), &heart, GCORE_ROUNDS), pause_ms);
    println!("machine: {}", sheet::machine());
    sheet.print();
}

/// The default way: pause and what was not verified; the median pause that the heartbeat felt.
fn around(sheet: &mut Sheet, pid: u32, heart: &Heart, rounds: usize, files: &Files) -> f64 {
    let (mut own, mut felt, mut verified) = (Vec::new(), Vec::new(), Vec::new());
    let (mut wall, mut peak, mut blocks) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..rounds {
        let mut taken = serde_json::Value::Null;
        felt.push(heart.gap_ms(|| taken = cost::snapshot(pid)));
        own.push(taken["pause_ms"].as_f64().expect("a pause"));
        let glibc = &taken["allocators"][0];
        let count = |name: &str| glibc[name].as_f64().unwrap_or(0.0);
        blocks = count("live_blocks") + count("cached_blocks");
        verified.push((1.0 - count("blocks_in_motion_max") / blocks) * 100.0);
        let spent = files.heaptap(&["snap", &pid.to_string()]);
        wall.push(spent.wall_s);
        peak.push(spent.peak_bytes / 1e6);
    }
    println!("{blocks} blocks");
    if blocks < BLOCKS_MIN {
        println!("the heap is smaller than the one that the demands are made for");
    }
    sheet.figure("around the stop: pause, own clock", "ms", &own, Demand::AtMost(50.0));
    sheet.figure("around the stop: pause, heartbeat", "ms", &felt, Demand::AtMost(50.0));
    sheet.figure("around the stop: blocks verified", "%", &verified, Demand::AtLeast(99.9));
    sheet.figure("around the stop: from start to table", "s", &wall, Demand::None);
    sheet.figure("around the stop: peak memory", "MB", &peak, Demand::None);
    Spread::of(&felt).median
}

/// A stop for the whole heap against a bulk read of the same pages by the small program.
fn whole(sheet: &mut Sheet, when: &str, pid: u32, rounds: usize) {
    let (mut taken, mut least, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    while ratios.len() < rounds {
        let (pause_ms, ranges) = capture(pid);
        // Under load a heap may have shrunk since; then both are taken anew.
        let Some(bulk) = BulkRead::of(pid, &ranges).try_run() else { continue };
        taken.push(pause_ms);
        least.push(bulk.pause_ms);
        ratios.push(pause_ms / bulk.pause_ms);
    }
    sheet.figure(&format!("full stop, {when}: pause, own clock"), "ms", &taken, Demand::None);
    sheet.figure(&format!("full stop, {when}: bulk read"), "ms", &least, Demand::None);
    sheet.figure(&format!("full stop, {when}: pause / bulk read"), "times", &ratios, Demand::AtMost(1.2));
}

/// Pause of a full stop, and what was copied in it.
fn capture(pid: u32) -> (f64, Vec<AddressRange>) {
    let target = Target::open(&pid.to_string()).expect("the ledger runs");
    let options = Options { pause_budget: AMPLE, residency: false, ..Options::default() };
    let captured = target.capture(&options).expect("its heap can be read");
    let pause = captured.capture.pauses.iter().map(|pause| pause.stopped_us).max().expect("a pause");
    (pause as f64 / 1000.0, captured.capture.memory.ranges())
}

fn rival(sheet: &mut Sheet, name: &str, gaps_ms: &[f64], pause_ms: f64) {
    if gaps_ms.is_empty() {
        println!("{name}: not measured, it is not installed");
        return;
    }
    let ratios: Vec<f64> = gaps_ms.iter().map(|gap| gap / pause_ms).collect();
    sheet.figure(&format!("{name}, heartbeat"), "ms", gaps_ms, Demand::None);
    sheet.figure(&format!("{name} / around the stop, heartbeat"), "times", &ratios, Demand::None);
}
