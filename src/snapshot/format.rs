//! The frame of a snapshot file: header, directory, sections. `docs/snapshot-format.md` is its description.
//!
//! It knows where bytes are and whether they are whole; it refuses to know what they mean.

use super::SnapshotError;
use crate::memory::{u16_at, u32_at, u64_at};
use std::ops::Range;
use std::path::Path;

/// The first bytes of every snapshot file; the first of them is no text character.
pub(super) const MAGIC: [u8; 8] = *b"\x89heaptap";
/// The format that this module writes.
pub(super) const VERSION: u32 = 1;
/// Magic, version, number of sections, length of the file, checksums of the directory and of the header.
pub(super) const HEADER_BYTES: usize = 32;
/// Kind, allocator, group, encoded and decoded length, checksum, zero.
pub(super) const ENTRY_BYTES: usize = 32;
/// The header's checksum is over what comes before it, in every version.
const HEADER_CRC_AT: usize = 28;

/// Most runs, and most large blocks, in a group: each group is compressed by itself, so that all processors work.
pub(super) const GROUP_ITEMS: usize = 1 << 15;
/// A group of runs is closed when it has this many bitmap words, whatever its number of runs.
pub(super) const GROUP_WORDS: usize = 1 << 20;
/// Most decoded bytes of a section that belongs to a group: its words, and those of one more run.
const GROUP_BYTES_MAX: u64 = (GROUP_WORDS as u64 + (1 << 14)) * 8;
/// Most decoded bytes of the other sections.
const SINGLE_BYTES_MAX: u64 = 1 << 28;
/// A zstd block takes at least 4 bytes and gives at most 128 KiB (RFC 8878, 3.1.1.2).
const EXPANSION_MAX: u64 = (128 << 10) / 4;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
#[allow(clippy::missing_docs_in_private_items)]
pub(super) enum Kind {
    Summary = 1,
    RunClasses = 2,
    Cached = 3,
    RunClass = 16,
    RunAddress = 17,
    RunSerial = 18,
    RunShard = 19,
    RunState = 20,
    RunWords = 21,
    LargeAddress = 32,
    LargeUsable = 33,
    LargeHeld = 34,
    LargeClass = 35,
    LargeShard = 36,
    LargeSerial = 37,
    LargeCached = 38,
}

impl Kind {
    const ALL: [Self; 16] = [
        Self::Summary,
        Self::RunClasses,
        Self::Cached,
        Self::RunClass,
        Self::RunAddress,
        Self::RunSerial,
        Self::RunShard,
        Self::RunState,
        Self::RunWords,
        Self::LargeAddress,
        Self::LargeUsable,
        Self::LargeHeld,
        Self::LargeClass,
        Self::LargeShard,
        Self::LargeSerial,
        Self::LargeCached,
    ];

    fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }

    /// Most bytes that a section of this kind decodes to.
    pub(super) fn decoded_bytes_max(self) -> u64 {
        match self {
            Self::Summary | Self::RunClasses | Self::Cached => SINGLE_BYTES_MAX,
            _ => GROUP_BYTES_MAX,
        }
    }
}

/// Which section: no two in a file are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SectionKey {
    /// Index of the allocator in the summary; 0 for the summary.
    pub allocator: u16,
    /// What it holds.
    pub kind: Kind,
    /// Which group of runs or large blocks; 0 for the other kinds.
    pub group: u32,
}

/// A section about to be written.
#[derive(Debug)]
pub(super) struct Section {
    pub key: SectionKey,
    pub decoded_bytes: u64,
    pub encoded: Vec<u8>,
}

/// The whole file of the given sections.
pub(super) fn assemble(sections: &[Section]) -> Vec<u8> {
    let encoded_bytes: usize = sections.iter().map(|section| section.encoded.len()).sum();
    let file_bytes = HEADER_BYTES + sections.len() * ENTRY_BYTES + encoded_bytes;
    let mut directory = Vec::with_capacity(sections.len() * ENTRY_BYTES);
    for section in sections {
        directory.extend((section.key.kind as u16).to_le_bytes());
        directory.extend(section.key.allocator.to_le_bytes());
        directory.extend(section.key.group.to_le_bytes());
        directory.extend((section.encoded.len() as u64).to_le_bytes());
        directory.extend(section.decoded_bytes.to_le_bytes());
        directory.extend(crc32fast::hash(&section.encoded).to_le_bytes());
        directory.extend(0_u32.to_le_bytes());
    }
    let mut file = Vec::with_capacity(file_bytes);
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend(u32::try_from(sections.len()).unwrap_or(u32::MAX).to_le_bytes());
    file.extend((file_bytes as u64).to_le_bytes());
    file.extend(crc32fast::hash(&directory).to_le_bytes());
    file.extend(crc32fast::hash(&file).to_le_bytes());
    file.append(&mut directory);
    sections.iter().for_each(|section| file.extend_from_slice(&section.encoded));
    file
}

/// One line of a directory that has been read.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: SectionKey,
    /// Where the section is in the file.
    pub range: Range<usize>,
    pub decoded_bytes: u64,
    crc: u32,
}

/// The bytes of a snapshot file, and the name to blame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image<'a> {
    pub path: &'a Path,
    pub bytes: &'a [u8],
}

impl Image<'_> {
    /// The directory of a file that is whole, of this version, and whose directory is as it was written.
    pub(super) fn directory(&self) -> Result<Vec<Entry>, SnapshotError> {
        let (entries, directory_crc) = self.header()?;
        let end = HEADER_BYTES.saturating_add(entries.saturating_mul(ENTRY_BYTES));
        let Some(directory) = self.bytes.get(HEADER_BYTES..end) else {
            return Err(self.corrupt(0, format!("{entries} sections do not fit into the file")));
        };
        if crc32fast::hash(directory) != directory_crc {
            return Err(self.corrupt(HEADER_BYTES, "the checksum of the directory is wrong"));
        }
        let mut section_at = end;
        let mut found = Vec::with_capacity(entries);
        for (entry_at, entry) in
            (HEADER_BYTES..).step_by(ENTRY_BYTES).zip(directory.chunks_exact(ENTRY_BYTES))
        {
            let entry = self.entry(entry_at, entry, section_at)?;
            section_at = entry.range.end;
            found.push(entry);
        }
        if section_at != self.bytes.len() {
            return Err(self.corrupt(section_at, "bytes follow the last section"));
        }
        found.sort_by_key(|entry| entry.key);
        let twice = found.windows(2).find(|pair| matches!(pair, [one, next] if one.key == next.key));
        match twice.and_then(<[Entry]>::last) {
            Some(second) => Err(self.corrupt(second.range.start, "the same section stands there twice")),
            None => Ok(found),
        }
    }

    /// Number of sections and checksum of the directory.
    fn header(&self) -> Result<(usize, u32), SnapshotError> {
        let start = self.bytes.get(..MAGIC.len()).unwrap_or(self.bytes);
        if !MAGIC.starts_with(start) {
            return Err(SnapshotError::NotSnapshot { path: self.path.into(), found: describe(self.bytes) });
        }
        let fields = (
            u32_at(self.bytes, 8),
            u32_at(self.bytes, 12),
            u64_at(self.bytes, 16),
            u32_at(self.bytes, 24),
            u32_at(self.bytes, HEADER_CRC_AT),
        );
        let (Some(version), Some(sections), Some(file_bytes), Some(directory_crc), Some(crc)) = fields else {
            return Err(self.truncated(HEADER_BYTES as u64));
        };
        if self.bytes.get(..HEADER_CRC_AT).map(crc32fast::hash) != Some(crc) {
            return Err(self.corrupt(0, "the checksum of the header is wrong"));
        }
        if version > VERSION {
            return Err(SnapshotError::Newer { path: self.path.into(), version });
        }
        if version == 0 {
            return Err(self.corrupt(8, "format 0 does not exist"));
        }
        let found_bytes = self.bytes.len() as u64;
        if found_bytes < file_bytes {
            return Err(self.truncated(file_bytes));
        }
        if found_bytes > file_bytes {
            return Err(self.corrupt(file_bytes, "bytes follow the end of the snapshot"));
        }
        Ok((sections as usize, directory_crc))
    }

    fn entry(&self, entry_at: usize, entry: &[u8], section_at: usize) -> Result<Entry, SnapshotError> {
        let fields = (
            u16_at(entry, 0),
            u16_at(entry, 2),
            u32_at(entry, 4),
            u64_at(entry, 8),
            u64_at(entry, 16),
            u32_at(entry, 24),
        );
        let (Some(kind), Some(allocator), Some(group), Some(encoded_bytes), Some(decoded_bytes), Some(crc)) =
            fields
        else {
            return Err(self.corrupt(entry_at, "the directory ends within an entry"));
        };
        let Some(kind) = Kind::of(kind) else {
            return Err(self.corrupt(entry_at, format!("sections of kind {kind} do not exist")));
        };
        let end = usize::try_from(encoded_bytes).ok().and_then(|len| section_at.checked_add(len));
        let Some(end) = end.filter(|&end| end <= self.bytes.len()) else {
            return Err(self.corrupt(entry_at, "a section passes the end of the file"));
        };
        if decoded_bytes > kind.decoded_bytes_max() || decoded_bytes / EXPANSION_MAX > encoded_bytes {
            return Err(
                self.corrupt(entry_at, format!("a section claims to decode to {decoded_bytes} bytes"))
            );
        }
        Ok(Entry { key: SectionKey { allocator, kind, group }, range: section_at..end, decoded_bytes, crc })
    }

    /// The encoded bytes of a section, as they were written.
    pub(super) fn encoded(&self, entry: &Entry) -> Result<&[u8], SnapshotError> {
        let bytes = self.bytes.get(entry.range.clone()).unwrap_or_default();
        if crc32fast::hash(bytes) == entry.crc {
            Ok(bytes)
        } else {
            Err(self.corrupt(entry.range.start, format!("the checksum of {:?} is wrong", entry.key.kind)))
        }
    }

    /// The error for a part of the file that is not as it should be.
    pub(super) fn corrupt(&self, offset: impl TryInto<u64>, what: impl Into<String>) -> SnapshotError {
        let offset = offset.try_into().unwrap_or(u64::MAX);
        SnapshotError::Corrupt { path: self.path.into(), offset, what: what.into() }
    }

    fn truncated(&self, expected_bytes: u64) -> SnapshotError {
        let found_bytes = self.bytes.len() as u64;
        SnapshotError::Truncated { path: self.path.into(), expected_bytes, found_bytes }
    }
}

/// What a file is that does not start as a snapshot, for people who mixed up two files.
pub(super) fn describe(start: &[u8]) -> String {
    let known: [(&[u8], &str); 5] = [
        (b"\x7fELF", "an ELF file, such as a core"),
        (b"{", "JSON text, perhaps the output of --json"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"", "no snapshot's first bytes"),
    ];
    let found = known.into_iter().find(|(magic, _)| start.starts_with(magic));
    found.map_or("no snapshot's first bytes", |(_, name)| name).to_owned()
}
