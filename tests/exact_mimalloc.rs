//! Is the walk of mimalloc exact? Every block against the program's own table.
//!
//! The programs write it down themselves and share no code with heaptap. Each is at rest while it is looked at.
//! Blocks that the program does not know are the C library's own: those that an empty program of as many threads has.

mod ledger;

use heaptap::snapshot::Snapshot;
use heaptap::snapshot::schema::AllocatorSummary;
use heaptap::target::{Options, Target};
use heaptap_test_programs::LEDGER;
use ledger::Ledger;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// Debian's 2.0.9.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0";

/// Other work on a busy machine may make a pause long; it is not what is asked here.
const AMPLE: Duration = Duration::from_secs(10);

fn snapshot(pid: u32, pause_budget: Duration) -> Snapshot {
    let target = Target::open(&pid.to_string()).expect("the ledger runs");
    let options = Options { pause_budget, ..Options::default() };
    // That a busy machine keeps the pause from being short enough is an answer too, but not to what is asked here.
    let mut answers = (0..20).map(|_| target.snapshot(&options));
    let answer = answers.find(|answer| answer.as_ref().err().is_none_or(|error| error.exit_code() != 7));
    answer.expect("the machine gives it enough time once").expect("its heap can be read")
}

fn mimalloc(snapshot: &Snapshot) -> (usize, &AllocatorSummary) {
    let mut all = snapshot.summary.allocators.iter().enumerate();
    all.find(|(_, allocator)| allocator.name == "mimalloc").expect("mimalloc is in it")
}

/// Bytes of every live block, by address.
fn live_blocks(snapshot: &Snapshot) -> BTreeMap<u64, u64> {
    let liveness = &snapshot.liveness[mimalloc(snapshot).0];
    let mut live = BTreeMap::new();
    for (index, address) in liveness.runs.address.iter().enumerate() {
        let class = liveness.run_classes[usize::from(liveness.runs.class[index])];
        for (word, bits) in (0_u64..).zip(liveness.runs.words(index)) {
            let set = (0..64).filter(|bit| bits & (1 << bit) != 0);
            live.extend(set.map(|bit| (address + (word * 64 + bit) * class.block_bytes, class.block_bytes)));
        }
    }
    let alone = liveness.large.blocks.iter().filter(|block| !block.cached);
    live.extend(alone.map(|block| (block.address, block.usable_bytes)));
    live
}

/// Compares all blocks of the program with what was found; returns the sizes of those that the program does not know.
fn extra_blocks(name: &str, table: &BTreeMap<u64, u64>, snapshot: &Snapshot) -> Vec<u64> {
    let mut live = live_blocks(snapshot);
    let mut interior = 0;
    // Secure builds write the usable size of each block behind it.
    let is_padded = mimalloc(snapshot).1.evidence.iter().any(|sentence| sentence.contains("secure build"));
    for (address, usable) in table {
        // An aligned allocation is given out from the middle of a block, and is usable up to that block's end.
        let (block, bytes) = live
            .range(..=address)
            .next_back()
            .map(|(block, bytes)| (*block, *bytes))
            .expect("a block before it");
        let end = if is_padded { (block + bytes).min(address + usable) } else { block + bytes };
        assert_eq!(end, address + usable, "{name}: block {address:#x}, found {block:#x} of {bytes}");
        interior += usize::from(block != *address);
        live.remove(&block);
    }
    println!(
        "{name}: {} blocks, {interior} of them aligned in a larger one, 0 missing, 0 wrong, {} of the C library",
        table.len(),
        live.len()
    );
    live.into_values().collect()
}

fn check(name: &str, ledger: &mut Ledger) -> Vec<u64> {
    let table = ledger.usable_sizes();
    let snapshot = snapshot(ledger.pid(), AMPLE);
    let allocator = mimalloc(&snapshot).1;
    assert!(allocator.complete, "{name}: {:?} {:?}", allocator.anomalies, allocator.evidence);
    assert!(allocator.verified, "{name}: {:?} {:?}", allocator.anomalies, allocator.evidence);
    assert!(
        allocator.cells_compared >= allocator.own_figures["pages"],
        "each page's own count of blocks is compared"
    );
    assert_eq!(
        allocator.live_blocks + allocator.cached_blocks,
        allocator.own_figures["used_blocks"],
        "the blocks that mimalloc counts as used"
    );
    extra_blocks(name, &table, &snapshot)
}

/// Starts a ledger, lets `prepare` bring it into the state that is asked about, and compares.
fn assert_exact(name: &str, arguments: &[&str], prepare: impl Fn(&mut Ledger)) {
    assert_exact_on(LIBRARY, name, arguments, prepare);
}

fn assert_exact_on(library: &str, name: &str, arguments: &[&str], prepare: impl Fn(&mut Ledger)) {
    let start = |arguments: &[&str]| Ledger::preloaded(LEDGER, library, "", arguments);
    let mut ledger = start(arguments);
    prepare(&mut ledger);
    let mut extra = check(name, &mut ledger);
    let empty_arguments: Vec<&str> = arguments.iter().copied().chain(["--empty"]).collect();
    let mut empty = check("the empty one", &mut start(&empty_arguments));
    extra.sort_unstable();
    empty.sort_unstable();
    assert_eq!(extra, empty, "{name}: blocks that neither the program nor an empty one knows");
}

#[test]
fn threads_that_free_each_others_blocks() {
    assert_exact("one thread", &["--threads", "1"], |_| {});
    assert_exact("four threads", &["--threads", "4"], |_| {});
    assert_exact("after churn", &["--threads", "4"], |ledger| {
        ledger.command("churn 200");
    });
}

#[test]
fn threads_that_have_ended() {
    assert_exact("exited threads", &["--threads", "6"], |ledger| {
        ledger.command("retire 3");
        ledger.command("grow 1000 72");
    });
}

#[test]
fn blocks_with_segments_of_their_own() {
    assert_exact("huge", &["--threads", "3"], |ledger| {
        for size in [140_000, 200_000, 1 << 20, 5_000_001, 17 << 20, 70 << 20] {
            ledger.command(&format!("grow 3 {size} 1"));
        }
        ledger.command("shrink 2 200000 1");
        ledger.command("shrink 1 73400320 1");
        ledger.command("grow 5 300000 0");
    });
}

#[test]
fn a_core_of_the_process() {
    let mut ledger = Ledger::preloaded(LEDGER, LIBRARY, "", &["--threads", "2"]);
    let table = ledger.usable_sizes();
    let folder = std::env::temp_dir().join(format!("heaptap-mimalloc-core-{}", std::process::id()));
    let output = Command::new("gcore").arg("-o").arg(&folder).arg(ledger.pid().to_string()).output();
    assert!(output.expect("gdb is installed: .ci/run does").status.success());
    let core = format!("{}.{}", folder.display(), ledger.pid());
    let snapshot =
        Target::open(&core).expect("a core").snapshot(&Options::default()).expect("it can be read");
    std::fs::remove_file(&core).expect("it was made above");
    assert!(mimalloc(&snapshot).1.verified, "{:?}", mimalloc(&snapshot).1.anomalies);
    assert_eq!(extra_blocks("a core", &table, &snapshot), Vec::<u64>::new());
}

#[test]
#[ignore = "needs other releases of the library; docs/measurements.md tells how"]
fn other_releases_of_the_library() {
    let list = std::env::var("HEAPTAP_MIMALLOC_LIBRARIES").expect("HEAPTAP_MIMALLOC_LIBRARIES is set");
    for library in list.split_whitespace() {
        let exact = |name: &str, threads: &str, commands: &[&str]| {
            let name = format!("{library}: {name}");
            assert_exact_on(library, &name, &["--threads", threads], |ledger| {
                commands.iter().for_each(|command| drop(ledger.command(command)));
            });
        };
        exact("one thread", "1", &[]);
        exact("four threads after churn", "4", &["churn 200"]);
        exact("exited threads", "6", &["retire 3", "grow 1000 72"]);
        exact(
            "huge",
            "2",
            &["grow 3 200000 1", "grow 3 5000001 0", "grow 2 73400320 1", "shrink 1 200000 1"],
        );
    }
}
