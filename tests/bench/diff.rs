//! What a snapshot file costs, and the difference of two, for a heap of the size of a large Redis.
//!
//! Run by `cargo bench --bench diff`. Every figure comes with what it is to be measured against, taken in the
//! same run: the bytes of allocator metadata that the heap has, the time to read as many bytes from files and
//! checksum them, and for a heap full of random holes the entropy of its bitmap.

use heaptap::allocator::{Block, Provenance, Run, RunClass, Sink};
use heaptap::growth::{self, GrowthOptions, Observation};
use heaptap::snapshot::schema::{AllocatorSummary, ClassRow, SCHEMA, Shard, Summary, Target};
use heaptap::snapshot::{self, Liveness, Overwrite, Snapshot};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs of the heap that the targets were set for.
const RUNS: usize = 437_651;
/// jemalloc keeps 128 bytes for a run and 8 bytes for each of its pages.
const RUN_RECORD_BYTES: u64 = 128;
const PAGE_RECORD_BYTES: u64 = 8;
const PAGE_BYTES: u64 = 4096;
/// Each time is the best of so many.
const ROUNDS: usize = 7;

/// Block bytes, run bytes, and how many of 16 runs are of that class.
const CLASSES: [(u64, u64, u32); 8] = [
    (16, 4096, 2),
    (32, 4096, 4),
    (48, 12288, 2),
    (64, 4096, 4),
    (80, 20480, 1),
    (96, 12288, 1),
    (128, 4096, 1),
    (512, 4096, 1),
];

/// A heap to be made.
struct Heap {
    name: &'static str,
    /// Of 1000 runs, how many have holes.
    holed_per_mille: u64,
    /// In those, one block of so many is free.
    free_one_in: u64,
    /// Every run has a serial number of its own, nearly in address order.
    own_serials: bool,
}

const HEAPS: [Heap; 4] = [
    Heap { name: "packed", holed_per_mille: 0, free_one_in: 3, own_serials: false },
    Heap { name: "mostly full", holed_per_mille: 50, free_one_in: 3, own_serials: false },
    Heap { name: "mostly full, own serials", holed_per_mille: 50, free_one_in: 3, own_serials: true },
    Heap { name: "1/3 free at random", holed_per_mille: 1000, free_one_in: 3, own_serials: true },
];

/// Marsaglia's xorshift: the same heap in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn main() {
    let directory = std::env::temp_dir().join(format!("heaptap-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for temporary files");
    for heap in &HEAPS {
        measure(heap, &directory);
    }
    std::fs::remove_dir_all(&directory).expect("the directory can be removed");
}

fn measure(heap: &Heap, directory: &Path) {
    let first = moment(&blocks(heap, false), 1000.0);
    let last = moment(&blocks(heap, true), 1060.0);
    let metadata = metadata_bytes(&first.liveness);
    let paths = [directory.join("first.heaptap"), directory.join("last.heaptap")];
    let (write_ms, file_bytes) =
        best_ms(|| snapshot::write(&first, &paths[0], Overwrite::Snapshots).expect("a file"));
    snapshot::write(&last, &paths[1], Overwrite::Snapshots).expect("a file");
    let (read_ms, read) = best_ms(|| snapshot::read(&paths[0]).expect("the same"));
    assert_eq!(read, first, "what was written is read");
    let (growth_ms, growth) = best_ms(|| between(&first, &last));
    let (diff_ms, from_files) = best_ms(|| diff(&paths));
    assert_eq!(growth, from_files, "files and memory give the same growth");
    let plain_ms = plain_read_ms(directory, metadata);

    let total = first.liveness[0].totals().sum();
    let slots: u64 =
        first.liveness[0].runs.class.iter().map(|&class| u64::from(class_of(class).blocks)).sum();
    println!("{}: {} runs, {} of {slots} blocks live", heap.name, total.runs, total.live_blocks);
    println!(
        "  file            {file_bytes:>9} bytes = {:.2} % of {metadata} bytes of metadata",
        percent(file_bytes, metadata)
    );
    if heap.holed_per_mille == 1000 {
        let entropy = entropy_bytes(slots, 1.0 / heap.free_one_in as f64);
        println!(
            "                  = {:.3} times the {entropy} bytes of entropy of the bitmap",
            file_bytes as f64 / entropy as f64
        );
    }
    println!("  write           {write_ms:>9.1} ms");
    println!("  read            {read_ms:>9.1} ms");
    println!(
        "  growth          {growth_ms:>9.1} ms, {} rows, {:+} bytes",
        growth.rows.len(),
        growth.total_delta_bytes
    );
    println!(
        "  diff of 2 files {diff_ms:>9.1} ms = {:.2} times reading and checksumming 2 files of metadata ({plain_ms:.1} ms)",
        diff_ms / plain_ms
    );
}

fn diff(paths: &[PathBuf; 2]) -> growth::Growth {
    let (first, last) = rayon::join(|| snapshot::read(&paths[0]), || snapshot::read(&paths[1]));
    between(&first.expect("a snapshot"), &last.expect("a snapshot"))
}

fn between(first: &Snapshot, last: &Snapshot) -> growth::Growth {
    let moments = [Observation::of("first", first), Observation::of("last", last)];
    growth::between(&moments, &GrowthOptions::default()).expect("two moments of one process")
}

/// The least that a tool does which keeps the metadata itself: read two files of it, and know they are whole.
fn plain_read_ms(directory: &Path, metadata_bytes: u64) -> f64 {
    let paths = ["raw.first", "raw.last"].map(|name| directory.join(name));
    let bytes: Vec<u8> = (0..metadata_bytes).map(|index| (index / 7) as u8).collect();
    paths.iter().for_each(|path| std::fs::write(path, &bytes).expect("a file"));
    let read = |path: &PathBuf| crc32fast::hash(&std::fs::read(path).expect("the file"));
    best_ms(|| rayon::join(|| read(&paths[0]), || read(&paths[1]))).0
}

fn best_ms<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut best: Option<(f64, T)> = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let result = work();
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        if best.as_ref().is_none_or(|(best_ms, _)| ms < *best_ms) {
            best = Some((ms, result));
        }
    }
    best.expect("at least one round")
}

fn class_of(class: u16) -> RunClass {
    let (block_bytes, run_bytes, _) = CLASSES[usize::from(class)];
    RunClass { block_bytes, run_bytes, blocks: (run_bytes / block_bytes) as u32 }
}

/// The heap; `later` with one block of 500 turned over and 2000 runs more.
fn blocks(heap: &Heap, later: bool) -> Liveness {
    let mut liveness = Liveness::new((0..CLASSES.len() as u16).map(class_of).collect());
    let shares: u32 = CLASSES.iter().map(|class| class.2).sum();
    let (mut random, mut turnover) = (Random(0x9e37_79b9_7f4a_7c15), Random(0x2545_f491_4f6c_dd1d));
    let (mut address, mut serial) = (0x7f10_0000_0000, 1000);
    for _ in 0..RUNS + if later { 2000 } else { 0 } {
        let mut pick = random.below(u64::from(shares)) as u32;
        let class = (0..).zip(CLASSES).find(|(_, class)| {
            let found = pick < class.2;
            pick = pick.saturating_sub(class.2);
            found
        });
        let class: u16 = class.expect("shares cover all").0;
        let RunClass { run_bytes, blocks, .. } = class_of(class);
        if random.below(4000) == 0 {
            address += PAGE_BYTES * random.below(5000);
        }
        if heap.own_serials {
            serial += random.below(3);
        }
        let mut live = vec![0_u64; blocks.div_ceil(64) as usize];
        let holed = random.below(1000) < heap.holed_per_mille;
        for block in 0..blocks as usize {
            let free = holed && random.below(heap.free_one_in) == 0;
            let turned = later && turnover.below(500) == 0;
            live[block / 64] |= u64::from(free == turned) << (block % 64);
        }
        let shard = random.below(4) as u32;
        liveness.run(Run { address, class, shard, serial, live: &live, cached: &[] });
        address += run_bytes;
    }
    for large in 0..if later { 220 } else { 200 } {
        let usable_bytes = 16384 << (large % 8);
        liveness.block(Block {
            address: address + (large << 24),
            usable_bytes,
            held_bytes: usable_bytes + PAGE_BYTES,
            class_bytes: usable_bytes,
            shard: 0,
            serial: serial + large,
            cached: false,
        });
    }
    liveness
}

fn moment(liveness: &Liveness, taken_at: f64) -> Snapshot {
    let totals = liveness.totals();
    let sum = totals.sum();
    let mut shards: BTreeMap<u32, Shard> = BTreeMap::new();
    for (cell, total) in &totals.cells {
        let shard = shards.entry(cell.shard).or_insert_with(|| Shard { id: cell.shard, ..Shard::default() });
        shard.classes.push(ClassRow {
            size_bytes: cell.size_bytes,
            live_blocks: total.live_blocks,
            live_bytes: total.live_bytes,
            runs: total.runs,
            run_bytes: total.run_bytes,
            ..ClassRow::default()
        });
        let large = totals.large.get(&cell.shard).copied().unwrap_or_default();
        (shard.large_blocks, shard.large_bytes) = (large.live_blocks, large.live_bytes);
    }
    let allocator = AllocatorSummary {
        name: "jemalloc".to_owned(),
        live_blocks: sum.live_blocks,
        live_bytes: sum.live_bytes,
        shards: shards.into_values().collect(),
        ..no_allocator()
    };
    let target = Target { kind: "live".to_owned(), pid: 4121, start_ticks: Some(77), ..Target::default() };
    let summary = Summary {
        schema: SCHEMA.to_owned(),
        target,
        taken_at,
        allocators: vec![allocator],
        ..Summary::default()
    };
    Snapshot::checked(summary, vec![liveness.clone()]).expect("a sound snapshot")
}

fn no_allocator() -> AllocatorSummary {
    serde_json::from_value(serde_json::json!({
        "name": "", "version": "", "provenance": Provenance::Symbols, "complete": true, "verified": true,
        "anomalies": [], "live_blocks": 0, "live_bytes": 0, "cached_blocks": 0, "cached_bytes": 0,
        "metadata_bytes": 0, "shards": [],
    }))
    .expect("the required fields")
}

fn metadata_bytes(liveness: &[Liveness]) -> u64 {
    let runs = liveness.iter().flat_map(|liveness| &liveness.runs.class);
    runs.map(|&class| RUN_RECORD_BYTES + class_of(class).run_bytes / PAGE_BYTES * PAGE_RECORD_BYTES).sum()
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// Shannon's bound for so many independent bits, each set with probability `p`.
fn entropy_bytes(bits: u64, p: f64) -> u64 {
    let bits_each = -p * p.log2() - (1.0 - p) * (1.0 - p).log2();
    (bits as f64 * bits_each / 8.0) as u64
}
