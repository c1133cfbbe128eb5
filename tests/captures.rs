//! Are recorded heaps walked as their programs knew them? The captures and what was true of them are in `captures/`;
//! they are read on any machine, without the programs.
//!
//! `cargo test --test captures -- --ignored` records them anew, with the programs of `test-programs/build`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;
mod live;
mod recorded;

use heaptap::snapshot::Snapshot;
use heaptap::target::{Contents, Options, Target};
use heaptap_test_programs::{LEDGER, Language, jemalloc_programs};
use ledger::Ledger;
use recorded::{Truth, fixtures, folder};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian's package, stripped; `.ci/run` installs it.
const DEBIAN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// Limits of what may be checked in.
const FIXTURE_BYTES_MAX: u64 = 150_000;
const ALL_BYTES_MAX: u64 = 1_500_000;

fn read(path: &Path) -> Snapshot {
    let target = Target::open(path.to_str().unwrap()).expect("it is a capture");
    target.snapshot(&Options::default()).expect("its heap can be read")
}

/// Counts by arena and size class.
type Counts = BTreeMap<(u32, u64), u64>;

/// Blocks in use by the allocator's own definition, and slabs, by arena and size class; without empty cells.
fn cells(snapshot: &Snapshot) -> (Counts, Counts) {
    let (mut blocks, mut slabs) = (BTreeMap::new(), BTreeMap::new());
    for shard in &snapshot.summary.allocators[0].shards {
        for row in &shard.classes {
            blocks.insert(
                (shard.id, row.size_bytes),
                row.live_blocks + row.cached_blocks + row.overhead_blocks,
            );
            slabs.insert((shard.id, row.size_bytes), row.runs);
        }
    }
    blocks.retain(|_, count| *count > 0);
    slabs.retain(|_, count| *count > 0);
    (blocks, slabs)
}

#[test]
fn every_recorded_heap_is_walked_as_its_program_knew_it() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 11, "{} captures", fixtures.len());
    for path in fixtures {
        let name = path.display();
        let truth = Truth::beside(&path);
        let snapshot = read(&path);
        let allocator = &snapshot.summary.allocators[0];
        assert_eq!((snapshot.summary.target.kind.as_str(), allocator.name.as_str()), ("capture", "jemalloc"));
        assert!(allocator.complete && allocator.verified, "{name}: {:?}", allocator.anomalies);
        let live = live::blocks(&snapshot.liveness[0]);
        let missing: Vec<&u64> = truth.blocks.iter().filter(|block| !live.contains_key(block)).collect();
        assert!(missing.is_empty(), "{name}: missing: {missing:x?}");
        let mut extra: Vec<u64> = live
            .iter()
            .filter(|(address, _)| !truth.blocks.contains(address))
            .map(|(_, size)| *size)
            .collect();
        extra.sort_unstable();
        assert_eq!(extra, truth.runtime, "{name}: blocks that neither the program nor its runtime knows");
        if let Some(allocated) = truth.allocated {
            let (blocks, slabs) = cells(&snapshot);
            assert_eq!(blocks, truth.cells, "{name}: blocks by arena and size class");
            assert_eq!(slabs, truth.slabs, "{name}: slabs by arena and size class");
            let all = allocator.live_bytes + allocator.cached_bytes + allocator.overhead_bytes;
            assert_eq!(all, allocated, "{name}: bytes allocated");
        }
    }
}

#[test]
fn recorded_heaps_are_small_and_hold_nobodys_data() {
    const TEXT: &[u8] = b"LEDGER USER DATA";
    let mut all_bytes = 0;
    for path in fixtures() {
        let packed = fs::read(&path).unwrap();
        assert!(packed.len() as u64 <= FIXTURE_BYTES_MAX, "{}: {} bytes", path.display(), packed.len());
        all_bytes += packed.len() as u64;
        let bytes = zstd::decode_all(packed.as_slice()).unwrap();
        assert_eq!(memchr::memmem::find(&bytes, TEXT), None, "{}", path.display());
    }
    assert!(all_bytes <= ALL_BYTES_MAX, "{all_bytes} bytes of captures");
}

/// Starts a program under a name that says nothing of this machine.
fn started(program: &Path, name: &str, library: Option<&str>) -> Ledger {
    let copy = PathBuf::from("/tmp/heaptap-captures").join(name);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    // An earlier one may still run.
    let _ = fs::remove_file(&copy);
    fs::copy(program, &copy).unwrap();
    let copy = copy.to_str().unwrap();
    let arguments = ["--threads", "3", "--empty"];
    match library {
        Some(library) => Ledger::preloaded(copy, library, "", &arguments),
        None => Ledger::start(copy, &arguments),
    }
}

/// A little of everything: small and large, several threads and arenas, freed and cached blocks.
///
/// A thread cache of the program's own making is on no list in builds without statistics: its blocks count as live.
fn fill(ledger: &mut Ledger, statistics: bool) {
    for (index, size) in [8, 24, 100, 500, 3000, 14_000, 20_000, 100_000, 3_000_000].into_iter().enumerate() {
        for thread in 0..3 {
            let count = if size > 10_000 { 6 } else { 40 + 10 * index };
            ledger.command(&format!("grow {count} {size} {thread}"));
            ledger.command(&format!("shrink {} {size} {thread}", count / 3));
        }
    }
    if statistics {
        ledger.command("tcache 10 208");
    }
    for command in ["arena 30 160", "threads 1", "retire 1", "grow 100 64 1"] {
        ledger.command(command);
    }
}

fn record(name: &str, statistics: bool, start: &dyn Fn() -> Ledger) {
    let mut ledger = start();
    fill(&mut ledger, statistics);
    let blocks = ledger.table();
    let figures = ledger.statistics();
    let options =
        Options { pause_budget: Duration::from_secs(10), contents: Contents::NoData, ..Options::default() };
    let captured = Target::open(&ledger.pid().to_string()).unwrap().capture(&options).unwrap();
    let path = folder().join(format!("{name}.core.zst"));
    captured.write(&path, true).unwrap();
    let nonzero = |cells: Vec<(u32, u64, u64)>| {
        let full = cells.into_iter().filter(|(_, _, count)| *count > 0);
        full.map(|(arena, size, count)| ((arena, size), count)).collect::<BTreeMap<_, _>>()
    };
    let truth = Truth {
        allocated: statistics.then(|| figures.value("stats.allocated").expect("statistics are kept")),
        cells: if statistics { nonzero(figures.cells()) } else { BTreeMap::new() },
        slabs: if statistics { nonzero(figures.slabs()) } else { BTreeMap::new() },
        blocks,
        runtime: runtime_blocks(start),
    };
    truth.write(&path);
}

/// Sizes of the blocks that the C and C++ libraries keep for themselves: those that a program without any has.
fn runtime_blocks(start: &dyn Fn() -> Ledger) -> Vec<u64> {
    let mut empty = start();
    empty.command("threads 1");
    empty.command("retire 1");
    let own: BTreeSet<u64> = empty.table();
    let target = Target::open(&empty.pid().to_string()).unwrap();
    let snapshot = target.snapshot(&Options::default()).unwrap();
    let live = live::blocks(&snapshot.liveness[0]);
    let mut sizes: Vec<u64> =
        live.into_iter().filter(|(address, _)| !own.contains(address)).map(|(_, size)| size).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
#[ignore = "records the captures anew"]
fn record_all() {
    let debian = || started(Path::new(LEDGER), "ledger", Some(DEBIAN_LIBRARY));
    record("debian-5.3.0", true, &debian);
    let programs = jemalloc_programs().expect("test-programs/build works");
    for program in programs.iter().filter(|program| program.language == Language::C) {
        let start = || started(&program.stripped, &program.name, None);
        record(&program.name, program.statistics, &start);
    }
}

/// Records the ledger on a jemalloc of one's own: `HEAPTAP_LEDGER=NAME=PATH`.
#[test]
#[ignore = "needs a program that is made by hand"]
fn record_one() {
    let given = std::env::var("HEAPTAP_LEDGER").expect("NAME=PATH");
    let (name, path) = given.split_once('=').expect("NAME=PATH");
    record(name, true, &|| started(Path::new(path), name, None));
}
