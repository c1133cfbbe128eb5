//! Does a walk of tcmalloc come to an end, and deliver sound tables, whatever the heap looks like?
//!
//! A real heap is captured once, and then shown with flipped bits, missing pages and pages of zeros.

mod ledger;

use heaptap::allocator::{Block, Run, Sink};
use heaptap::capture::CapturedMemory;
use heaptap::memory::{Fault, Memory};
use heaptap::snapshot::Liveness;
use heaptap::target::{Options, Target};
use heaptap_platform::AddressRange;
use heaptap_test_programs::LEDGER;
use ledger::Ledger;
use std::time::Duration;

/// Debian's library.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4";

/// What is wrong with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fashion {
    /// One bit of so many words is flipped.
    Flipped(u64),
    /// One of so many pages cannot be read.
    Absent(u64),
    /// One of so many pages reads as zeros.
    Zeroed(u64),
    /// One of so many words is that of another place.
    Moved(u64),
}

/// Memory that is wrong in the same way at every read.
struct Hostile<'a> {
    truth: &'a CapturedMemory,
    fashion: Fashion,
    seed: u64,
}

impl Hostile<'_> {
    /// A number that depends on the place and the seed alone.
    fn draw(&self, place: u64) -> u64 {
        let mut random = (place ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random ^= random >> 32;
        random.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
    }

    fn word(&self, address: u64) -> Result<[u8; 8], Fault> {
        let mut word = [0; 8];
        self.truth.read(address, &mut word)?;
        let (page, draw) = (self.draw(address >> 12), self.draw(address));
        match self.fashion {
            Fashion::Flipped(rarity) if draw.is_multiple_of(rarity) => {
                word[(draw >> 20) as usize % 8] ^= 1 << (draw >> 30 & 7)
            }
            Fashion::Absent(rarity) if page.is_multiple_of(rarity) => return Err(Fault { address }),
            Fashion::Zeroed(rarity) if page.is_multiple_of(rarity) => word = [0; 8],
            Fashion::Moved(rarity) if draw.is_multiple_of(rarity) => {
                self.truth.read(address ^ 0x40, &mut word).unwrap_or(())
            }
            _ => {}
        }
        Ok(word)
    }
}

impl Memory for Hostile<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut at = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            // Words at the edge of the capture are not whole.
            let (word, first) = (self.word(at & !7)?, (at & 7) as usize);
            let count = rest.len().min(8 - first);
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(count);
            part.copy_from_slice(&word[first..first + count]);
            at += count as u64;
            rest = behind;
        }
        Ok(())
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        self.truth.present(range)
    }
}

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
