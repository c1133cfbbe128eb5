//! The walk: every span once, every list of free objects once; what is on no list is live.

use super::central::CentralList;
use super::objects::{Followed, Kept, Objects, SmallSpan};
use super::proof;
use super::span::{Location, Span, Spans};
use super::thread_cache::ThreadCaches;
use super::{Tcmalloc, thread_cache};
use crate::allocator::records::{PAGE_BYTES, RecordMap};
use crate::allocator::{Anomalies, Block, Claim, ClaimKind, Run, RunClass, Sink, ThreadPointer, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::{AddressRange, merge_ranges};

/// A list may be longer than its counter says by what a thread was about to count.
const UNCOUNTED_MAX: u64 = 1;

/// Records of the allocator's that lie closer to each other than this lie in one piece that it took for them.
const METADATA_GAP_BYTES: u64 = 512 << 10;

/// What the walk adds up in the allocator's own terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// By class: spans.
    pub spans: Vec<u64>,
    /// By class: objects in the central list.
    pub central: Vec<u64>,
    /// By class: objects in the transfer cache.
    pub transfer: Vec<u64>,
    /// Bytes of objects in thread caches.
    pub thread_bytes: u64,
    /// Bytes of all spans.
    pub system_bytes: u64,
    /// Bytes of free spans that are kept.
    pub normal_bytes: u64,
    /// Bytes of free spans that were given back.
    pub returned_bytes: u64,
    /// Objects that may have moved between two reads.
    pub doubtful: u64,
}

/// What a moment shows besides the objects.
pub struct Heap {
    /// All spans.
    pub spans: Spans,
    /// All central lists.
    pub central: Vec<CentralList>,
    /// All thread caches.
    pub caches: ThreadCaches,
}

impl Heap {
    /// Reads it.
    pub fn gather(tcmalloc: &Tcmalloc, memory: &dyn Memory, anomalies: &mut Anomalies) -> Self {
        Self {
            spans: Spans::gather(memory, &tcmalloc.page_map, anomalies),
            central: tcmalloc.central.all(memory),
            caches: ThreadCaches::gather(memory, &tcmalloc.layout, &tcmalloc.sizes, &tcmalloc.cache_slots),
        }
    }

    /// Spans that have objects on their own lists: their links lie among the users' bytes.
    pub fn linked_spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.list.iter().filter(|span| span.is_small() && span.objects != 0)
    }

    /// Follows the transfer cache's chains and the thread caches' lists; names each object.
    pub fn cached_objects(&self, tcmalloc: &Tcmalloc, memory: &dyn Memory, visit: &mut dyn FnMut(u64)) {
        let mut objects = Objects::of(memory, &self.spans, &tcmalloc.sizes);
        for list in &self.central {
            let moved = tcmalloc.sizes.class(list.class).map_or(0, |class| class.moved_at_once);
            for chain in &list.chains {
                objects.follow(*chain, moved + UNCOUNTED_MAX, list.class, Kept::Cached, visit);
            }
        }
        for list in self.caches.list.iter().flat_map(|cache| &cache.lists) {
            objects.follow(list.first, list.length + UNCOUNTED_MAX, list.class, Kept::Cached, visit);
        }
    }
}

/// Where the links of spans' own lists lie.
pub fn records(tcmalloc: &Tcmalloc, memory: &dyn Memory) -> RecordMap {
    let heap = Heap::gather(tcmalloc, memory, &mut Anomalies::default());
    let mut objects = Objects::of(memory, &heap.spans, &tcmalloc.sizes);
    let mut map = RecordMap::default();
    for span in heap.linked_spans() {
        let range = span.range(heap.spans.page_shift);
        (range.start..range.end)
            .step_by(usize::try_from(PAGE_BYTES).unwrap_or(4096))
            .for_each(|page| map.note_page(page));
        let limit = range.len_bytes() / 8;
        objects.follow(span.objects, limit, span.class, Kept::Free, &mut |object| map.mark(object, true));
    }
    map
}

/// Walks everything that `memory` shows of `tcmalloc`.
pub fn walk(
    tcmalloc: &Tcmalloc,
    memory: &dyn Memory,
    threads: &[ThreadPointer],
    sink: &mut dyn Sink,
) -> WalkOutcome {
    let mut anomalies = Anomalies::default();
    let heap = Heap::gather(tcmalloc, memory, &mut anomalies);
    let classes = tcmalloc.sizes.classes.len();
    let mut walk = Walk {
        tcmalloc,
        memory,
        heap: &heap,
        objects: Objects::of(memory, &heap.spans, &tcmalloc.sizes),
        tally: Tally {
            spans: vec![0; classes],
            central: vec![0; classes],
            transfer: vec![0; classes],
            ..Tally::default()
        },
        anomalies,
        outcome: WalkOutcome { complete: true, shards: vec![0], ..WalkOutcome::default() },
    };
    walk.spans();
    walk.central_lists();
    walk.transfer_caches();
    walk.thread_caches();
    walk.deliver(sink);
    walk.metadata();
    walk.finish(threads)
}

struct Walk<'a> {
    tcmalloc: &'a Tcmalloc,
    memory: &'a dyn Memory,
    heap: &'a Heap,
    objects: Objects<'a>,
    tally: Tally,
    anomalies: Anomalies,
    outcome: WalkOutcome,
}

impl Walk<'_> {
    /// Claims all spans and counts what they are for.
    fn spans(&mut self) {
        let spans = &self.heap.spans;
        self.outcome.structures_broken += spans.broken;
        self.outcome.complete &= spans.broken == 0;
        for span in &spans.list {
            self.outcome.structures_checked += 1;
            let range = span.range(spans.page_shift);
            let len_bytes = range.len_bytes();
            self.tally.system_bytes = self.tally.system_bytes.saturating_add(len_bytes);
            let kind = match span.location {
                Location::InUse => ClaimKind::InUse,
                Location::Normal => {
                    self.tally.normal_bytes += len_bytes;
                    ClaimKind::Dirty
                }
                Location::Returned => {
                    self.tally.returned_bytes += len_bytes;
                    ClaimKind::Retained
                }
            };
            self.outcome.claims.push(Claim { range, kind });
        }
        for strange in std::mem::take(&mut self.objects.strange) {
            let Some(span) = spans.list.get(strange) else { continue };
            self.outcome.structures_broken += 1;
            self.outcome.complete = false;
            self.anomalies.add(span.record, "a span's size class and its length contradict each other");
        }
    }

    /// Each span's own list: as many objects as its record does not count as handed out.
    fn central_lists(&mut self) {
        for index in 0..self.objects.small.len() {
            let Some((span, class, blocks)) =
                self.objects.small.get(index).and_then(|small| {
                    Some((*self.heap.spans.list.get(small.span)?, small.class, small.blocks))
                })
            else {
                continue;
            };
            add(&mut self.tally.spans, class, 1);
            let expected = blocks.checked_sub(span.references);
            let followed = self.objects.follow(span.objects, blocks, class, Kept::Free, &mut |_| {});
            add(&mut self.tally.central, class, followed.count);
            self.judge(&followed, expected, span.record, "a span's list of free objects");
        }
    }

    fn transfer_caches(&mut self) {
        for list in &self.heap.central {
            let moved = self.tcmalloc.sizes.class(list.class).map_or(0, |class| class.moved_at_once);
            for chain in &list.chains {
                let followed =
                    self.objects.follow(*chain, moved + UNCOUNTED_MAX, list.class, Kept::Cached, &mut |_| {});
                add(&mut self.tally.transfer, list.class, followed.count);
                self.judge(&followed, Some(moved), list.address, "a chain of the transfer cache");
            }
        }
    }

    fn thread_caches(&mut self) {
        let caches = &self.heap.caches;
        self.outcome.thread_caches = caches.list.len() as u64;
        if !caches.whole {
            self.outcome.caches_unknown = true;
            self.outcome
                .notes
                .push("not all thread caches were found: blocks in the others count as live".to_owned());
        }
        for list in caches.list.iter().flat_map(|cache| &cache.lists) {
            let limit = list.length + UNCOUNTED_MAX;
            let followed = self.objects.follow(list.first, limit, list.class, Kept::Cached, &mut |_| {});
            let size_bytes = self.tcmalloc.sizes.class(list.class).map_or(0, |class| class.size_bytes);
            self.tally.thread_bytes += followed.count * size_bytes;
            self.judge(&followed, Some(list.length), list.address, "a list of a thread cache");
        }
    }

    /// Compares a list with its counter. A thread takes and gives objects of its own cache without a lock, so one list
    /// a thread may differ; a list that breaks off may have been written over by who used an object after its end.
    fn judge(&mut self, followed: &Followed, expected: Option<u64>, owner: u64, what: &str) {
        self.outcome.structures_checked += followed.count;
        self.tally.doubtful += followed.doubtful;
        let differ = expected.map_or(followed.count.max(1), |expected| expected.abs_diff(followed.count));
        if differ == 0 && followed.broken.is_none() {
            return;
        }
        if !self.memory.is_of_one_moment() {
            self.tally.doubtful += differ.max(1);
            return;
        }
        self.outcome.blocks_in_motion_max += differ.max(1);
        let Some((object, last_good)) = followed.broken else {
            self.anomalies.add(owner, &format!("{what} and its counter differ"));
            return;
        };
        // What a thread was just about to link has the user's bytes where the link belongs.
        if differ > 1 {
            self.outcome.structures_broken += 1;
            self.outcome.complete = false;
        }
        self.anomalies.add(
            object,
            &format!(
                "{what} breaks here; the last good object is {last_good:#x}: its user probably wrote to it after it \
                 was freed"
            ),
        );
    }

    fn deliver(&mut self, sink: &mut dyn Sink) {
        let page_shift = self.heap.spans.page_shift;
        let numbered = self.tcmalloc.sizes.numbered();
        self.outcome.run_classes =
            numbered.map(|(_, class)| run_class(class.size_bytes, class.pages << page_shift)).collect();
        for small in &self.objects.small {
            let live = live(small);
            // Class 0 is none.
            let class = u16::try_from(small.class.saturating_sub(1)).unwrap_or(u16::MAX);
            sink.run(Run {
                address: small.address,
                class,
                shard: 0,
                serial: 0,
                live: &live,
                cached: &small.cached,
            });
        }
        let large = |span: &&Span| span.location == Location::InUse && span.class == 0;
        for span in self.heap.spans.list.iter().filter(large) {
            let range = span.range(page_shift);
            let usable_bytes = range.len_bytes();
            sink.block(Block {
                address: range.start,
                usable_bytes,
                held_bytes: usable_bytes,
                class_bytes: usable_bytes,
                shard: 0,
                serial: 0,
                cached: false,
            });
        }
    }

    /// Claims what the allocator keeps its records in.
    fn metadata(&mut self) {
        let Heap { spans, caches, .. } = self.heap;
        let leaves = self.tcmalloc.page_map.leaves(self.memory).into_iter().map(|(_, leaf)| leaf);
        let records = leaves.chain(spans.records.iter().copied());
        let records = records.chain(thread_cache::ranges(caches, &self.tcmalloc.layout));
        let own = merge_ranges(records.collect(), METADATA_GAP_BYTES);
        let own: Vec<AddressRange> = own.iter().map(|range| range.page_aligned(PAGE_BYTES)).collect();
        let spans = spans.list.iter().map(|span| span.range(spans.page_shift));
        let spans = merge_ranges(spans.collect(), 0);
        let own = crate::allocator::address_space::without(&merge_ranges(own, 0), &spans);
        let present = own.iter().flat_map(|range| self.memory.present(*range));
        self.outcome.metadata_bytes = Some(present.map(|range| range.len_bytes()).sum());
        let claims = own.into_iter().map(|range| Claim { range, kind: ClaimKind::Metadata });
        self.outcome.claims.extend(claims);
    }

    fn finish(mut self, threads: &[ThreadPointer]) -> WalkOutcome {
        let locks = self.tcmalloc.locks();
        let held =
            |lock: &u64| crate::memory::MemoryExt::read_u32(self.memory, *lock).is_ok_and(|word| word != 0);
        self.outcome.locked_bins = locks.iter().filter(|lock| held(lock)).count() as u64;
        let in_code = |thread: &&ThreadPointer| self.tcmalloc.is_in_code(thread.program_counter);
        let at_work = threads.iter().filter(in_code).count() as u64;
        self.outcome.blocks_in_motion_max += at_work * self.tcmalloc.sizes.moved_at_once_max();
        if self.tally.doubtful > 0 {
            self.outcome.blocks_in_motion_max += self.tally.doubtful;
            self.outcome.notes.push(format!(
                "{} of {} free objects were changing and could not be verified",
                self.tally.doubtful, self.outcome.structures_checked
            ));
        }
        proof::compare(self.tcmalloc, self.memory, &self.heap.central, &self.tally, &mut self.outcome);
        self.outcome.anomalies = self.anomalies.into_vec();
        self.outcome
    }
}

fn add(counts: &mut [u64], class: u64, more: u64) {
    if let Some(count) = usize::try_from(class).ok().and_then(|class| counts.get_mut(class)) {
        *count += more;
    }
}

fn run_class(block_bytes: u64, run_bytes: u64) -> RunClass {
    let blocks = run_bytes.checked_div(block_bytes).and_then(|blocks| u32::try_from(blocks).ok());
    RunClass { block_bytes, run_bytes, blocks: blocks.unwrap_or(0) }
}

/// What is on no list.
fn live(small: &SmallSpan) -> Vec<u64> {
    let bits = |word: u64| {
        let left = small.blocks - (word * 64).min(small.blocks);
        if left >= 64 { u64::MAX } else { (1 << left) - 1 }
    };
    let words = (0..).zip(small.free.iter().zip(&small.cached));
    words.map(|(word, (free, cached))| bits(word) & !free & !cached).collect()
}
