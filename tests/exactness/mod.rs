//! Whether a snapshot file says what a ledger and its allocator say of themselves.

#![allow(dead_code, reason = "each test file uses its part")]

use crate::ledger::Ledger;
use crate::outside::{Folder, heaptap};
use heaptap::snapshot::schema::AllocatorSummary;
use heaptap::snapshot::{self, Snapshot};
use std::collections::BTreeSet;

/// Takes a snapshot by running heaptap; the answer must be whole.
pub fn snap(pid: u32) -> Snapshot {
    let folder = Folder::new();
    let file = folder.path("moment.heaptap");
    let path = file.display().to_string();
    // On a busy machine a pause may be long; that is not what is asked here.
    let told = heaptap(&["snap", &pid.to_string(), "-o", &path, "--pause-budget", "10s"]);
    assert_eq!(told.code, 0, "{told:?}");
    snapshot::read(&file).expect("it was written just now")
}

/// The jemalloc of a snapshot, and its place among the allocators.
pub fn jemalloc(snapshot: &Snapshot) -> (usize, &AllocatorSummary) {
    let mut all = snapshot.summary.allocators.iter().enumerate();
    all.find(|(_, allocator)| allocator.name == "jemalloc").expect("jemalloc was found")
}

/// Addresses of all blocks that a snapshot calls live.
fn live(snapshot: &Snapshot) -> BTreeSet<u64> {
    let liveness = &snapshot.liveness[jemalloc(snapshot).0];
    let mut live = BTreeSet::new();
    for (index, address) in liveness.runs.address.iter().enumerate() {
        let class = liveness.run_classes[usize::from(liveness.runs.class[index])];
        for (word, bits) in (0_u64..).zip(liveness.runs.words(index)) {
            let set = (0..64).filter(|bit| bits & (1 << bit) != 0);
            live.extend(set.map(|bit| address + (word * 64 + bit) * class.block_bytes));
        }
    }
    live.extend(liveness.large.blocks.iter().filter(|block| !block.cached).map(|block| block.address));
    live
}

/// Takes a snapshot of a ledger at rest and compares every block with its table and every cell with jemalloc's
/// own statistics. The ledger must have threads only that it knows of.
pub fn assert_exact(ledger: &mut Ledger) -> Snapshot {
    let table = ledger.table();
    let statistics = ledger.statistics();
    let snapshot = snap(ledger.pid());
    let allocator = jemalloc(&snapshot).1;
    assert!(allocator.complete && allocator.verified, "{:?}", allocator.anomalies);
    let live = live(&snapshot);
    let missing: Vec<_> = table.difference(&live).collect();
    assert!(missing.is_empty(), "{} blocks of the program are missing: {missing:x?}", missing.len());
    // The C library keeps a few blocks of its own, such as its buffers.
    let extra = live.len() - table.len();
    assert!(extra <= 8, "{extra} blocks are live that the program does not know");
    let mut cells = 0;
    for (arena, size, blocks) in statistics.cells() {
        let shard = allocator.shards.iter().find(|shard| shard.id == arena);
        let row = shard.and_then(|shard| shard.classes.iter().find(|row| row.size_bytes == size));
        let walked = row.map_or(0, |row| row.live_blocks + row.cached_blocks + row.overhead_blocks);
        assert_eq!(walked, blocks, "arena {arena}, size class {size}");
        cells += 1;
    }
    assert!(cells > 200, "only {cells} cells were compared");
    snapshot
}
