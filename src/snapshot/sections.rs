//! The blocks of one allocator out of their sections.

use super::format::{Entry, GROUP_ITEMS, GROUP_WORDS, Image, Kind, SectionKey};
use super::liveness::{LARGE_BLOCKS_MAX, LIVE_WORDS_MAX, Liveness, RUN_BLOCKS_MAX, RUNS_MAX, RunTable};
use super::write::{STATE_EMPTY, STATE_FULL, STATE_WORDS};
use super::{SnapshotError, column};
use crate::allocator::{Block, RunClass};
use crate::memory::words;
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left of the limits, for all allocators of a file together.
#[derive(Debug)]
pub(super) struct Room {
    runs: AtomicUsize,
    words: AtomicUsize,
    large: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            runs: AtomicUsize::new(RUNS_MAX),
            words: AtomicUsize::new(LIVE_WORDS_MAX),
            large: AtomicUsize::new(LARGE_BLOCKS_MAX),
        }
    }
}

/// Takes `count` out of what is left, or says that there is not so much.
fn take(left: &AtomicUsize, count: usize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).is_ok()
}

/// Decompresses sections, one after the other with the same memory.
pub(super) struct Unpacker<'a> {
    image: Image<'a>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl<'a> Unpacker<'a> {
    /// An unpacker for the sections of `image`.
    pub(super) fn new(image: Image<'a>) -> Result<Self, SnapshotError> {
        let decompressor = zstd::bulk::Decompressor::new().map_err(|source| SnapshotError::Io {
            path: image.path.into(),
            action: "decompress",
            source,
        })?;
        Ok(Self { image, decompressor })
    }

    /// The bytes of a section as they were before they were compressed, and exactly as many as it claims.
    pub(super) fn bytes(&mut self, entry: &Entry) -> Result<Vec<u8>, SnapshotError> {
        let encoded = self.image.encoded(entry)?;
        let len = usize::try_from(entry.decoded_bytes).unwrap_or_default();
        match self.decompressor.decompress(encoded, len) {
            Ok(bytes) if bytes.len() == len => Ok(bytes),
            _ => Err(self
                .image
                .corrupt(entry.range.start, format!("{:?} cannot be decompressed", entry.key.kind))),
        }
    }
}

/// The sections of one allocator, in the order of their keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllocatorSections<'a> {
    pub image: Image<'a>,
    pub allocator: u16,
    pub entries: &'a [Entry],
}

impl<'a> AllocatorSections<'a> {
    /// All blocks, sorted and checked.
    pub(super) fn liveness(&self, room: &Room) -> Result<Liveness, SnapshotError> {
        let mut single = Group::new(*self, 0)?;
        let mut liveness = Liveness::new(single.run_classes()?);
        let groups = self.groups(Kind::RunClass)?;
        let parts: Result<Vec<RunTable>, SnapshotError> = (0..groups)
            .into_par_iter()
            .map(|group| Group::new(*self, group)?.runs(&liveness.run_classes, room))
            .collect();
        liveness.runs = joined(&parts?);
        liveness.runs.cached = single.cached(&liveness.runs)?;
        let groups = self.groups(Kind::LargeAddress)?;
        let parts: Result<Vec<Vec<Block>>, SnapshotError> =
            (0..groups).into_par_iter().map(|group| Group::new(*self, group)?.large(room)).collect();
        liveness.large.blocks = parts?.concat();
        liveness.check().map_err(|fault| self.image.corrupt(self.offset(), fault.to_string()))?;
        Ok(liveness)
    }

    /// Number of groups, where each has a section of the given kind and every group's section belongs to one.
    fn groups(&self, kind: Kind) -> Result<u32, SnapshotError> {
        let count = self.entries.iter().filter(|entry| entry.key.kind == kind).count();
        let same_table =
            |entry: &&Entry| (entry.key.kind < Kind::LargeAddress) == (kind < Kind::LargeAddress);
        match self.entries.iter().filter(same_table).find(|entry| entry.key.group as usize >= count.max(1)) {
            Some(entry) => Err(self.image.corrupt(entry.range.start, format!("{kind:?} is missing"))),
            None => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        }
    }

    /// Where the first of the sections starts.
    fn offset(&self) -> usize {
        self.entries.iter().map(|entry| entry.range.start).min().unwrap_or_default()
    }
}

/// The sections of one group of runs or large blocks.
struct Group<'a> {
    sections: AllocatorSections<'a>,
    group: u32,
    unpacker: Unpacker<'a>,
}

impl<'a> Group<'a> {
    fn new(sections: AllocatorSections<'a>, group: u32) -> Result<Self, SnapshotError> {
        Ok(Self { sections, group, unpacker: Unpacker::new(sections.image)? })
    }

    fn entry(&self, kind: Kind) -> Option<&'a Entry> {
        let key = SectionKey { allocator: self.sections.allocator, kind, group: self.group };
        let entries = self.sections.entries;
        entries.binary_search_by_key(&key, |entry| entry.key).ok().and_then(|at| entries.get(at))
    }

    /// The bytes of a section; none where there is no such section.
    fn bytes(&mut self, kind: Kind) -> Result<Vec<u8>, SnapshotError> {
        self.entry(kind).map_or(Ok(Vec::new()), |entry| self.unpacker.bytes(entry))
    }

    fn corrupt(&self, kind: Kind, what: &str) -> SnapshotError {
        let offset = self.entry(kind).map_or_else(|| self.sections.offset(), |entry| entry.range.start);
        self.sections.image.corrupt(offset, format!("{kind:?} {what}"))
    }

    /// A column of at most `max` values, each as `value` makes it from its number.
    fn column<T>(
        &mut self,
        kind: Kind,
        max: usize,
        mut value: impl FnMut(i64) -> Option<T>,
    ) -> Result<Vec<T>, SnapshotError> {
        let bytes = self.bytes(kind)?;
        let mut values = Vec::with_capacity(bytes.len().min(max));
        let decoded = column::decode(&bytes, |number| {
            values.push(value(number).filter(|_| values.len() < max)?);
            Some(())
        });
        decoded.map(|()| values).ok_or_else(|| self.corrupt(kind, "holds a number that cannot be"))
    }

    /// A column of exactly `len` values.
    fn full_column<T>(
        &mut self,
        kind: Kind,
        len: usize,
        value: impl FnMut(i64) -> Option<T>,
    ) -> Result<Vec<T>, SnapshotError> {
        let values = self.column(kind, len, value)?;
        if values.len() == len { Ok(values) } else { Err(self.corrupt(kind, "is too short")) }
    }

    fn run_classes(&mut self) -> Result<Vec<RunClass>, SnapshotError> {
        let values = self.column(Kind::RunClasses, 3 << 16, Some)?;
        let (triples, rest) = values.as_chunks::<3>();
        let classes = triples.iter().map(|&[block_bytes, run_bytes, blocks]| {
            let blocks = u32::try_from(blocks).ok().filter(|&blocks| blocks <= RUN_BLOCKS_MAX)?;
            Some(RunClass {
                block_bytes: block_bytes.cast_unsigned(),
                run_bytes: run_bytes.cast_unsigned(),
                blocks,
            })
        });
        let classes: Option<Vec<RunClass>> = classes.collect();
        classes
            .filter(|_| rest.is_empty())
            .ok_or_else(|| self.corrupt(Kind::RunClasses, "holds a class that cannot be"))
    }

    fn runs(&mut self, classes: &[RunClass], room: &Room) -> Result<RunTable, SnapshotError> {
        let known = |number| u16::try_from(number).ok().filter(|&class| usize::from(class) < classes.len());
        let class = self.column(Kind::RunClass, GROUP_ITEMS, known)?;
        let class_of = |&class: &u16| classes.get(usize::from(class));
        let words: usize =
            class.iter().filter_map(class_of).map(|class| class.blocks.div_ceil(64) as usize).sum();
        let words_max = GROUP_WORDS + RUN_BLOCKS_MAX.div_ceil(64) as usize;
        if words > words_max || !take(&room.runs, class.len()) || !take(&room.words, words) {
            let (what, limit) = ("the number of runs", RUNS_MAX as u64);
            return Err(SnapshotError::TooLarge { path: self.sections.image.path.into(), what, limit });
        }
        let (mut next_class, mut expected) = (class.iter(), 0_u64);
        let address = self.full_column(Kind::RunAddress, class.len(), |gap| {
            let address = expected.wrapping_add(gap.cast_unsigned());
            expected = address.wrapping_add(next_class.next().and_then(class_of)?.run_bytes);
            Some(address)
        })?;
        let serial = self.full_column(Kind::RunSerial, class.len(), running_sum())?;
        let shard = self.full_column(Kind::RunShard, class.len(), |shard| u32::try_from(shard).ok())?;
        let mut table = RunTable { address, serial, shard, class, ..RunTable::default() };
        self.live_words(classes, words, &mut table)?;
        Ok(table)
    }

    /// Fills `words_at` and `live` of a table of runs that is otherwise complete.
    fn live_words(
        &mut self,
        classes: &[RunClass],
        words_len: usize,
        table: &mut RunTable,
    ) -> Result<(), SnapshotError> {
        let states = self.bytes(Kind::RunState)?;
        if states.len() != table.class.len() {
            return Err(self.corrupt(Kind::RunState, "does not have one state a run"));
        }
        let kept = self.bytes(Kind::RunWords)?;
        let mut kept = words(&kept);
        table.live.reserve_exact(words_len);
        table.words_at.reserve_exact(states.len());
        for (&class, &state) in table.class.iter().zip(&states) {
            table.words_at.push(u32::try_from(table.live.len()).unwrap_or(u32::MAX));
            let blocks = classes.get(usize::from(class)).map_or(0, |class| class.blocks);
            let len = blocks.div_ceil(64) as usize;
            let end = table.live.len() + len;
            match state {
                STATE_EMPTY => table.live.resize(end, 0),
                STATE_FULL => {
                    table.live.resize(end, u64::MAX);
                    if let (Some(last), 1..) = (table.live.last_mut(), blocks % 64) {
                        *last >>= 64 - blocks % 64;
                    }
                }
                STATE_WORDS => table.live.extend(kept.by_ref().take(len)),
                _ => return Err(self.corrupt(Kind::RunState, "holds a state that does not exist")),
            }
            if table.live.len() != end {
                return Err(self.corrupt(Kind::RunWords, "is too short"));
            }
        }
        if kept.next().is_some() { Err(self.corrupt(Kind::RunWords, "is too long")) } else { Ok(()) }
    }

    fn cached(&mut self, runs: &RunTable) -> Result<Vec<(u64, u32)>, SnapshotError> {
        let values = self.column(Kind::Cached, usize::MAX, |number| u32::try_from(number).ok())?;
        let (pairs, rest) = values.as_chunks::<2>();
        let mut run = 0_usize;
        let cached = pairs.iter().map(|&[runs_on, block]| {
            run = run.saturating_add(runs_on as usize);
            Some((*runs.address.get(run)?, block))
        });
        let cached: Option<Vec<(u64, u32)>> = cached.collect();
        cached
            .filter(|_| rest.is_empty())
            .ok_or_else(|| self.corrupt(Kind::Cached, "names a run that does not exist"))
    }

    fn large(&mut self, room: &Room) -> Result<Vec<Block>, SnapshotError> {
        let address = self.column(Kind::LargeAddress, GROUP_ITEMS, running_sum())?;
        let len = address.len();
        if !take(&room.large, len) {
            let (what, limit) = ("the number of large blocks", LARGE_BLOCKS_MAX as u64);
            return Err(SnapshotError::TooLarge { path: self.sections.image.path.into(), what, limit });
        }
        let usable = self.full_column(Kind::LargeUsable, len, |bytes| Some(bytes.cast_unsigned()))?;
        let held = self.full_column(Kind::LargeHeld, len, |more| Some(more.cast_unsigned()))?;
        let class = self.full_column(Kind::LargeClass, len, |more| Some(more.cast_unsigned()))?;
        let shard = self.full_column(Kind::LargeShard, len, |shard| u32::try_from(shard).ok())?;
        let serial = self.full_column(Kind::LargeSerial, len, running_sum())?;
        let cached = self.full_column(Kind::LargeCached, len, |flag| {
            [false, true].get(usize::try_from(flag).ok()?).copied()
        })?;
        let places = address.into_iter().zip(serial).zip(shard).zip(cached);
        let sizes = usable.into_iter().zip(held).zip(class);
        let blocks =
            places.zip(sizes).map(|((((address, serial), shard), cached), ((usable_bytes, held), class))| {
                let held_bytes = usable_bytes.wrapping_add(held);
                let class_bytes = usable_bytes.wrapping_add(class);
                Block { address, usable_bytes, held_bytes, class_bytes, shard, serial, cached }
            });
        Ok(blocks.collect())
    }
}

/// Values from their differences.
fn running_sum() -> impl FnMut(i64) -> Option<u64> {
    let mut sum = 0_u64;
    move |step| {
        sum = sum.wrapping_add(step.cast_unsigned());
        Some(sum)
    }
}

/// Tables end to end.
fn joined(parts: &[RunTable]) -> RunTable {
    let mut all = RunTable::default();
    let runs = parts.iter().map(RunTable::len).sum();
    all.address.reserve_exact(runs);
    all.serial.reserve_exact(runs);
    all.shard.reserve_exact(runs);
    all.class.reserve_exact(runs);
    all.words_at.reserve_exact(runs);
    all.live.reserve_exact(parts.iter().map(|part| part.live.len()).sum());
    for part in parts {
        let start = u32::try_from(all.live.len()).unwrap_or(u32::MAX);
        all.address.extend_from_slice(&part.address);
        all.serial.extend_from_slice(&part.serial);
        all.shard.extend_from_slice(&part.shard);
        all.class.extend_from_slice(&part.class);
        all.words_at.extend(part.words_at.iter().map(|words_at| words_at.saturating_add(start)));
        all.live.extend_from_slice(&part.live);
    }
    all
}
