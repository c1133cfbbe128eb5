//! Moments made by hand: a program with a leak in one size class, much ordinary traffic, and a large buffer.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use heaptap::allocator::{Anomaly, Block, Provenance, Run, RunClass, Sink};
use heaptap::snapshot::schema::{
    AddressSpaceRow, AllocatorSummary, ClassRow, LiveBound, ResidentRow, SCHEMA, Shard, Summary, Target,
};
use heaptap::snapshot::{Cell, Liveness, Snapshot};
use std::collections::BTreeMap;

/// Classes of runs: block bytes, run bytes, blocks.
const CLASSES: [(u64, u64, u32); 4] = [(16, 4096, 256), (64, 4096, 64), (640, 20480, 32), (14336, 28672, 2)];
const RUN_SPACE_BYTES: u64 = 1 << 16;
const BASE: u64 = 0x7f00_0000_0000;

/// 2026-11-23 09:14:05 UTC.
pub const BEGIN_S: f64 = 1_795_425_245.0;

/// The moment `seconds` after the first, with `leaked` more blocks of 640 bytes.
pub fn snapshot(seconds: u32, leaked: u32) -> Snapshot {
    let classes = CLASSES.map(|(block_bytes, run_bytes, blocks)| RunClass { block_bytes, run_bytes, blocks });
    let mut liveness = Liveness::new(classes.to_vec());
    let counts =
        [(0, 0, 1000), (0, 1, 700 + seconds % 7), (1, 1, 90), (0, 2, 320 + leaked), (1, 2, 64), (1, 3, 5)];
    for (place, (shard, class, live_blocks)) in (0..).zip(counts) {
        add_runs(&mut liveness, place, shard, class, live_blocks);
    }
    let large = |address: u64, usable_bytes: u64| Block {
        address,
        usable_bytes,
        held_bytes: usable_bytes + 4096,
        class_bytes: usable_bytes,
        shard: 1,
        serial: address,
        cached: false,
    };
    liveness.block(large(BASE + (1 << 40), 2 << 20));
    if leaked > 0 {
        liveness.block(large(BASE + (2 << 40), 64 << 20));
    }
    liveness.sort();
    let summary = summary(seconds, &liveness);
    Snapshot::checked(summary, vec![liveness]).expect("a handmade moment is consistent")
}

/// Runs with `live_blocks` live blocks in all, and one cached block after them if there is room.
fn add_runs(liveness: &mut Liveness, place: u64, shard: u32, class: u16, live_blocks: u32) {
    let blocks = CLASSES[usize::from(class)].2;
    let runs = live_blocks.div_ceil(blocks);
    for run in 0..runs {
        let live_here = blocks.min(live_blocks - run * blocks);
        let words: Vec<u64> =
            (0..blocks.div_ceil(64)).map(|word| bits(live_here.saturating_sub(word * 64).min(64))).collect();
        let mut cached = vec![0; words.len()];
        if live_here < blocks {
            cached[live_here as usize / 64] = 1 << (live_here % 64);
        }
        let address = BASE + (place << 32) + u64::from(run) * RUN_SPACE_BYTES;
        liveness.run(Run { address, class, shard, serial: address, live: &words, cached: &cached });
    }
}

const fn bits(count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

fn summary(seconds: u32, liveness: &Liveness) -> Summary {
    let totals = liveness.totals();
    let sum = totals.sum();
    let mut shards: BTreeMap<u32, Shard> = BTreeMap::new();
    for (Cell { shard, size_bytes }, cell) in &totals.cells {
        let row = ClassRow {
            size_bytes: *size_bytes,
            live_blocks: cell.live_blocks,
            live_bytes: cell.live_bytes,
            cached_blocks: cell.cached_blocks,
            overhead_blocks: 0,
            runs: cell.runs,
            run_bytes: cell.run_bytes,
        };
        let shard = shards.entry(*shard).or_insert_with(|| Shard { id: *shard, ..Shard::default() });
        shard.classes.push(row);
    }
    for (shard, large) in &totals.large {
        let shard = shards.entry(*shard).or_default();
        shard.large_blocks = large.live_blocks;
        shard.large_bytes = large.live_bytes;
    }
    let resident = resident(sum.live_bytes, sum.cached_bytes);
    Summary {
        schema: SCHEMA.to_owned(),
        target: target(),
        pause_ms: 15.62 + f64::from(seconds) / 100.0,
        stops: 1,
        taken_at: BEGIN_S + f64::from(seconds),
        other_heaps: Vec::new(),
        resident_bytes: u64::try_from(resident.iter().map(|row| row.bytes).sum::<i64>()).ok(),
        resident,
        swapped_bytes: None,
        types: Vec::new(),
        missing: Vec::new(),
        allocators: vec![AllocatorSummary {
            name: "jemalloc".to_owned(),
            version: "5.3.0".to_owned(),
            provenance: Provenance::Probed,
            module: "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2".to_owned(),
            evidence: vec![
                "the version string names 5.3.0".to_owned(),
                "the radix tree has 2 levels".to_owned(),
            ],
            complete: true,
            live_bound: None,
            verified: true,
            structures_checked: 412_873,
            cells_compared: 1_204,
            cells_differing: 0,
            blocks_in_motion_max: 0,
            anomalies: Vec::new(),
            live_blocks: sum.live_blocks,
            live_bytes: sum.live_bytes,
            cached_blocks: sum.cached_blocks,
            cached_bytes: sum.cached_bytes,
            overhead_blocks: 8,
            overhead_bytes: 8 * 14336,
            thread_caches: 8,
            metadata_bytes: 3 << 20,
            own_figures: std::collections::BTreeMap::new(),
            address_space: vec![AddressSpaceRow {
                kind: "in_use".to_owned(),
                bytes: sum.live_bytes + 91_344,
            }],
            shards: shards.into_values().collect(),
        }],
    }
}

fn target() -> Target {
    Target {
        kind: "live".to_owned(),
        pid: 4121,
        name: "ad-server".to_owned(),
        exe: "/srv/ads/bin/ad-server".to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        threads: 8,
        start_ticks: Some(112_233),
        boot_id: Some("4a7e1f00-0000-4000-8000-000000000001".to_owned()),
        build_id: Some("c0ffee0123456789".to_owned()),
    }
}

fn resident(live_bytes: u64, cached_bytes: u64) -> Vec<ResidentRow> {
    let row = |kind: &str, bytes: u64| ResidentRow { kind: kind.to_owned(), bytes: bytes.cast_signed() };
    vec![
        row("live", live_bytes),
        row("cached", cached_bytes),
        row("free_in_slabs", 91_344),
        row("dirty", 5 << 20),
        row("muzzy", 0),
        row("retained", 0),
        row("metadata", 3 << 20),
        row("stacks", 180_224),
        row("mapped_files", 4_210_688),
        row("shared", 8192),
        row("other_anonymous", 1 << 20),
        ResidentRow { kind: "unexplained".to_owned(), bytes: -4096 },
    ]
}

/// A moment that must not be taken at face value.
pub fn doubtful() -> Summary {
    let mut summary = snapshot(0, 0).summary;
    summary.stops = 3;
    summary.resident_bytes = Some(1 << 30);
    summary.missing = vec!["the arena 7 could not be read: its pages are not present".to_owned()];
    for allocator in &mut summary.allocators {
        allocator.complete = false;
        allocator.live_bound = Some(LiveBound::Lower);
        allocator.verified = false;
        allocator.cells_differing = 3;
        allocator.blocks_in_motion_max = 34;
        allocator.anomalies = (1..=7)
            .map(|number| Anomaly {
                address: BASE + number * 0x80,
                what: format!("extent of kind {number}"),
                count: if number == 1 { 1 } else { 1000 * number },
            })
            .collect();
    }
    summary
}
