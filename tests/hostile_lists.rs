//! Does a walk of mimalloc, of `CPython`'s small objects, or of jemalloc 4 come to an end, and deliver sound tables, whatever the heap
//! looks like?
//!
//! A real heap is captured once, or was recorded, and then shown with flipped bits, missing pages and pages of zeros.

mod hostile;
mod ledger;
mod recorded;

use heaptap::allocator::AddressSpace;
use heaptap::allocator::jemalloc4::identify;
use heaptap::allocator::{Block, Run, Sink};
use heaptap::memory::Memory;
use heaptap::snapshot::Liveness;
use heaptap::target::{Captured, Options, Target};
use heaptap_test_programs::LEDGER;
use hostile::{Fashion, Hostile};
use ledger::Ledger;
use recorded::{fixtures_in, folder};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Debian's 2.0.9.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0";

/// Blocks as a snapshot keeps them.
struct Tables(Liveness);

impl Sink for Tables {
    fn run(&mut self, run: Run<'_>) {
        self.0.run(run);
    }
    fn block(&mut self, block: Block) {
        self.0.block(block);
    }
}

/// A process at rest, or a recorded one.
fn captured(spec: &str) -> Captured {
    let target = Target::open(spec).expect("it is there");
    let options = Options { pause_budget: Duration::from_secs(10), ..Options::default() };
    target.capture(&options).expect("it can be captured")
}

/// Whether a walk tells each loss of records that turned to zeros or are not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Losses {
    /// It does.
    Told,
    /// Not where its list of arenas was: how long that is stands nowhere. It ends where memory does, and zeros are arenas that
    /// are not in use.
    MayPass,
}

/// Walks the allocator called `name`, as it is and as it never was; of so many words one is flipped where few are.
fn assert_walks_end(captured: &Captured, name: &str, rarity: u64, losses: Losses) {
    let mut all = captured.allocators.iter();
    let allocator = all.find(|allocator| allocator.name() == name).expect("it is in it");
    let threads = captured.capture.thread_pointers();
    let walk = |memory: &dyn Memory| {
        let mut tables = Tables(Liveness::default());
        let outcome = allocator.walk(memory, &threads, &mut tables);
        tables.0.run_classes.clone_from(&outcome.run_classes);
        tables.0.sort();
        (tables.0, outcome)
    };
    let (truth, outcome) = walk(&captured.capture.memory);
    assert!(outcome.complete && outcome.anomalies.is_empty(), "{:?}", outcome.anomalies);
    let fashions = [
        Fashion::Flipped(100),
        Fashion::Flipped(rarity),
        Fashion::Absent(30),
        Fashion::Zeroed(30),
        Fashion::Moved(500),
    ];
    for fashion in fashions {
        let mut noticed = 0;
        for seed in 0..3 {
            let memory = Hostile { truth: &captured.capture.memory, fashion, seed };
            let (tables, outcome) = walk(&memory);
            tables.check().unwrap_or_else(|fault| panic!("{fashion:?}, seed {seed}: {fault}"));
            let differs = tables.runs != truth.runs || tables.large != truth.large;
            let told = !outcome.complete || !outcome.anomalies.is_empty() || outcome.cells_differing > 0;
            let may_pass = match fashion {
                Fashion::Flipped(_) => true,
                Fashion::Zeroed(_) | Fashion::Absent(_) => losses == Losses::MayPass,
                _ => false,
            };
            assert!(told || !differs || may_pass, "{fashion:?}, seed {seed}: not told");
            noticed += u64::from(told);
        }
        assert!(noticed > 0, "{fashion:?}");
    }
}

#[test]
fn mimalloc_in_a_hostile_memory() {
    let mut ledger = Ledger::preloaded(LEDGER, LIBRARY, "", &["--threads", "2"]);
    ledger.command("churn 50");
    assert_walks_end(&captured(&ledger.pid().to_string()), "mimalloc", 2_000, Losses::Told);
}

#[test]
fn small_objects_of_python_in_a_hostile_memory() {
    // Many free blocks: most of what a walk reads of them are the links between those.
    let program = "kept = [[number, str(number)] for number in range(60000)]\ndel kept[::2]\n\
        print('ready', flush=True)\ninput()";
    let mut python = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let mut ready = String::new();
    BufReader::new(python.stdout.take().expect("piped")).read_line(&mut ready).expect("the program answers");
    assert_walks_end(&captured(&python.id().to_string()), "pymalloc", 5_000, Losses::MayPass);
    python.kill().and_then(|()| python.wait()).expect("it ran");
}

#[test]
fn chunks_of_jemalloc_in_a_hostile_memory() {
    let recorded = fixtures_in(&folder().join("chunks"));
    assert!(recorded.len() >= 6);
    for path in recorded {
        let captured = captured(path.to_str().expect("text"));
        // Its records are few: a header for two megabytes.
        assert_walks_end(&captured, "jemalloc", 1000, Losses::Told);
        // Neither does looking for it.
        let space = AddressSpace { modules: &captured.modules, mappings: &captured.mappings };
        assert_eq!(identify::find(space, &captured.capture.memory).found.len(), 1);
        for (seed, rarity) in (0..).zip([10, 100, 1000, 10_000]) {
            let fashion = Fashion::Flipped(rarity);
            identify::find(space, &Hostile { truth: &captured.capture.memory, fashion, seed });
        }
    }
}
