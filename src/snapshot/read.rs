//! A snapshot from the bytes of a file, which may say anything.
//!
//! Nothing is believed: lengths are bounded by what the file has, sums by the limits of the format, and what
//! has been decoded must pass the same check as a snapshot that has just been taken.

use super::format::{self, Entry, HEADER_BYTES, Image, Kind, MAGIC, SectionKey};
use super::sections::{AllocatorSections, Room, Unpacker};
use super::{Snapshot, SnapshotError, Summary};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Most bytes of a file that is read; the largest heap that fits the other limits needs less.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// Reads a snapshot file.
///
/// # Errors
/// The operating system refused, or the file is no snapshot, newer, truncated, corrupt or too large.
pub fn read(path: &Path) -> Result<Snapshot, SnapshotError> {
    from_bytes(&file_bytes(path)?, path)
}

/// Reads only the summary of a snapshot file.
///
/// # Errors
/// As [`read`], as far as the summary is concerned.
pub fn read_summary(path: &Path) -> Result<Summary, SnapshotError> {
    let bytes = file_bytes(path)?;
    let image = Image { path, bytes: &bytes };
    summary(image, &image.directory()?)
}

/// Whether the file starts as a snapshot does, whole or not.
///
/// # Errors
/// The operating system refused.
pub fn is_snapshot(path: &Path) -> Result<bool, SnapshotError> {
    let mut file = open(path)?;
    Ok(start_of(&mut file, path)?.starts_with(&MAGIC))
}

/// Reads a snapshot from the bytes of a file; `path` is named in errors.
///
/// # Errors
/// The bytes are no snapshot, newer, truncated, corrupt or too large.
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Snapshot, SnapshotError> {
    let image = Image { path, bytes };
    let directory = image.directory()?;
    let summary = summary(image, &directory)?;
    let mut liveness = Vec::with_capacity(summary.allocators.len().min(directory.len()));
    let room = Room::default();
    let mut rest = directory.as_slice();
    for allocator in 0..summary.allocators.len() {
        let number =
            u16::try_from(allocator).map_err(|_| image.corrupt(0, "there are too many allocators"))?;
        let (entries, others) = rest.split_at(rest.partition_point(|entry| entry.key.allocator <= number));
        rest = others;
        liveness.push(AllocatorSections { image, allocator: number, entries }.liveness(&room)?);
    }
    match rest.first() {
        Some(entry) => {
            Err(image.corrupt(entry.range.start, "a section of an allocator that is not summarised"))
        }
        None => Ok(Snapshot { summary, liveness }),
    }
}

fn open(path: &Path) -> Result<File, SnapshotError> {
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let metadata = file.metadata().map_err(|source| io_error(path, source))?;
    if metadata.is_file() {
        return Ok(file);
    }
    let found = if metadata.is_dir() { "a directory" } else { "not a regular file" };
    Err(SnapshotError::NotSnapshot { path: path.into(), found: found.to_owned() })
}

/// The first bytes, so that a core of many gigabytes is not read to find that it is one.
fn start_of(file: &mut File, path: &Path) -> Result<Vec<u8>, SnapshotError> {
    let mut start = Vec::with_capacity(HEADER_BYTES);
    let read = file.take(HEADER_BYTES as u64).read_to_end(&mut start);
    read.map_err(|source| io_error(path, source))?;
    Ok(start)
}

fn file_bytes(path: &Path) -> Result<Vec<u8>, SnapshotError> {
    let mut file = open(path)?;
    let mut bytes = start_of(&mut file, path)?;
    if !bytes.starts_with(&MAGIC) && bytes.len() >= MAGIC.len() {
        return Err(SnapshotError::NotSnapshot { path: path.into(), found: format::describe(&bytes) });
    }
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|source| io_error(path, source))?;
    if read as u64 >= FILE_BYTES_MAX {
        return Err(SnapshotError::TooLarge { path: path.into(), what: "the file", limit: FILE_BYTES_MAX });
    }
    Ok(bytes)
}

fn io_error(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: path.into(), action: "read", source }
}

fn summary(image: Image<'_>, directory: &[Entry]) -> Result<Summary, SnapshotError> {
    let key = SectionKey { allocator: 0, kind: Kind::Summary, group: 0 };
    let found = directory.binary_search_by_key(&key, |entry| entry.key).ok().and_then(|at| directory.get(at));
    let Some(entry) = found else { return Err(image.corrupt(HEADER_BYTES, "there is no summary")) };
    let mut unpacker = Unpacker::new(image)?;
    serde_json::from_slice(unpacker.bytes(entry)?).map_err(|error| {
        image.corrupt(entry.range.start, format!("the summary cannot be understood: {error}"))
    })
}
