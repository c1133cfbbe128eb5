//! Heaps block by block, in the plainest way: the oracle for tables of bits. It counts in its own words and
//! shares nothing with what it checks but the types of the input.

#![allow(dead_code, reason = "each test file that includes this uses a part of it")]

use heaptap::allocator::{Block, Provenance, Run, RunClass, Sink};
use heaptap::snapshot::schema::{AllocatorSummary, ClassRow, SCHEMA, Shard, Summary, Target};
use heaptap::snapshot::{Liveness, Snapshot};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Block bytes and run bytes. No two runs at page addresses have a block address in common unless they start
/// at the same address, so that a block's address says which run it is in.
pub const CLASSES: [(u64, u64); 5] = [(16, 4096), (48, 12288), (64, 4096), (80, 20480), (512, 4096)];
/// Usable bytes of large blocks.
pub const LARGE: [u64; 4] = [16384, 20480, 1 << 20, 5 << 20];
const RUNS_AT: u64 = 0x7f00_0000_0000;
const LARGE_AT: u64 = 0x7f80_0000_0000;
/// Room for the largest run, and for the largest block.
const RUN_SLOT_BYTES: u64 = 0x5000;
const LARGE_SLOT_BYTES: u64 = 0x100_0000;

/// A run with one flag a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainRun {
    pub address: u64,
    pub class: usize,
    pub shard: u32,
    pub serial: u64,
    pub live: Vec<bool>,
    pub cached: Vec<bool>,
}

/// All blocks of a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heap {
    pub runs: Vec<PlainRun>,
    pub large: Vec<Block>,
}

/// A live block: address, serial, shard, class bytes (0 for none), usable bytes.
pub type Place = (u64, u64, u32, u64, u64);

impl Heap {
    /// Every live block.
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for run in &self.runs {
            let size = CLASSES[run.class].0;
            for (index, _) in run.live.iter().enumerate().filter(|(_, live)| **live) {
                places.push((run.address + index as u64 * size, run.serial, run.shard, size, size));
            }
        }
        for block in self.large.iter().filter(|block| !block.cached) {
            places.push((block.address, block.serial, block.shard, block.class_bytes, block.usable_bytes));
        }
        places
    }

    /// Delivers runs and blocks in the order in which they stand, classes counted from the end if `reversed`.
    pub fn deliver(&self, reversed: bool) -> Liveness {
        let mut classes: Vec<RunClass> = CLASSES
            .map(|(block_bytes, run_bytes)| RunClass {
                block_bytes,
                run_bytes,
                blocks: (run_bytes / block_bytes) as u32,
            })
            .to_vec();
        if reversed {
            classes.reverse();
        }
        let last = classes.len() - 1;
        let mut liveness = Liveness::new(classes);
        for run in &self.runs {
            let class = if reversed { last - run.class } else { run.class } as u16;
            let (live, cached) = (bits(&run.live), bits(&run.cached));
            let PlainRun { address, shard, serial, .. } = *run;
            liveness.run(Run { address, class, shard, serial, live: &live, cached: &cached });
        }
        self.large.iter().for_each(|block| liveness.block(*block));
        liveness
    }

    /// The allocator's summary, counted block by block.
    pub fn summary(&self) -> AllocatorSummary {
        let mut rows: BTreeMap<(u32, u64), ClassRow> = BTreeMap::new();
        let mut shards: BTreeMap<u32, Shard> = BTreeMap::new();
        for run in &self.runs {
            let (size_bytes, run_bytes) = CLASSES[run.class];
            let row =
                rows.entry((run.shard, size_bytes)).or_insert(ClassRow { size_bytes, ..ClassRow::default() });
            row.runs += 1;
            row.run_bytes += run_bytes;
            for index in 0..run.live.len() {
                row.live_blocks += u64::from(run.live[index]);
                row.live_bytes += if run.live[index] { size_bytes } else { 0 };
                row.cached_blocks += u64::from(run.cached[index]);
            }
        }
        let mut cached_bytes: u64 = rows.values().map(|row| row.cached_blocks * row.size_bytes).sum();
        for block in &self.large {
            let size_bytes = block.class_bytes;
            let row = rows
                .entry((block.shard, size_bytes))
                .or_insert(ClassRow { size_bytes, ..ClassRow::default() });
            row.run_bytes += block.held_bytes;
            let shard = shards.entry(block.shard).or_default();
            if block.cached {
                row.cached_blocks += 1;
                cached_bytes += block.usable_bytes;
            } else {
                row.live_blocks += 1;
                row.live_bytes += block.usable_bytes;
                shard.large_blocks += 1;
                shard.large_bytes += block.usable_bytes;
            }
        }
        let places = self.places();
        let cached_blocks = rows.values().map(|row| row.cached_blocks).sum();
        for ((shard, _), row) in rows {
            shards.entry(shard).or_default().classes.push(row);
        }
        shards.iter_mut().for_each(|(id, shard)| shard.id = *id);
        AllocatorSummary {
            live_blocks: places.len() as u64,
            live_bytes: places.iter().map(|place| place.4).sum(),
            cached_blocks,
            cached_bytes,
            shards: shards.into_values().collect(),
            ..allocator("jemalloc", "/usr/lib/libjemalloc.so.2")
        }
    }

    /// A snapshot of this heap alone, in a process with the given identity.
    pub fn snapshot(&self, target: Target, taken_at: f64) -> Snapshot {
        let summary = Summary {
            schema: SCHEMA.to_owned(),
            target,
            taken_at,
            allocators: vec![self.summary()],
            ..Summary::default()
        };
        Snapshot::checked(summary, vec![self.deliver(false)]).expect("the oracle and the table agree")
    }
}

/// An allocator that has nothing.
pub fn allocator(name: &str, module: &str) -> AllocatorSummary {
    let empty = serde_json::json!({
        "name": name, "version": "5.3.0", "module": module, "provenance": Provenance::Symbols,
        "complete": true, "verified": true, "anomalies": [], "live_blocks": 0, "live_bytes": 0,
        "cached_blocks": 0, "cached_bytes": 0, "metadata_bytes": 0, "shards": [],
    });
    serde_json::from_value(empty).expect("all required fields are there")
}

/// A process as it is found on Linux.
pub fn process(pid: i32) -> Target {
    Target {
        kind: "live".to_owned(),
        pid,
        name: "adserver".to_owned(),
        exe: "/usr/sbin/adserver".to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        threads: 4,
        start_ticks: Some(777),
        boot_id: Some("6f1d9c1e".to_owned()),
        build_id: Some("00ff".to_owned()),
    }
}

fn bits(flags: &[bool]) -> Vec<u64> {
    let word = |flags: &[bool]| (0..).zip(flags).map(|(bit, flag)| u64::from(*flag) << bit).sum();
    flags.chunks(64).map(word).collect()
}

/// Runs and blocks at some of a few places, of few serials and shards, so that two heaps have much in common.
pub fn heap() -> impl Strategy<Value = Heap> {
    let runs = prop::collection::vec(prop::option::of(run()), 8);
    let large = prop::collection::vec(prop::option::of(large_block()), 6);
    (runs, large).prop_map(|(runs, large)| {
        let runs = (0..).zip(runs).filter_map(|(slot, run)| {
            run.map(|run| PlainRun { address: RUNS_AT + slot * RUN_SLOT_BYTES, ..run })
        });
        let large = (0..).zip(large).filter_map(|(slot, block)| {
            block.map(|block| Block { address: LARGE_AT + slot * LARGE_SLOT_BYTES, ..block })
        });
        Heap { runs: runs.collect(), large: large.collect() }
    })
}

/// A heap and what became of it: some runs and blocks as they were, some with other bits, the rest anything.
pub fn heap_and_later() -> impl Strategy<Value = (Heap, Heap)> {
    (heap(), heap(), prop::collection::vec(0..3_u8, 14)).prop_map(|(first, other, fates)| {
        let mut later = other.clone();
        for (run, fate) in first.runs.iter().zip(&fates) {
            let Some(at) = later.runs.iter().position(|new| new.address == run.address) else { continue };
            match fate {
                0 => later.runs[at] = run.clone(),
                1 if later.runs[at].class == run.class => {
                    (later.runs[at].serial, later.runs[at].shard) = (run.serial, run.shard);
                }
                _ => {}
            }
        }
        for (block, fate) in first.large.iter().zip(&fates[8..]) {
            let Some(at) = later.large.iter().position(|new| new.address == block.address) else { continue };
            match fate {
                0 => later.large[at] = *block,
                1 => (later.large[at].serial, later.large[at].shard) = (block.serial, block.shard),
                _ => {}
            }
        }
        (first, later)
    })
}

fn run() -> impl Strategy<Value = PlainRun> {
    (0..CLASSES.len(), 0..3_u32, 0..3_u64, 0..4_u8, any::<u64>()).prop_map(
        |(class, shard, serial, fill, seed)| {
            let blocks = (CLASSES[class].1 / CLASSES[class].0) as usize;
            let mut random = Random(seed | 1);
            let live: Vec<bool> =
                (0..blocks).map(|_| fill == 0 || (fill > 1 && random.below(3) > 0)).collect();
            let cached = live.iter().map(|live| !live && random.below(8) == 0).collect();
            PlainRun { address: 0, class, shard, serial, live, cached }
        },
    )
}

fn large_block() -> impl Strategy<Value = Block> {
    (0..LARGE.len(), any::<bool>(), 0..3_u32, 0..2_u64, 0..4_u8).prop_map(
        |(size, has_class, shard, serial, cached)| Block {
            address: 0,
            usable_bytes: LARGE[size],
            held_bytes: LARGE[size] + 4096,
            class_bytes: if has_class { LARGE[size] } else { 0 },
            shard,
            serial,
            cached: cached == 0,
        },
    )
}

/// Marsaglia's xorshift.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
