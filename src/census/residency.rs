//! Residency: what each resident page of a target is used for, so that the parts add up to the kernel's figure.
//!
//! The page table is read while the target runs. What changes meanwhile, and what the kernel's own counters
//! have not booked yet, ends up in the row `unexplained`, which may be negative for that reason. For small targets
//! the kernel is asked to count page by page, so that its counters' lag does not show.

use super::{Walked, row};
use crate::allocator::known::KnownHeap;
use crate::allocator::{Claim, ClaimKind};
use crate::snapshot::schema::ResidentRow;
use heaptap_platform::{
    AddressRange, Mapping, MappingKind, PageDetail, Process, ProcessError, ReadError, merge_ranges,
};
use std::collections::BTreeMap;

/// Uses of resident memory in the order in which they are shown.
const KINDS: [&str; 13] = [
    "live",
    "cached",
    "free_in_slabs",
    "dirty",
    "muzzy",
    "retained",
    "metadata",
    "stacks",
    "mapped_files",
    "shared",
    "other_anonymous",
    UNDIVIDED,
    "unexplained",
];

/// Resident memory of mappings that allocators have parts of, where the system tells only how much of a mapping is resident and
/// not which pages.
const UNDIVIDED: &str = "undivided";
/// What is of no use that is known better; other heaps' regions are told apart from it.
const OTHER_ANONYMOUS: &str = "other_anonymous";

/// Up to so many resident bytes the kernel is asked to count page by page: it holds a lock that the target needs for
/// mapping memory, about 10 ms for each GiB.
const COUNTED_BYTES_MAX: u64 = 256 << 20;

/// The account of resident memory.
#[derive(Debug, Clone, Default)]
pub struct Residency {
    /// Resident bytes as the kernel's counters have them.
    pub kernel_bytes: u64,
    /// Bytes of what allocators hold that are in swap.
    pub swapped_bytes: u64,
    /// Of those, bytes of their records.
    swapped_metadata_bytes: u64,
    /// Bytes by use.
    bytes: BTreeMap<&'static str, u64>,
    /// Heaps that are recognised and not walked: a row each.
    other_heaps: Vec<&'static str>,
}

/// Why the account could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ResidencyError {
    /// The list of mappings or the counters could not be read.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The page table could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Residency {
    /// Measures `process`, whose allocators were `walked` a moment ago beside heaps that are `known`;
    /// `stack_pointers` are those of its threads then.
    pub fn measure(
        process: &Process,
        walked: &[Walked],
        known: &[KnownHeap],
        stack_pointers: &[u64],
    ) -> Result<Self, ResidencyError> {
        let mappings = process.mappings()?;
        let mut pages = process.page_table()?;
        let claims = Claims::of(walked);
        let regions = Regions::of(known);
        let mut residency = Self { other_heaps: regions.kinds(), ..Self::default() };
        let mut in_use = Vec::new();
        for mapping in &mappings {
            let kind = kind_of(mapping, stack_pointers);
            if !pages.tells_pages() {
                let resident_bytes = pages.resident_bytes(mapping.range).unwrap_or(0);
                residency.book_counted(mapping.range, resident_bytes, kind, (&claims, &regions), &mut in_use);
                continue;
            }
            for run in pages.page_states(mapping.range, PageDetail::Kind) {
                let run = run?;
                if run.state.swapped {
                    residency.note_swapped(run.range, &claims);
                }
                if !run.state.present || run.state.zero == Some(true) {
                    continue;
                }
                let Some(range) = run.range.intersection(&mapping.range) else { continue };
                residency.split(range, kind, (&claims, &regions), &mut in_use);
            }
        }
        residency.divide_in_use(walked, &merge_ranges(in_use, 0));
        residency.kernel_bytes = kernel_bytes(process)?;
        Ok(residency)
    }

    /// The rows; their sum is [`Residency::kernel_bytes`].
    pub fn rows(&self) -> Vec<ResidentRow> {
        let mut left = i64::try_from(self.kernel_bytes).unwrap_or(i64::MAX);
        let mut rows = Vec::new();
        let is_undivided = self.bytes.contains_key(UNDIVIDED);
        let (before, last) = KINDS.split_at(KINDS.len() - 3);
        let kinds = before.iter().chain(&self.other_heaps).chain(last).copied();
        for kind in kinds.filter(|kind| *kind != UNDIVIDED || is_undivided) {
            let bytes = self.bytes.get(kind).copied().unwrap_or(0);
            let bytes = if kind == "unexplained" { left } else { i64::try_from(bytes).unwrap_or(i64::MAX) };
            left = left.saturating_sub(bytes);
            rows.push(row(kind, bytes));
        }
        rows
    }

    fn note_swapped(&mut self, range: AddressRange, claims: &Claims) {
        for claim in claims.overlapping(range) {
            let bytes = claim.range.intersection(&range).map_or(0, |part| part.len_bytes());
            self.swapped_bytes += bytes;
            if claim.kind == ClaimKind::Metadata {
                self.swapped_metadata_bytes += bytes;
            }
        }
    }

    /// What could not be read because it is in swap, as a sentence.
    pub fn hidden_by_swap(&self) -> Option<String> {
        (self.swapped_metadata_bytes > 0).then(|| {
            format!(
                "{} bytes of the allocator's own records are in swap and were not read, since reading would bring \
                 them back: what they describe is not counted",
                self.swapped_metadata_bytes
            )
        })
    }

    fn add(&mut self, kind: &'static str, bytes: u64) {
        *self.bytes.entry(kind).or_default() += bytes;
    }

    /// Books a mapping of which the kernel tells only how much is resident: what lies in it is known where all of it is, or
    /// where no allocator has a part of it.
    fn book_counted(
        &mut self,
        range: AddressRange,
        resident_bytes: u64,
        kind: &'static str,
        (claims, regions): (&Claims, &Regions),
        in_use: &mut Vec<AddressRange>,
    ) {
        if resident_bytes >= range.len_bytes() {
            self.split(range, kind, (claims, regions), in_use);
        } else if claims.overlapping(range).next().is_none() {
            self.add(kind, resident_bytes);
        } else {
            self.add(UNDIVIDED, resident_bytes);
        }
    }

    /// Books what no allocator claims: to another heap where it is one's, else to `kind`.
    fn unclaimed(&mut self, range: AddressRange, kind: &'static str, regions: &Regions) {
        let mut start = range.start;
        // The stacks of Go's routines lie in its heap.
        if matches!(kind, OTHER_ANONYMOUS | "stacks") {
            for (region, heap) in regions.overlapping(range) {
                let Some(part) = region.intersection(&AddressRange { start, end: range.end }) else {
                    continue;
                };
                self.add(kind, part.start - start);
                self.add(heap, part.len_bytes());
                start = part.end;
            }
        }
        self.add(kind, range.end - start);
    }

    /// Books a resident range: to what an allocator claims of it, the rest to another heap or `kind`.
    fn split(
        &mut self,
        range: AddressRange,
        kind: &'static str,
        (claims, regions): (&Claims, &Regions),
        in_use: &mut Vec<AddressRange>,
    ) {
        let mut start = range.start;
        for claim in claims.overlapping(range) {
            let Some(part) = claim.range.intersection(&AddressRange { start, end: range.end }) else {
                continue;
            };
            self.unclaimed(AddressRange { start, end: part.start }, kind, regions);
            match claim.kind {
                ClaimKind::InUse => in_use.push(part),
                ClaimKind::Dirty => self.add("dirty", part.len_bytes()),
                ClaimKind::Muzzy => self.add("muzzy", part.len_bytes()),
                ClaimKind::Retained => self.add("retained", part.len_bytes()),
                ClaimKind::Metadata => self.add("metadata", part.len_bytes()),
            }
            start = part.end;
        }
        self.unclaimed(AddressRange { start, end: range.end }, kind, regions);
    }

    /// Divides the resident part of runs and large blocks into live, cached, the allocator's own and free.
    fn divide_in_use(&mut self, walked: &[Walked], resident: &[AddressRange]) {
        let total: u64 = resident.iter().map(AddressRange::len_bytes).sum();
        let resident = Resident { ranges: resident };
        let (mut live, mut cached, mut overhead) = (0, 0, 0);
        for walk in walked {
            let table = &walk.liveness;
            for (index, address) in table.runs.address.iter().enumerate() {
                let Some(class) =
                    table.runs.class.get(index).and_then(|class| table.run_classes.get(usize::from(*class)))
                else {
                    continue;
                };
                live +=
                    resident.of_run(*address, class.run_bytes, class.block_bytes, table.runs.words(index));
            }
            for (address, block) in &table.runs.cached {
                let run = table.runs.address.binary_search(address).ok();
                let class = run
                    .and_then(|run| table.runs.class.get(run))
                    .and_then(|class| table.run_classes.get(usize::from(*class)));
                if let Some(class) = class {
                    cached +=
                        resident.overlap(address + u64::from(*block) * class.block_bytes, class.block_bytes);
                }
            }
            for block in &table.large.blocks {
                let bytes = resident.overlap(block.address, block.usable_bytes);
                if block.cached {
                    cached += bytes
                } else {
                    live += bytes
                }
                let header_bytes = walk.outcome.block_header_bytes;
                overhead += resident.overlap(block.address.saturating_sub(header_bytes), header_bytes);
            }
            for block in &walk.outcome.overhead {
                overhead += resident.overlap(block.address, block.usable_bytes);
            }
        }
        self.add("live", live);
        self.add("cached", cached);
        self.add("metadata", overhead);
        self.add("free_in_slabs", total.saturating_sub(live + cached + overhead));
    }
}

/// Resident bytes as the kernel has them: counted where that is quick and possible, else by its counters.
fn kernel_bytes(process: &Process) -> Result<u64, ResidencyError> {
    let counters = process.resident_bytes()?;
    if counters.total_bytes > COUNTED_BYTES_MAX {
        return Ok(counters.total_bytes);
    }
    Ok(process.resident_bytes_exact().unwrap_or(counters).total_bytes)
}

/// Resident ranges in address order.
struct Resident<'a> {
    ranges: &'a [AddressRange],
}

impl Resident<'_> {
    /// Resident bytes of `len_bytes` at `start`.
    fn overlap(&self, start: u64, len_bytes: u64) -> u64 {
        let range = AddressRange { start, end: start.saturating_add(len_bytes) };
        let first = self.ranges.partition_point(|resident| resident.end <= start);
        self.ranges
            .iter()
            .skip(first)
            .take_while(|resident| resident.start < range.end)
            .filter_map(|resident| resident.intersection(&range))
            .map(|part| part.len_bytes())
            .sum()
    }

    /// Resident bytes of the blocks of a run whose bit is set.
    fn of_run(&self, address: u64, run_bytes: u64, block_bytes: u64, words: &[u64]) -> u64 {
        let set: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let resident = self.overlap(address, run_bytes);
        if resident == 0 || set == 0 {
            return 0;
        }
        if resident == run_bytes {
            return set * block_bytes;
        }
        let mut bytes = 0;
        for (word, bits) in (0_u64..).zip(words) {
            let mut bits = *bits;
            while bits != 0 {
                let block = word * 64 + u64::from(bits.trailing_zeros());
                bytes += self.overlap(address + block * block_bytes, block_bytes);
                bits &= bits - 1;
            }
        }
        bytes
    }
}

/// All claims of all allocators in address order, none overlapping.
struct Claims {
    sorted: Vec<Claim>,
}

impl Claims {
    fn of(walked: &[Walked]) -> Self {
        let mut all: Vec<Claim> =
            walked.iter().flat_map(|walk| walk.outcome.claims.iter().copied()).collect();
        all.sort_unstable_by_key(|claim| (claim.range.start, claim.range.end));
        let mut sorted: Vec<Claim> = Vec::with_capacity(all.len());
        for mut claim in all {
            let end = sorted.last().map_or(0, |last| last.range.end);
            claim.range.start = claim.range.start.max(end);
            if claim.range.is_empty() {
                continue;
            }
            match sorted.last_mut() {
                Some(last) if last.range.end == claim.range.start && last.kind == claim.kind => {
                    last.range.end = claim.range.end;
                }
                _ => sorted.push(claim),
            }
        }
        Self { sorted }
    }

    fn overlapping(&self, range: AddressRange) -> impl Iterator<Item = &Claim> {
        let first = self.sorted.partition_point(|claim| claim.range.end <= range.start);
        self.sorted.iter().skip(first).take_while(move |claim| claim.range.start < range.end)
    }
}

/// The regions of all heaps that are recognised, in address order, none overlapping.
struct Regions {
    sorted: Vec<(AddressRange, &'static str)>,
}

impl Regions {
    fn of(known: &[KnownHeap]) -> Self {
        let all = known.iter().flat_map(|heap| heap.regions.iter().map(|region| (*region, heap.kind)));
        let mut all: Vec<(AddressRange, &str)> = all.collect();
        all.sort_unstable_by_key(|(region, _)| (region.start, region.end));
        let mut end = 0;
        all.retain_mut(|(region, _)| {
            region.start = region.start.max(end);
            end = end.max(region.end);
            !region.is_empty()
        });
        Self { sorted: all }
    }

    fn kinds(&self) -> Vec<&'static str> {
        let kinds: std::collections::BTreeSet<&str> = self.sorted.iter().map(|(_, kind)| *kind).collect();
        kinds.into_iter().collect()
    }

    fn overlapping(&self, range: AddressRange) -> impl Iterator<Item = (AddressRange, &'static str)> {
        let first = self.sorted.partition_point(|(region, _)| region.end <= range.start);
        self.sorted.iter().skip(first).take_while(move |(region, _)| region.start < range.end).copied()
    }
}

/// What a mapping is used for where no allocator claims it.
fn kind_of(mapping: &Mapping, stack_pointers: &[u64]) -> &'static str {
    if mapping.shared {
        return "shared";
    }
    match &mapping.kind {
        MappingKind::Stack => "stacks",
        MappingKind::File { .. } | MappingKind::Vdso | MappingKind::Vvar | MappingKind::Vsyscall => {
            "mapped_files"
        }
        _ if stack_pointers.iter().any(|pointer| mapping.range.contains(*pointer)) => "stacks",
        _ => OTHER_ANONYMOUS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_which_only_a_part_is_resident_are_divided_as_far_as_that_is_known() {
        let range = |start, end| AddressRange { start, end };
        let claims = Claims { sorted: vec![Claim { range: range(0x2000, 0x3000), kind: ClaimKind::Dirty }] };
        let mut residency = Residency { kernel_bytes: 0x9000, ..Residency::default() };
        let mut book = |range, resident_bytes| {
            let regions = Regions { sorted: Vec::new() };
            let uses = (&claims, &regions);
            residency.book_counted(range, resident_bytes, "other_anonymous", uses, &mut Vec::new());
        };
        // All of it resident; a part, with and without something of an allocator's in it.
        book(range(0x1000, 0x4000), 0x3000);
        book(range(0x2000, 0x8000), 0x4000);
        book(range(0x8000, 0x9000_0000), 0x1000);
        let rows = residency.rows();
        let bytes = |kind: &str| rows.iter().find(|row| row.kind == kind).map(|row| row.bytes);
        assert_eq!((bytes("dirty"), bytes("other_anonymous")), (Some(0x1000), Some(0x3000)));
        assert_eq!((bytes("undivided"), bytes("unexplained")), (Some(0x4000), Some(0x1000)));
        assert_eq!(rows.iter().map(|row| row.bytes).sum::<i64>(), 0x9000);
        assert!(Residency::default().rows().iter().all(|row| row.kind != "undivided"));
    }
}
