//! Is the walk exact? Every cell against jemalloc's own statistics, every block against the program's own table.
//!
//! The programs write both down themselves and share no code with heaptap. Each is at rest while it is looked at.

mod ledger;
mod live;

use heaptap::allocator::Provenance;
use heaptap::snapshot::schema::{AllocatorSummary, ClassRow, LiveBound};
use heaptap::snapshot::{Liveness, Snapshot};
use heaptap::target::{Options, Target};
use heaptap_test_programs::{
    JemallocProgram, LEDGER, LEDGER_JEMALLOC, LEDGER_STATIC, Language, jemalloc_programs,
    jemalloc_programs_with_assertions,
};
use ledger::{Ledger, Statistics};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Debian's package, stripped; `.ci/run` installs it.
const DEBIAN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

fn snapshot(ledger: &Ledger) -> Snapshot {
    let target = Target::open(&ledger.pid().to_string()).expect("the ledger runs");
    // Other work on a busy machine may make a pause long; it is not what is asked here.
    let options = Options { pause_budget: std::time::Duration::from_secs(10), ..Options::default() };
    target.snapshot(&options).expect("its heap can be read")
}

/// jemalloc's part of the snapshot: in a program with a prefixed jemalloc the C library's malloc is there too.
fn jemalloc(snapshot: &Snapshot) -> (&AllocatorSummary, &Liveness) {
    let both = snapshot.summary.allocators.iter().zip(&snapshot.liveness);
    both.into_iter().find(|(allocator, _)| allocator.name == "jemalloc").expect("jemalloc is in it")
}

/// What the allocator calls in use.
fn in_use(row: Option<&ClassRow>) -> u64 {
    row.map_or(0, |row| row.live_blocks + row.cached_blocks + row.overhead_blocks)
}

/// Compares all cells; returns how many there were.
fn assert_cells_equal(name: &str, snapshot: &Snapshot, statistics: &Statistics) -> usize {
    let (allocator, _) = jemalloc(snapshot);
    let mut cells = 0;
    for (arena, size, blocks) in statistics.cells() {
        let shard = allocator.shards.iter().find(|shard| shard.id == arena);
        let row = shard.and_then(|shard| shard.classes.iter().find(|row| row.size_bytes == size));
        assert_eq!(in_use(row), blocks, "{name}: arena {arena}, size class {size}");
        cells += 1;
    }
    for (arena, size, slabs) in statistics.slabs() {
        let shard = allocator.shards.iter().find(|shard| shard.id == arena);
        let row = shard.and_then(|shard| shard.classes.iter().find(|row| row.size_bytes == size));
        assert_eq!(row.map_or(0, |row| row.runs), slabs, "{name}: slabs of arena {arena}, size class {size}");
    }
    let all = allocator.live_bytes + allocator.cached_bytes + allocator.overhead_bytes;
    assert_eq!(Some(all), statistics.value("stats.allocated"), "{name}: bytes allocated");
    cells
}

/// Compares the live blocks with the program's own table, address by address; returns the sizes of those that
/// the program does not know.
fn assert_none_missing(name: &str, snapshot: &Snapshot, table: &BTreeSet<u64>) -> Vec<u64> {
    let live = live::blocks(jemalloc(snapshot).1);
    let missing: Vec<_> = table.iter().filter(|address| !live.contains_key(address)).collect();
    assert!(missing.is_empty(), "{name}: {} blocks of the program missing: {missing:x?}", missing.len());
    let mut extra: Vec<u64> =
        live.iter().filter(|(address, _)| !table.contains(address)).map(|(_, bytes)| *bytes).collect();
    extra.sort_unstable();
    extra
}

type Start<'a> = &'a dyn Fn(&[&str]) -> Ledger;

/// Whose blocks the walk may find that are not in the table.
#[derive(Clone, Copy)]
enum Runtime {
    /// The C and C++ libraries' for themselves, such as the pool for exceptions in distress: those that are there
    /// also when the program itself has none.
    Libraries,
    /// Nobody's: the table has every block but those that jemalloc hands out to itself.
    None,
}

fn assert_exact(name: &str, start: Start<'_>, statistics_kept: bool, runtime: Runtime) -> Provenance {
    let mut ledger = start(&[]);
    let table = ledger.table();
    let statistics = ledger.statistics();
    let snapshot = snapshot(&ledger);
    let (allocator, _) = jemalloc(&snapshot);
    assert!(allocator.complete, "{name}: {:?}", allocator.anomalies);
    assert!(allocator.verified, "{name}: {:?}", allocator.anomalies);
    assert!(table.len() > 5_000, "{name}: only {} blocks", table.len());
    let extra = assert_none_missing(name, &snapshot, &table);
    let explained = match runtime {
        Runtime::Libraries => blocks_of_an_empty_program(name, start),
        Runtime::None => Vec::new(),
    };
    assert_eq!(extra, explained, "{name}: blocks that neither program nor runtime knows");
    let unexplained = allocator.evidence.iter().find(|sentence| sentence.contains("jemalloc's own"));
    assert_eq!(unexplained, None, "{name}: its own count of what it hands out to itself is met to the byte");
    let shares = &snapshot.summary.resident;
    let rest = shares.iter().find(|share| share.kind == "unexplained").expect("the row is always there");
    assert_eq!(rest.bytes, 0, "{name}: {shares:?}");
    if statistics_kept {
        let cells = assert_cells_equal(name, &snapshot, &statistics);
        assert!(cells > 200, "{name}: only {cells} cells were compared");
        assert_eq!(allocator.cells_compared, cells as u64, "{name}: heaptap compares the same cells itself");
    }
    let (blocks, cells) = (table.len(), allocator.cells_compared);
    println!("{name}: {blocks} blocks, 0 missing, {} extra; {cells} cells, 0 differences", extra.len());
    allocator.provenance
}

fn blocks_of_an_empty_program(name: &str, start: Start<'_>) -> Vec<u64> {
    let mut empty = start(&["--empty"]);
    let table = empty.table();
    assert_none_missing(name, &snapshot(&empty), &table)
}

#[test]
fn debians_stripped_library() {
    assert!(Path::new(DEBIAN_LIBRARY).exists(), "install libjemalloc2: .ci/run does");
    let start = |arguments: &[&str]| Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", arguments);
    assert_eq!(assert_exact("libjemalloc2", &start, true, Runtime::Libraries), Provenance::Probed);
}

#[test]
fn debians_library_in_many_configurations() {
    for configuration in [
        "percpu_arena:percpu",
        "tcache:false",
        "narenas:1,dirty_decay_ms:0",
        "bin_shards:8-160:16|161-1024:4",
        "hpa:true",
        "dirty_decay_ms:-1,muzzy_decay_ms:-1",
        "retain:false",
        "lg_tcache_max:12",
    ] {
        let start = |arguments: &[&str]| Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, configuration, arguments);
        assert_exact(configuration, &start, true, Runtime::Libraries);
    }
}

/// What the walk cannot tell from the program's blocks it gives as a sum, which is that of the blocks too many.
#[test]
fn the_profilers_records_add_up_to_what_is_said_of_them() {
    let name = "prof:true,lg_prof_sample:12";
    let start = |arguments: &[&str]| Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, name, arguments);
    let mut ledger = start(&[]);
    let table = ledger.table();
    let snapshot = snapshot(&ledger);
    let extra: u64 = assert_none_missing(name, &snapshot, &table).iter().sum();
    let plain = |arguments: &[&str]| Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", arguments);
    let libraries: u64 = blocks_of_an_empty_program(name, &plain).iter().sum();
    let (allocator, _) = jemalloc(&snapshot);
    assert!(allocator.verified && allocator.cells_compared > 200, "{:?}", allocator.anomalies);
    let sentence = allocator.evidence.iter().find(|sentence| sentence.contains("jemalloc's own"));
    let said = sentence.and_then(|sentence| sentence.split(' ').find_map(|word| word.parse::<u64>().ok()));
    assert_eq!(said, Some(extra - libraries), "{:?}", allocator.evidence);
    assert!(extra > 100_000, "the profiler has sampled little: {extra} bytes");
}

#[test]
fn linked_into_the_program() {
    for (name, path) in [("dynamic", LEDGER_JEMALLOC), ("static", LEDGER_STATIC)] {
        let path = path.expect("built wherever jemalloc is not the C library's own");
        assert_exact(name, &|arguments| Ledger::start(path, arguments), true, Runtime::Libraries);
    }
}

/// Checks the programs that `belongs` chooses, each with and without symbols; returns how many there were.
fn assert_all_exact(belongs: fn(&JemallocProgram) -> bool, runtime: Runtime) -> usize {
    let programs = jemalloc_programs().expect("test-programs/build works");
    let chosen: Vec<_> = programs.iter().filter(|program| belongs(program)).collect();
    for program in &chosen {
        let exact = |path: &Path| {
            let name = path.display().to_string();
            assert_exact(&name, &|arguments| Ledger::start(&name, arguments), program.statistics, runtime)
        };
        let name = &program.name;
        assert_eq!(exact(&program.executable), Provenance::Dwarf, "{name}: its debug information is there");
        assert_eq!(exact(&program.stripped), Provenance::Probed, "{}: nothing but its shape", program.name);
    }
    chosen.len()
}

#[test]
fn every_version_as_the_c_librarys_malloc() {
    let count =
        assert_all_exact(|program| program.language == Language::C && !program.prefixed, Runtime::Libraries);
    assert!(count >= 5, "{count} programs");
}

#[test]
fn every_version_beside_the_c_librarys_malloc() {
    let count =
        assert_all_exact(|program| program.language == Language::C && program.prefixed, Runtime::None);
    assert!(count >= 5, "{count} programs");
}

#[test]
fn every_version_as_a_rust_programs_global_allocator() {
    let count = assert_all_exact(|program| program.language == Language::Rust, Runtime::None);
    assert!(count >= 4, "{count} programs");
}

#[test]
fn longer_structures_by_their_debug_information() {
    for program in jemalloc_programs_with_assertions().expect("test-programs/build works") {
        let name = program.executable.display().to_string();
        let start = |arguments: &[&str]| Ledger::start(&name, arguments);
        let provenance = assert_exact(&name, &start, program.statistics, Runtime::Libraries);
        assert_eq!(provenance, Provenance::Dwarf, "{name}");
    }
}

#[test]
fn longer_structures_by_a_separate_debug_file() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for program in jemalloc_programs_with_assertions().expect("test-programs/build works") {
        let (debug, stripped) = (folder.join(format!("{}.debug", program.name)), folder.join(&program.name));
        let objcopy = |arguments: &[&str], from: &Path, to: &Path| {
            let status = Command::new("objcopy").args(arguments).args([from, to]).status();
            assert!(status.expect("objcopy starts").success(), "{}", to.display());
        };
        objcopy(&["--only-keep-debug"], &program.executable, &debug);
        let link = format!("--add-gnu-debuglink={}", debug.display());
        objcopy(&["--strip-all", &link], &program.executable, &stripped);
        let name = stripped.display().to_string();
        let start = |arguments: &[&str]| Ledger::start(&name, arguments);
        let provenance = assert_exact(&name, &start, program.statistics, Runtime::Libraries);
        assert_eq!(provenance, Provenance::Dwarf, "{name}");
    }
}

#[test]
fn longer_structures_that_no_table_has_are_not_called_complete() {
    for program in jemalloc_programs_with_assertions().expect("test-programs/build works") {
        let mut ledger = Ledger::start(&program.stripped.display().to_string(), &[]);
        let table = ledger.table();
        let snapshot = snapshot(&ledger);
        let (allocator, _) = jemalloc(&snapshot);
        assert!(!allocator.complete, "{}: no table has its thread caches", program.name);
        let says_so = |sentence: &String| sentence.contains("blocks in thread caches count as live");
        assert!(allocator.evidence.iter().any(says_so), "{}: {:?}", program.name, allocator.evidence);
        let extra = assert_none_missing(&program.name, &snapshot, &table);
        assert!(!extra.is_empty(), "{}: the cached blocks are among the live ones", program.name);
        assert_eq!(allocator.live_bound, Some(LiveBound::Upper), "{}", program.name);
        assert_eq!(allocator.cells_compared, 0, "{}: its arenas are not found", program.name);
        assert!(!allocator.verified, "{}: nothing was compared", program.name);
        let mut claimed = allocator.address_space.iter().filter(|row| row.kind == "metadata");
        assert!(claimed.any(|row| row.bytes > 0), "{}: its records are somewhere", program.name);
        let shares = &snapshot.summary.resident;
        let records = shares.iter().find(|share| share.kind == "metadata").map(|share| share.bytes);
        assert!(records >= Some(1 << 20), "{}: {shares:?}", program.name);
        let info =
            Command::new(env!("CARGO_BIN_EXE_heaptap")).args(["info", &ledger.pid().to_string()]).output();
        let info = String::from_utf8(info.expect("heaptap starts").stdout).expect("text");
        assert!(info.contains("upper") && !info.contains("lower"), "{info}");
    }
}

/// What `heaptap info --json` says of a running ledger's jemalloc.
fn provenance(program: &Path) -> String {
    let ledger = Ledger::start(&program.display().to_string(), &[]);
    let mut info = Command::new(env!("CARGO_BIN_EXE_heaptap"));
    info.args(["info", "--json", "--pause-budget", "10s", &ledger.pid().to_string()]);
    let output = info.output().expect("heaptap starts");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let mut allocators = answer["allocators"].as_array().expect("a list").iter();
    let jemalloc = allocators.find(|allocator| allocator["name"] == "jemalloc").expect("it has jemalloc");
    jemalloc["provenance"].as_str().expect("a word").to_owned()
}

#[test]
fn info_says_where_the_layout_is_from() {
    let programs = jemalloc_programs().expect("test-programs/build works");
    let program = programs.iter().find(|program| program.name == "ledger-5.3.0").expect("it is built");
    assert_eq!(provenance(&program.executable), "dwarf");
    assert_eq!(provenance(&program.stripped), "probed");
}

#[test]
#[ignore = "name a folder in HEAPTAP_JEMALLOC_BUILDS that holds installed builds with debug information"]
fn every_library_in_a_folder() {
    let folder = std::env::var("HEAPTAP_JEMALLOC_BUILDS").expect("HEAPTAP_JEMALLOC_BUILDS is set");
    let mut builds: Vec<_> = std::fs::read_dir(folder).expect("a folder").flatten().collect();
    builds.sort_by_key(std::fs::DirEntry::path);
    for build in builds {
        let library = build.path().join("lib/libjemalloc.so.2").display().to_string();
        let start = |arguments: &[&str]| Ledger::preloaded(LEDGER, &library, "", arguments);
        let statistics_kept = start(&[]).statistics().value("stats.allocated").is_some_and(|bytes| bytes > 0);
        let provenance = assert_exact(&library, &start, statistics_kept, Runtime::Libraries);
        assert_eq!(provenance, Provenance::Dwarf, "{library}");
    }
}
