//! Is the walk of jemalloc 4.x exact? Every cell against its own statistics, every block against the program's own table.
//!
//! 4.5.0 is run, with and without symbols. Heaps of 4.0.4 to 4.5.0 are read as they were recorded; `captures/README.md` says how.

mod ledger;
mod live;
mod recorded;

use heaptap::allocator::Provenance;
use heaptap::snapshot::Snapshot;
use heaptap::snapshot::schema::AllocatorSummary;
use heaptap::target::{Contents, Options, Target};
use heaptap_test_programs::{LEDGER, jemalloc_programs_with_chunks};
use ledger::Ledger;
use recorded::{Truth, fixtures_in, folder};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the recorded heaps are.
fn chunks_folder() -> PathBuf {
    folder().join("chunks")
}

fn options(contents: Contents) -> Options {
    // Other work on a busy machine may make a pause long; it is not what is asked here.
    Options { pause_budget: Duration::from_secs(10), contents, ..Options::default() }
}

fn snapshot_of(spec: &str) -> Snapshot {
    let target = Target::open(spec).expect("it is there");
    target.snapshot(&options(Contents::Records)).expect("its heap can be read")
}

/// jemalloc's place among the allocators.
fn jemalloc(snapshot: &Snapshot) -> (usize, &AllocatorSummary) {
    let mut all = snapshot.summary.allocators.iter().enumerate();
    all.find(|(_, allocator)| allocator.name == "jemalloc").expect("jemalloc is in it")
}

/// A live block by the address that the program has. Of a large block only the page is recorded in which it begins.
fn block_of(live: &BTreeMap<u64, u64>, address: u64) -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    const LARGE_BYTES_MIN: u64 = 16_384;
    let (&start, &bytes) = live.range(..=address).next_back()?;
    let in_first_page = bytes >= LARGE_BYTES_MIN && start % PAGE_BYTES == 0 && address - start < PAGE_BYTES;
    (start == address || in_first_page).then_some(start)
}

/// What jemalloc has handed out to itself by its own count, but for what the walk has met as such.
fn own_use_bytes(allocator: &AllocatorSummary) -> u64 {
    let sentence = allocator.evidence.iter().find(|sentence| sentence.contains("jemalloc's own"));
    sentence.map_or(0, |sentence| {
        sentence.split(' ').find_map(|word| word.parse().ok()).expect("it has a figure")
    })
}

/// Bytes of the live blocks that are not among `blocks`, of which none may be missing.
fn extra_bytes(name: &str, snapshot: &Snapshot, blocks: &BTreeSet<u64>) -> u64 {
    let mut live = live::blocks(&snapshot.liveness[jemalloc(snapshot).0]);
    let found: Vec<(u64, Option<u64>)> =
        blocks.iter().map(|address| (*address, block_of(&live, *address))).collect();
    let missing: Vec<_> = found.iter().filter(|(_, block)| block.is_none()).collect();
    assert!(missing.is_empty(), "{name}: {} blocks missing: {missing:x?}", missing.len());
    let known: BTreeSet<u64> = found.into_iter().filter_map(|(_, block)| block).collect();
    assert_eq!(known.len(), blocks.len(), "{name}: two of the program's blocks are one to the walk");
    live.retain(|address, _| !known.contains(address));
    live.into_values().sum()
}

type Counts = BTreeMap<(u32, u64), u64>;

/// Blocks in use by the allocator's own definition, and runs, by arena and size class; without empty cells.
fn cells(allocator: &AllocatorSummary) -> (Counts, Counts) {
    let (mut blocks, mut runs) = (Counts::new(), Counts::new());
    for (shard, row) in
        allocator.shards.iter().flat_map(|shard| shard.classes.iter().map(move |row| (shard, row)))
    {
        let in_use = row.live_blocks + row.cached_blocks + row.overhead_blocks;
        blocks.insert((shard.id, row.size_bytes), in_use);
        runs.insert((shard.id, row.size_bytes), row.runs);
    }
    blocks.retain(|_, count| *count > 0);
    runs.retain(|_, count| *count > 0);
    (blocks, runs)
}

fn nonzero(cells: Vec<(u32, u64, u64)>) -> Counts {
    let full = cells.into_iter().filter(|(_, _, count)| *count > 0);
    full.map(|(arena, size, count)| ((arena, size), count)).collect()
}

/// What a ledger and its allocator say of a heap at rest.
fn truth_of(ledger: &mut Ledger) -> Truth {
    let blocks = ledger.table();
    let figures = ledger.statistics();
    Truth {
        allocated: Some(figures.value("stats.allocated").expect("statistics are kept")),
        cells: nonzero(figures.cells()),
        slabs: nonzero(figures.slabs()),
        blocks,
        runtime: Vec::new(),
    }
}

fn assert_exact(name: &str, snapshot: &Snapshot, truth: &Truth) {
    let (_, allocator) = jemalloc(snapshot);
    assert!(allocator.complete && allocator.verified, "{name}: {:?}", allocator.anomalies);
    let extra_bytes = extra_bytes(name, snapshot, &truth.blocks);
    assert_eq!(
        extra_bytes,
        own_use_bytes(allocator),
        "{name}: blocks that neither program nor jemalloc knows"
    );
    let (blocks, runs) = cells(allocator);
    assert_eq!(blocks, truth.cells, "{name}: blocks by arena and size class");
    assert_eq!(runs, truth.slabs, "{name}: runs by arena and size class");
    let all = allocator.live_bytes + allocator.cached_bytes + allocator.overhead_bytes;
    assert_eq!(Some(all), truth.allocated, "{name}: bytes allocated");
    assert!(allocator.cells_compared > 200, "{name}: {} cells", allocator.cells_compared);
    println!("{name}: {} blocks, {} cells, 0 differences", truth.blocks.len(), allocator.cells_compared);
}

/// Several threads and arenas; small, large and huge blocks; freed and cached ones; threads that have ended.
fn fill(ledger: &mut Ledger) {
    for (index, size) in [8, 24, 100, 500, 3000, 14_000, 20_000, 100_000, 3_000_000].into_iter().enumerate() {
        for thread in 0..3 {
            let count = if size > 10_000 { 6 } else { 40 + 10 * index };
            ledger.command(&format!("grow {count} {size} {thread}"));
            ledger.command(&format!("shrink {} {size} {thread}", count / 3));
        }
    }
    for command in ["threads 1", "retire 1", "grow 100 64 1"] {
        ledger.command(command);
    }
}

#[test]
fn a_process_on_chunks_is_walked_as_its_program_knows_it() {
    let programs = jemalloc_programs_with_chunks().expect("test-programs/build works");
    assert!(!programs.is_empty(), "4.5.0 can be built");
    for program in programs {
        for (path, provenance) in
            [(&program.executable, Provenance::Symbols), (&program.stripped, Provenance::Probed)]
        {
            let name = path.display().to_string();
            let mut ledger = Ledger::start(&name, &[]);
            fill(&mut ledger);
            let truth = truth_of(&mut ledger);
            assert!(truth.blocks.len() > 5_000, "{name}: {} blocks", truth.blocks.len());
            let snapshot = snapshot_of(&ledger.pid().to_string());
            assert_eq!(jemalloc(&snapshot).1.provenance, provenance, "{name}");
            assert_exact(&name, &snapshot, &truth);
            let shares = &snapshot.summary.resident;
            let rest =
                shares.iter().find(|share| share.kind == "unexplained").expect("the row is always there");
            assert_eq!(rest.bytes, 0, "{name}: {shares:?}");
        }
    }
}

#[test]
fn every_recorded_heap_of_chunks_is_walked_as_its_program_knew_it() {
    let fixtures = fixtures_in(&chunks_folder());
    assert!(fixtures.len() >= 6, "{} captures", fixtures.len());
    for path in fixtures {
        let name = path.display().to_string();
        assert_exact(&name, &snapshot_of(&name), &Truth::beside(&path));
    }
}

/// Cores of systems that do not keep constant bytes, as FreeBSD's, show neither jemalloc's name nor its version.
#[test]
fn the_layout_is_found_where_no_version_is_told() {
    let folder = tempfile::tempdir().expect("a folder for a file");
    for path in fixtures_in(&chunks_folder()) {
        let mut bytes =
            zstd::decode_all(std::fs::File::open(&path).expect("it is there")).expect("it is whole");
        let version = path.file_name().and_then(|name| name.to_str()).expect("text").replace("ledger-", "");
        let text = format!("{}-0-g", version.trim_end_matches(".core.zst"));
        for sign in ["<jemalloc>", &text] {
            let places: Vec<usize> = memchr::memmem::find_iter(&bytes, sign).collect();
            assert!(!places.is_empty(), "{name}: the capture keeps {sign}", name = path.display());
            for at in places {
                bytes[at..at + sign.len()].fill(0);
            }
        }
        let nameless = folder.path().join("nameless.core");
        std::fs::write(&nameless, bytes).expect("it can be written");
        let name = nameless.display().to_string();
        let snapshot = snapshot_of(&name);
        assert!(jemalloc(&snapshot).1.version.starts_with("like 4."), "{}", jemalloc(&snapshot).1.version);
        assert_exact(&name, &snapshot, &Truth::beside(&path));
    }
}

/// Records the heaps anew: `HEAPTAP_JEMALLOC4='4.0.4=LIBRARY ...'` names one stripped library for each version.
#[test]
#[ignore = "records the captures anew, with libraries that no package brings"]
fn record_all() {
    let libraries = std::env::var("HEAPTAP_JEMALLOC4").expect("HEAPTAP_JEMALLOC4 names the libraries");
    for named in libraries.split_whitespace() {
        let (version, library) = named.split_once('=').expect("VERSION=LIBRARY");
        let copy = Path::new("/tmp/heaptap-captures").join(format!("jemalloc-{version}"));
        std::fs::create_dir_all(&copy).unwrap();
        let (program, so) = (copy.join("ledger"), copy.join("libjemalloc.so.2"));
        std::fs::copy(LEDGER, &program).unwrap();
        std::fs::copy(library, &so).unwrap();
        let start = || {
            let arguments = ["--threads", "3", "--empty"];
            Ledger::preloaded(program.to_str().unwrap(), so.to_str().unwrap(), "", &arguments)
        };
        let mut ledger = start();
        fill(&mut ledger);
        let truth = truth_of(&mut ledger);
        let target = Target::open(&ledger.pid().to_string()).unwrap();
        let path = chunks_folder().join(format!("ledger-{version}.core.zst"));
        std::fs::create_dir_all(chunks_folder()).unwrap();
        target.capture(&options(Contents::NoData)).unwrap().write(&path, true).unwrap();
        truth.write(&path);
    }
}
