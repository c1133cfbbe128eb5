//! A snapshot as the bytes of a file.

use super::format::{self, GROUP_ITEMS, GROUP_WORDS, Kind, Section, SectionKey};
use super::liveness::Liveness;
use super::replacement::{Overwrite, Replacement};
use super::{Snapshot, SnapshotError, column};
use crate::allocator::{Block, RunClass};
use rayon::prelude::*;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Higher levels take several times as long for files that are hardly smaller.
const ZSTD_LEVEL: i32 = 1;

/// A run without a live block; it has no words in the file.
pub(super) const STATE_EMPTY: u8 = 0;
/// A run all of whose blocks are live; it has no words in the file.
pub(super) const STATE_FULL: u8 = 1;
/// A run whose words are in the file.
pub(super) const STATE_WORDS: u8 = 2;

/// Writes a snapshot so that at every moment either the old file or the whole new one has the name, and returns
/// the length of the file in bytes.
///
/// # Errors
/// The snapshot contradicts itself, something that may not be replaced has the name, or the operating system
/// refused. No file is left behind then.
pub fn write(snapshot: &Snapshot, path: &Path, overwrite: Overwrite) -> Result<u64, SnapshotError> {
    let replacement = Replacement::of(path, overwrite)?;
    let bytes = to_bytes(snapshot, path)?;
    replacement.publish(&bytes)?;
    Ok(bytes.len() as u64)
}

/// The bytes of a snapshot file; `path` is named in errors.
///
/// # Errors
/// The snapshot contradicts itself or is too large.
pub fn to_bytes(snapshot: &Snapshot, path: &Path) -> Result<Vec<u8>, SnapshotError> {
    snapshot.check().map_err(|fault| SnapshotError::Inconsistent { path: path.into(), fault })?;
    let mut parts = vec![Part { allocator: 0, group: 0, content: Content::Summary(snapshot) }];
    for (allocator, liveness) in snapshot.liveness.iter().enumerate() {
        let Ok(allocator) = u16::try_from(allocator) else {
            let limit = u64::from(u16::MAX);
            return Err(SnapshotError::TooLarge {
                path: path.into(),
                what: "the number of allocators",
                limit,
            });
        };
        parts.extend(parts_of(allocator, liveness));
    }
    let encoded: io::Result<Vec<Vec<Section>>> = parts.par_iter().map(Part::encode).collect();
    let encode_error = |source| SnapshotError::Io { path: path.into(), action: "encode", source };
    let sections = encoded.map_err(encode_error)?;
    let sections: Vec<Section> = sections.into_iter().flatten().collect();
    match sections.iter().find(|section| section.decoded_bytes > section.key.kind.decoded_bytes_max()) {
        Some(section) => {
            let limit = section.key.kind.decoded_bytes_max();
            Err(SnapshotError::TooLarge { path: path.into(), what: "a section", limit })
        }
        None => Ok(format::assemble(&sections)),
    }
}

/// What one task encodes.
#[derive(Debug)]
struct Part<'a> {
    allocator: u16,
    group: u32,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Summary(&'a Snapshot),
    RunClasses(&'a [RunClass]),
    Runs(&'a Liveness, Range<usize>),
    Cached(&'a Liveness),
    Large(&'a [Block]),
}

/// All of an allocator's blocks, cut into groups.
fn parts_of(allocator: u16, liveness: &Liveness) -> Vec<Part<'_>> {
    let single = |content| Part { allocator, group: 0, content };
    let mut parts =
        vec![single(Content::RunClasses(&liveness.run_classes)), single(Content::Cached(liveness))];
    for (group, range) in (0..).zip(run_groups(liveness)) {
        parts.push(Part { allocator, group, content: Content::Runs(liveness, range) });
    }
    for (group, blocks) in (0..).zip(liveness.large.blocks.chunks(GROUP_ITEMS)) {
        parts.push(Part { allocator, group, content: Content::Large(blocks) });
    }
    parts
}

/// Ranges of runs, each with few enough runs and words for one group.
fn run_groups(liveness: &Liveness) -> Vec<Range<usize>> {
    let runs = &liveness.runs;
    let mut groups = Vec::new();
    let (mut start, mut start_word) = (0, 0);
    for index in 1..=runs.len() {
        let end_word = runs.word_range(index - 1).end;
        if index - start == GROUP_ITEMS || end_word - start_word >= GROUP_WORDS || index == runs.len() {
            groups.push(start..index);
            (start, start_word) = (index, end_word);
        }
    }
    groups
}

impl Part<'_> {
    fn encode(&self) -> io::Result<Vec<Section>> {
        let columns = match &self.content {
            Content::Summary(snapshot) => vec![(Kind::Summary, serde_json::to_vec(&snapshot.summary)?)],
            Content::RunClasses(classes) => vec![(Kind::RunClasses, run_classes(classes))],
            Content::Runs(liveness, range) => run_columns(liveness, range.clone()),
            Content::Cached(liveness) => vec![(Kind::Cached, cached(liveness))],
            Content::Large(blocks) => large_columns(blocks),
        };
        let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        let sections = columns.into_iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(kind, bytes)| {
            let key = SectionKey { allocator: self.allocator, kind, group: self.group };
            Ok(Section { key, decoded_bytes: bytes.len() as u64, encoded: compressor.compress(&bytes)? })
        });
        sections.collect()
    }
}

fn run_classes(classes: &[RunClass]) -> Vec<u8> {
    let values = classes.iter().flat_map(|class| {
        [class.block_bytes.cast_signed(), class.run_bytes.cast_signed(), i64::from(class.blocks)]
    });
    column::encode(&values.collect::<Vec<_>>())
}

/// The columns of a group of runs. Addresses count from the end of the run before, serials from its serial.
fn run_columns(liveness: &Liveness, range: Range<usize>) -> Vec<(Kind, Vec<u8>)> {
    let runs = &liveness.runs;
    let address = runs.address.get(range.clone()).unwrap_or_default();
    let serial = runs.serial.get(range.clone()).unwrap_or_default();
    let class = runs.class.get(range.clone()).unwrap_or_default();
    let shard = runs.shard.get(range.clone()).unwrap_or_default();
    let mut expected = 0;
    let gaps = address.iter().zip(class).map(|(&address, &class)| {
        let gap = address.wrapping_sub(expected).cast_signed();
        let run_bytes = liveness.run_classes.get(usize::from(class)).map_or(0, |class| class.run_bytes);
        expected = address.wrapping_add(run_bytes);
        gap
    });
    let (state, words) = states(liveness, range);
    vec![
        (Kind::RunClass, column::encode(&class.iter().map(|&class| i64::from(class)).collect::<Vec<_>>())),
        (Kind::RunAddress, column::encode(&gaps.collect::<Vec<_>>())),
        (Kind::RunSerial, column::encode(&steps(serial.iter().copied()))),
        (Kind::RunShard, column::encode(&shard.iter().map(|&shard| i64::from(shard)).collect::<Vec<_>>())),
        (Kind::RunState, state),
        (Kind::RunWords, words),
    ]
}

/// One state a run, and the words of those that are neither empty nor full.
fn states(liveness: &Liveness, range: Range<usize>) -> (Vec<u8>, Vec<u8>) {
    let runs = &liveness.runs;
    let mut state = Vec::with_capacity(range.len());
    let mut bytes = Vec::new();
    for index in range {
        let words = runs.words(index);
        let class = runs.class.get(index).and_then(|&class| liveness.run_classes.get(usize::from(class)));
        let live: u32 = words.iter().map(|word| word.count_ones()).sum();
        if live == 0 {
            state.push(STATE_EMPTY);
        } else if class.is_some_and(|class| class.blocks == live) {
            state.push(STATE_FULL);
        } else {
            state.push(STATE_WORDS);
            words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        }
    }
    (state, bytes)
}

/// Each value as the difference from the one before.
fn steps(values: impl Iterator<Item = u64>) -> Vec<i64> {
    let mut previous = 0;
    let steps = values.map(|value| value.wrapping_sub(std::mem::replace(&mut previous, value)).cast_signed());
    steps.collect()
}

/// Pairs: how many runs after the previous cached block's run, and the block's index in its run.
fn cached(liveness: &Liveness) -> Vec<u8> {
    let mut values = Vec::with_capacity(liveness.runs.cached.len() * 2);
    let (mut run, mut previous) = (0, 0);
    for &(address, block) in &liveness.runs.cached {
        while liveness.runs.address.get(run).is_some_and(|&at| at < address) {
            run += 1;
        }
        values.push((run - std::mem::replace(&mut previous, run)) as i64);
        values.push(i64::from(block));
    }
    column::encode(&values)
}

/// The columns of a group of large blocks. What is held counts from what is usable, and so does the class.
fn large_columns(blocks: &[Block]) -> Vec<(Kind, Vec<u8>)> {
    let each = |value: fn(&Block) -> i64| column::encode(&blocks.iter().map(value).collect::<Vec<_>>());
    vec![
        (Kind::LargeAddress, column::encode(&steps(blocks.iter().map(|block| block.address)))),
        (Kind::LargeUsable, each(|block| block.usable_bytes.cast_signed())),
        (Kind::LargeHeld, each(|block| block.held_bytes.wrapping_sub(block.usable_bytes).cast_signed())),
        (Kind::LargeClass, each(|block| block.class_bytes.wrapping_sub(block.usable_bytes).cast_signed())),
        (Kind::LargeShard, each(|block| i64::from(block.shard))),
        (Kind::LargeSerial, column::encode(&steps(blocks.iter().map(|block| block.serial)))),
        (Kind::LargeCached, each(|block| i64::from(block.cached))),
    ]
}
