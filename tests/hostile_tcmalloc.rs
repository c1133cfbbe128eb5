//! Does a walk of tcmalloc come to an end, and deliver sound tables, whatever the heap looks like?
//!
//! A real heap is captured once, and then shown with flipped bits, missing pages and pages of zeros.

mod hostile;
mod ledger;

use heaptap::allocator::{Block, Run, Sink};
use heaptap::memory::Memory;
use heaptap::snapshot::Liveness;
use heaptap::target::{Options, Target};
use heaptap_test_programs::LEDGER;
use hostile::{Fashion, Hostile};
use ledger::Ledger;
use std::time::Duration;

/// Debian's library.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4";

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

#[test]
fn every_walk_ends_with_sound_tables() {
    let mut ledger = Ledger::preloaded(LEDGER, LIBRARY, "", &["--threads", "2"]);
    ledger.command("churn 20");
    let target = Target::open(&ledger.pid().to_string()).expect("the ledger runs");
    let options = Options { pause_budget: Duration::from_secs(10), ..Options::default() };
    let captured = target.capture(&options).expect("it can be captured");
    let [tcmalloc] = captured.allocators.as_slice() else { panic!("one allocator") };
    let threads = captured.capture.thread_pointers();
    let walk = |memory: &dyn Memory| {
        let mut tables = Tables(Liveness::default());
        let outcome = tcmalloc.walk(memory, &threads, &mut tables);
        tables.0.run_classes.clone_from(&outcome.run_classes);
        tables.0.sort();
        (tables.0, outcome)
    };
    let (truth, outcome) = walk(&captured.capture.memory);
    assert!(outcome.complete && outcome.anomalies.is_empty(), "{:?}", outcome.anomalies);
    let fashions = [
        Fashion::Flipped(100),
        Fashion::Flipped(20_000),
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
            let differs = tables != truth;
            let told = !outcome.complete || !outcome.anomalies.is_empty() || outcome.cells_differing > 0;
            assert!(
                told || !differs || matches!(fashion, Fashion::Flipped(_)),
                "{fashion:?}, seed {seed}: not told"
            );
            noticed += u64::from(told);
        }
        assert!(noticed > 0, "{fashion:?}");
    }
}
