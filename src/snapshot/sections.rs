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
    bytes: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    /// An unpacker for the sections of `image`.
    pub(super) fn new(image: Image<'a>) -> Result<Self, SnapshotError> {
        let decompressor = zstd::bulk::Decompressor::new().map_err(|source| SnapshotError::Io {
            path: image.path.into(),
            action: "decompress",
            source,
        })?;
        Ok(Self { image, decompressor, bytes: Vec::new() })
    }

    /// The bytes of a section as they were before they were compressed, and exactly as many as it claims.
    pub(super) fn bytes(&mut self, entry: &Entry) -> Result<&[u8], SnapshotError> {
        let encoded = self.image.encoded(entry)?;
        let len = usize::try_from(entry.decoded_bytes).unwrap_or_default();
        self.bytes.clear();
        self.bytes.reserve(len);
        match self.decompressor.decompress_to_buffer(encoded, &mut self.bytes) {
            Ok(found) if found == len && self.bytes.len() == len => Ok(&self.bytes),
            _ => {
                let what = format!("{:?} cannot be decompressed", entry.key.kind);
                Err(self.image.corrupt(entry.range.start, what))
            }
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
        liveness.runs = self.runs(&liveness.run_classes, room)?;
        liveness.runs.cached = single.cached(&liveness.runs)?;
        let groups = self.groups(Kind::LargeAddress)?;
        let parts: Result<Vec<Vec<Block>>, SnapshotError> =
            (0..groups).into_par_iter().map(|group| Group::new(*self, group)?.large(room)).collect();
        liveness.large.blocks = parts?.concat();
        liveness.check().map_err(|fault| self.image.corrupt(self.offset(), fault.to_string()))?;
        Ok(liveness)
    }

    /// All runs. Their classes tell how much memory they need; the groups are then filled in side by side.
    fn runs(&self, classes: &[RunClass], room: &Room) -> Result<RunTable, SnapshotError> {
        let groups = self.groups(Kind::RunClass)?;
        let members: Result<Vec<Members>, SnapshotError> = (0..groups)
            .into_par_iter()
            .map(|group| Group::new(*self, group)?.members(classes, room))
            .collect();
        let members = members?;
        let runs = members.iter().map(|group| group.class.len()).sum();
        let mut table = RunTable {
            address: vec![0; runs],
            serial: vec![0; runs],
            shard: vec![0; runs],
            words_at: vec![0; runs],
            live: vec![0; members.iter().map(|group| group.words).sum()],
            ..RunTable::default()
        };
        let parts: Vec<RunPart<'_>> = RunPart::split(&mut table, &members);
        let fill = |(group, part)| Group::new(*self, group)?.runs(part, classes);
        (0..groups).into_par_iter().zip(parts).try_for_each(fill)?;
        table.class = members.iter().flat_map(|group| group.class.iter().copied()).collect();
        Ok(table)
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

/// The runs of a group: the class of each, and the bitmap words of all.
#[derive(Debug)]
struct Members {
    class: Vec<u16>,
    words: usize,
}

/// A group's part of a table that is being filled.
#[derive(Debug)]
struct RunPart<'t> {
    address: &'t mut [u64],
    serial: &'t mut [u64],
    shard: &'t mut [u32],
    live: LiveColumns<'t>,
}

/// The columns that tell which blocks are live.
#[derive(Debug)]
struct LiveColumns<'t> {
    class: &'t [u16],
    words_at: &'t mut [u32],
    live: &'t mut [u64],
    /// Where `live` starts in the table.
    start_word: usize,
}

impl<'t> RunPart<'t> {
    /// Parts of a table that has room for all members.
    fn split(table: &'t mut RunTable, members: &'t [Members]) -> Vec<Self> {
        let (mut address, mut serial) = (table.address.as_mut_slice(), table.serial.as_mut_slice());
        let (mut shard, mut words_at) = (table.shard.as_mut_slice(), table.words_at.as_mut_slice());
        let (mut live, mut start_word) = (table.live.as_mut_slice(), 0);
        let part = |group: &'t Members| {
            let (runs, start) = (group.class.len(), start_word);
            start_word += group.words;
            Self {
                address: front(&mut address, runs),
                serial: front(&mut serial, runs),
                shard: front(&mut shard, runs),
                live: LiveColumns {
                    class: &group.class,
                    words_at: front(&mut words_at, runs),
                    live: front(&mut live, group.words),
                    start_word: start,
                },
            }
        };
        members.iter().map(part).collect()
    }
}

/// Takes the first `len` off a slice.
fn front<'t, T>(slice: &mut &'t mut [T], len: usize) -> &'t mut [T] {
    let (front, rest) = std::mem::take(slice).split_at_mut_checked(len).unwrap_or_default();
    *slice = rest;
    front
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
    fn bytes(&mut self, kind: Kind) -> Result<&[u8], SnapshotError> {
        self.entry(kind).map_or(Ok(&[]), |entry| self.unpacker.bytes(entry))
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
        let decoded = column::decode(bytes, |number| {
            values.push(value(number).filter(|_| values.len() < max)?);
            Some(())
        });
        decoded.map(|()| values).ok_or_else(|| self.corrupt(kind, "holds a number that cannot be"))
    }

    /// Fills `values` from a column of exactly as many.
    fn fill<T>(
        &mut self,
        kind: Kind,
        values: &mut [T],
        mut value: impl FnMut(i64) -> Option<T>,
    ) -> Result<(), SnapshotError> {
        let mut values = values.iter_mut();
        let decoded = column::decode(self.bytes(kind)?, |number| {
            *values.next()? = value(number)?;
            Some(())
        });
        if decoded.is_none() {
            return Err(self.corrupt(kind, "holds a number that cannot be"));
        }
        if values.next().is_some() { Err(self.corrupt(kind, "is too short")) } else { Ok(()) }
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

    fn members(&mut self, classes: &[RunClass], room: &Room) -> Result<Members, SnapshotError> {
        let mut words = 0;
        let class = self.column(Kind::RunClass, GROUP_ITEMS, |number| {
            let class = u16::try_from(number).ok()?;
            words += classes.get(usize::from(class))?.blocks.div_ceil(64) as usize;
            Some(class)
        })?;
        let words_max = GROUP_WORDS + RUN_BLOCKS_MAX.div_ceil(64) as usize;
        if words > words_max || !take(&room.runs, class.len()) || !take(&room.words, words) {
            let (what, limit) = ("the number of runs", RUNS_MAX as u64);
            return Err(SnapshotError::TooLarge { path: self.sections.image.path.into(), what, limit });
        }
        Ok(Members { class, words })
    }

    fn runs(&mut self, part: RunPart<'_>, classes: &[RunClass]) -> Result<(), SnapshotError> {
        let (mut next_class, mut expected) = (part.live.class.iter(), 0_u64);
        self.fill(Kind::RunAddress, part.address, |gap| {
            let address = expected.wrapping_add(gap.cast_unsigned());
            expected = address.wrapping_add(classes.get(usize::from(*next_class.next()?))?.run_bytes);
            Some(address)
        })?;
        self.fill(Kind::RunSerial, part.serial, running_sum())?;
        self.fill(Kind::RunShard, part.shard, |shard| u32::try_from(shard).ok())?;
        let states = self.bytes(Kind::RunState)?.to_vec();
        let filled = part.live.fill(classes, &states, self.bytes(Kind::RunWords)?);
        filled.ok_or_else(|| self.corrupt(Kind::RunState, "does not fit the words of the group"))
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
        let (mut usable, mut held, mut class) = (vec![0; len], vec![0; len], vec![0; len]);
        let (mut shard, mut serial, mut cached) = (vec![0; len], vec![0; len], vec![false; len]);
        self.fill(Kind::LargeUsable, &mut usable, |bytes| Some(bytes.cast_unsigned()))?;
        self.fill(Kind::LargeHeld, &mut held, |more| Some(more.cast_unsigned()))?;
        self.fill(Kind::LargeClass, &mut class, |more| Some(more.cast_unsigned()))?;
        self.fill(Kind::LargeShard, &mut shard, |shard| u32::try_from(shard).ok())?;
        self.fill(Kind::LargeSerial, &mut serial, running_sum())?;
        self.fill(Kind::LargeCached, &mut cached, |flag| {
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

impl LiveColumns<'_> {
    /// Fills in where each run's words are and what they are; `None` unless there is one state a run, and as
    /// many words as the states ask for.
    fn fill(self, classes: &[RunClass], states: &[u8], kept: &[u8]) -> Option<()> {
        let (mut live, mut word) = (self.live, self.start_word);
        let mut kept = words(kept);
        let mut states = states.iter();
        for (class, words_at) in self.class.iter().zip(self.words_at) {
            let blocks = classes.get(usize::from(*class))?.blocks;
            let run = front(&mut live, blocks.div_ceil(64) as usize);
            *words_at = u32::try_from(word).ok()?;
            word += run.len();
            match *states.next()? {
                STATE_EMPTY => {}
                STATE_FULL => {
                    run.fill(u64::MAX);
                    if let (Some(last), 1..) = (run.last_mut(), blocks % 64) {
                        *last >>= 64 - blocks % 64;
                    }
                }
                STATE_WORDS => run.iter_mut().try_for_each(|word| kept.next().map(|kept| *word = kept))?,
                _ => return None,
            }
        }
        (states.next().is_none() && kept.next().is_none()).then_some(())
    }
}
