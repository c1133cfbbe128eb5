//! The census: what was walked, added up.
//!
//! Totals come from the blocks themselves, one by one; [`crate::snapshot::Snapshot::checked`] proves that they
//! agree with what the summary says. After this module nothing knows which allocator it was, but as a label.

mod residency;

pub use residency::{Residency, ResidencyError};

use crate::allocator::known::KnownHeap;
use crate::allocator::{Allocator, CacheHead, Claim, ClaimKind, Overhead, Provenance, WalkOutcome};
use crate::capture::Capture;
use crate::snapshot::schema::{
    self, AddressSpaceRow, AllocatorSummary, ClassRow, LiveBound, OtherHeap, ResidentRow, SCHEMA, Shard,
    Summary,
};
use crate::snapshot::{Cell, Inconsistency, Liveness, Snapshot};
use std::collections::BTreeMap;

/// One allocator, walked.
#[derive(Debug, Clone)]
pub struct Walked {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Its module.
    pub module: String,
    /// How its layout was learnt.
    pub provenance: Provenance,
    /// How it was found and proved.
    pub evidence: Vec<String>,
    /// What the walk says of itself.
    pub outcome: WalkOutcome,
    /// The blocks.
    pub liveness: Liveness,
    /// Present bytes of its records.
    pub metadata_bytes: u64,
    /// Words of threads' caches that tell allocations and frees.
    pub cache_heads: Vec<CacheHead>,
}

impl Walked {
    /// Walks `allocator` in `capture`.
    pub fn of(allocator: &dyn Allocator, capture: &Capture) -> Self {
        let mut liveness = Liveness::default();
        let mut outcome = allocator.walk(&capture.memory, &capture.thread_pointers(), &mut liveness);
        liveness.run_classes.clone_from(&outcome.run_classes);
        liveness.sort();
        outcome.complete &= !capture.cut_short;
        let metadata = allocator.metadata(&capture.memory, &capture.thread_pointers());
        let present =
            metadata.iter().flat_map(|range| crate::memory::Memory::present(&capture.memory, *range));
        let merged = heaptap_platform::merge_ranges(present.collect(), 0);
        let copied_bytes = merged.iter().map(heaptap_platform::AddressRange::len_bytes).sum();
        Self {
            name: allocator.name(),
            version: allocator.version(),
            module: allocator.module().to_owned(),
            provenance: allocator.provenance(),
            evidence: allocator.evidence().into_iter().chain(capture.notes.iter().cloned()).collect(),
            metadata_bytes: outcome.metadata_bytes.unwrap_or(copied_bytes),
            outcome,
            liveness,
            cache_heads: allocator.cache_heads(&capture.memory, &capture.thread_pointers()),
        }
    }

    fn summary(&self) -> AllocatorSummary {
        let totals = self.liveness.totals();
        let sum = totals.sum();
        let mut shards: BTreeMap<u32, Shard> =
            self.outcome.shards.iter().map(|id| (*id, Shard { id: *id, ..Shard::default() })).collect();
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
            shards
                .entry(*shard)
                .or_insert_with(|| Shard { id: *shard, ..Shard::default() })
                .classes
                .push(row);
        }
        for (shard, large) in &totals.large {
            let shard = shards.entry(*shard).or_insert_with(|| Shard { id: *shard, ..Shard::default() });
            shard.large_blocks = large.live_blocks;
            shard.large_bytes = large.live_bytes;
        }
        let outcome = &self.outcome;
        for own in &outcome.overhead {
            add_overhead(&mut shards, own);
        }
        AllocatorSummary {
            name: self.name.to_owned(),
            version: self.version.clone(),
            provenance: self.provenance,
            module: self.module.clone(),
            evidence: self.evidence.iter().chain(&outcome.notes).cloned().collect(),
            complete: outcome.complete && !outcome.caches_unknown,
            live_bound: live_bound(outcome),
            verified: self.is_verified(),
            structures_checked: outcome.structures_checked,
            cells_compared: outcome.cells_compared,
            cells_differing: outcome.cells_differing,
            blocks_in_motion_max: outcome.blocks_in_motion_max,
            anomalies: outcome.anomalies.clone(),
            live_blocks: sum.live_blocks,
            live_bytes: sum.live_bytes,
            cached_blocks: sum.cached_blocks,
            cached_bytes: sum.cached_bytes,
            overhead_blocks: outcome.overhead.len() as u64,
            overhead_bytes: outcome
                .overhead
                .iter()
                .map(|block| block.usable_bytes)
                .fold(0, u64::saturating_add),
            thread_caches: outcome.thread_caches,
            metadata_bytes: self.metadata_bytes,
            address_space: address_space(&outcome.claims),
            own_figures: outcome
                .own_figures
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
            shards: shards.into_values().collect(),
        }
    }

    /// Whether all that was to be checked was, and nothing spoke against it.
    fn is_verified(&self) -> bool {
        let outcome = &self.outcome;
        outcome.complete
            && !outcome.caches_unknown
            && outcome.structures_checked > 0
            && outcome.structures_broken == 0
            && outcome.cells_differing == 0
            && outcome.blocks_in_motion_max == 0
            && outcome.anomalies.is_empty()
    }
}

/// Which side of the truth the live counts of a partial walk are on.
const fn live_bound(outcome: &WalkOutcome) -> Option<LiveBound> {
    match (outcome.complete, outcome.caches_unknown) {
        (true, false) => None,
        (false, false) => Some(LiveBound::Lower),
        (true, true) => Some(LiveBound::Upper),
        (false, true) => Some(LiveBound::Neither),
    }
}

/// Everything known of one moment, added up.
pub fn snapshot(
    target: schema::Target,
    capture: &Capture,
    walked: Vec<Walked>,
    known: &[KnownHeap],
    residency: Option<Residency>,
) -> Result<Snapshot, Inconsistency> {
    let mut missing = capture.lacks.clone();
    if capture.in_motion {
        missing.push(
            "the allocator held a lock at every attempt to stop the target between its changes".to_owned(),
        );
    }
    missing.extend(residency.as_ref().and_then(Residency::hidden_by_swap));
    let summary = Summary {
        schema: SCHEMA.to_owned(),
        target,
        pause_ms: capture.pauses.iter().map(|pause| pause.stopped_us).fold(0.0, |a: f64, b| a.max(b as f64))
            / 1000.0,
        stops: u32::try_from(capture.pauses.len()).unwrap_or(u32::MAX),
        taken_at: capture.taken_at,
        allocators: walked.iter().map(Walked::summary).collect(),
        other_heaps: known.iter().map(other_heap).collect(),
        resident: residency.as_ref().map(Residency::rows).unwrap_or_default(),
        resident_bytes: residency.as_ref().map(|residency| residency.kernel_bytes),
        swapped_bytes: residency.as_ref().map(|residency| residency.swapped_bytes).filter(|bytes| *bytes > 0),
        types: Vec::new(),
        missing,
    };
    Snapshot::checked(summary, walked.into_iter().map(|walked| walked.liveness).collect())
}

/// Books a block of the allocator's own in its class; a class may have no other block.
fn add_overhead(shards: &mut BTreeMap<u32, Shard>, own: &Overhead) {
    let shard = shards.entry(own.shard).or_insert_with(|| Shard { id: own.shard, ..Shard::default() });
    let at = shard.classes.partition_point(|row| row.size_bytes < own.class_bytes);
    match shard.classes.get_mut(at).filter(|row| row.size_bytes == own.class_bytes) {
        Some(row) => row.overhead_blocks += 1,
        None => {
            let row = ClassRow { size_bytes: own.class_bytes, overhead_blocks: 1, ..ClassRow::default() };
            shard.classes.insert(at, row);
        }
    }
}

/// The address space claimed, by use.
fn address_space(claims: &[Claim]) -> Vec<AddressSpaceRow> {
    const KINDS: [(ClaimKind, &str); 5] = [
        (ClaimKind::InUse, "in_use"),
        (ClaimKind::Dirty, "dirty"),
        (ClaimKind::Muzzy, "muzzy"),
        (ClaimKind::Retained, "retained"),
        (ClaimKind::Metadata, "metadata"),
    ];
    let bytes = |kind| {
        let of_kind = claims.iter().filter(|claim| claim.kind == kind);
        of_kind.map(|claim| claim.range.len_bytes()).fold(0, u64::saturating_add)
    };
    KINDS
        .into_iter()
        .map(|(kind, name)| AddressSpaceRow { kind: name.to_owned(), bytes: bytes(kind) })
        .collect()
}

/// A heap that was recognised.
fn other_heap(heap: &KnownHeap) -> OtherHeap {
    OtherHeap {
        name: heap.name.to_owned(),
        kind: heap.kind.to_owned(),
        module: heap.module.clone(),
        evidence: heap.evidence.clone(),
        bytes: heap.bytes(),
    }
}

/// A row of the account of resident memory.
fn row(kind: &str, bytes: i64) -> ResidentRow {
    ResidentRow { kind: kind.to_owned(), bytes }
}
