//! Recording files: what is kept of a recording, compressed, with a checksum. `docs/recording-format.md` is their
//! description.
//!
//! A file is believed when every part of it is as it was written and nothing in it points to where nothing is; it is
//! refused else.

use super::kept::{Kept, SCHEMA};
use crate::memory::{u32_at, u64_at};
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The first bytes of every recording file; the first of them is no text character.
const MAGIC: [u8; 8] = *b"\x89heaprec";
/// The format that this module writes.
const VERSION: u32 = 1;
/// Magic, version, zero, decoded and encoded length, checksums of the encoded bytes and of the header.
const HEADER_BYTES: usize = 40;
/// Where the header's own checksum is: it is over what comes before it.
const HEADER_CRC_AT: usize = 36;
/// Most bytes of the text inside.
const DECODED_BYTES_MAX: u64 = 1 << 30;
/// Higher levels take several times as long for files that are hardly smaller.
const ZSTD_LEVEL: i32 = 3;

/// Why a recording file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingFileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as in `read`.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file does not start as a recording does.
    #[error("{} is no heaptap recording", path.display())]
    NotRecording {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer heaptap.
    #[error("{} has recording format {version}; this heaptap reads formats up to {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format version.
        version: u32,
    },
    /// The file ends too early.
    #[error("{} is truncated at byte {found_bytes} of {expected_bytes}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that it should have; where not even its header is whole, the bytes of that.
        expected_bytes: u64,
        /// Bytes that it has.
        found_bytes: u64,
    },
    /// The file starts as a recording and then says what no recording says.
    #[error("{} is corrupt: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Something else has the name that the recording should get.
    #[error("{} exists and is no recording", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
    },
}

impl RecordingFileError {
    /// The next thing to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { .. } => None,
            Self::NotRecording { .. } => Some("`heaptap record PID -o FILE` writes a recording file"),
            Self::Newer { .. } => Some("read it with the heaptap that wrote it, or a later one"),
            Self::Truncated { .. } | Self::Corrupt { .. } => Some(
                "copy it again from where it was written, in binary mode; what it says cannot be trusted",
            ),
            Self::Occupied { .. } => Some("choose another name, or replace it with --force"),
        }
    }
}

/// Whether a file starts as a recording does.
pub fn is_recording(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC
}

/// Refuses a name under which something lies that is neither a recording nor empty, unless it may be replaced; asked
/// before a recording begins, which would else be lost.
///
/// # Errors
/// The name is taken.
pub fn refuse_occupied(path: &Path, replace: bool) -> Result<(), RecordingFileError> {
    let occupied = || RecordingFileError::Occupied { path: path.into() };
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {
            if replace || found.len() == 0 || is_recording(path) {
                Ok(())
            } else {
                Err(occupied())
            }
        }
        Ok(_) => Err(occupied()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RecordingFileError::Io { path: path.into(), action: "look at", source }),
    }
}

/// Writes a recording so that the name has either what it had or all of the new file.
///
/// # Errors
/// Something that may not be replaced has the name, or the operating system refused.
pub fn write(kept: &Kept, path: &Path, replace: bool) -> Result<(), RecordingFileError> {
    refuse_occupied(path, replace)?;
    let failed = |source| RecordingFileError::Io { path: path.into(), action: "write", source };
    let bytes = to_bytes(kept).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As any file is that is made anew: who may read it is the user's setting.
    let mode = Permissions::from_mode(0o666);
    let mut beside = tempfile::Builder::new().permissions(mode).tempfile_in(folder).map_err(failed)?;
    beside.write_all(&bytes).map_err(failed)?;
    beside.persist(path).map(|_| ()).map_err(|error| failed(error.error))
}

/// The bytes of a recording file.
///
/// # Errors
/// It could not be compressed.
pub fn to_bytes(kept: &Kept) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(kept)?;
    let encoded = zstd::bulk::compress(&text, ZSTD_LEVEL)?;
    let mut file = Vec::with_capacity(HEADER_BYTES + encoded.len());
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    file.extend((text.len() as u64).to_le_bytes());
    file.extend((encoded.len() as u64).to_le_bytes());
    file.extend(crc32fast::hash(&encoded).to_le_bytes());
    file.extend(crc32fast::hash(&file).to_le_bytes());
    file.extend(encoded);
    Ok(file)
}

/// Reads a recording file.
///
/// # Errors
/// It is none, is damaged, or the operating system refused.
pub fn read(path: &Path) -> Result<Kept, RecordingFileError> {
    let failed = |source| RecordingFileError::Io { path: path.into(), action: "read", source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(DECODED_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    from_bytes(&bytes, path)
}

/// What the bytes of a recording file say; `path` is named in errors.
///
/// # Errors
/// They are no recording, or a damaged one.
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Kept, RecordingFileError> {
    let corrupt = |what: &str| RecordingFileError::Corrupt { path: path.into(), what: what.to_owned() };
    let (decoded_bytes, encoded) = frame(bytes, path)?;
    let decoder = zstd::stream::read::Decoder::new(encoded)
        .map_err(|_| corrupt("its contents are not compressed as they should be"))?;
    let mut text = Vec::new();
    // One byte more than announced tells that there is more.
    let read = decoder.take(decoded_bytes + 1).read_to_end(&mut text);
    read.map_err(|_| corrupt("its contents cannot be decompressed"))?;
    if text.len() as u64 != decoded_bytes {
        return Err(corrupt("its contents are not as long as its header says"));
    }
    let kept: Kept = serde_json::from_slice(&text)
        .map_err(|error| corrupt(&format!("its contents are no recording: {error}")))?;
    match contradiction(&kept) {
        Some(what) => Err(corrupt(&what)),
        None => Ok(kept),
    }
}

/// The encoded bytes, checked, and the length that they decode to.
fn frame<'b>(bytes: &'b [u8], path: &Path) -> Result<(u64, &'b [u8]), RecordingFileError> {
    let corrupt = |what: &str| RecordingFileError::Corrupt { path: path.into(), what: what.to_owned() };
    if !bytes.starts_with(&MAGIC) {
        return Err(RecordingFileError::NotRecording { path: path.into() });
    }
    let truncated = |expected_bytes| RecordingFileError::Truncated {
        path: path.into(),
        expected_bytes,
        found_bytes: bytes.len() as u64,
    };
    let fields = (
        u32_at(bytes, 8),
        u64_at(bytes, 16),
        u64_at(bytes, 24),
        u32_at(bytes, 32),
        u32_at(bytes, HEADER_CRC_AT),
    );
    let (Some(version), Some(decoded_bytes), Some(encoded_bytes), Some(crc), Some(header_crc)) = fields
    else {
        return Err(truncated(HEADER_BYTES as u64));
    };
    if bytes.get(..HEADER_CRC_AT).map(crc32fast::hash) != Some(header_crc) {
        return Err(corrupt("the checksum of its header is wrong"));
    }
    if version != VERSION {
        return Err(RecordingFileError::Newer { path: path.into(), version });
    }
    if decoded_bytes > DECODED_BYTES_MAX {
        return Err(corrupt(&format!("it claims to hold {decoded_bytes} bytes of text")));
    }
    let encoded = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let found_bytes = encoded.len() as u64;
    if found_bytes < encoded_bytes {
        return Err(truncated(encoded_bytes.saturating_add(HEADER_BYTES as u64)));
    }
    if found_bytes > encoded_bytes {
        return Err(corrupt("bytes follow its end"));
    }
    if crc32fast::hash(encoded) != crc {
        return Err(corrupt("the checksum of its contents is wrong"));
    }
    Ok((decoded_bytes, encoded))
}

/// What in it cannot be, though it is well formed.
fn contradiction(kept: &Kept) -> Option<String> {
    if kept.schema != SCHEMA {
        return Some(format!("its contents are of schema {:?}", kept.schema));
    }
    let (stacks, types) = (kept.stacks.len(), kept.types.len());
    for (index, sample) in kept.samples.iter().enumerate() {
        if sample.stack >= stacks {
            return Some(format!("sample {index} has stack {} of {stacks}", sample.stack));
        }
        if sample.type_index.is_some_and(|index| index >= types) {
            return Some(format!("sample {index} has a type that is not there"));
        }
        if !(sample.weight.is_finite() && sample.weight >= 0.0) {
            return Some(format!("sample {index} has the weight {}", sample.weight));
        }
    }
    if kept.large.iter().any(|large| large.stack >= stacks || !large.delta_blocks.is_finite()) {
        return Some("growth of large blocks has a stack that is not there".to_owned());
    }
    let grown = kept.grown.iter().find(|grown| grown.type_index >= types || !grown.delta_blocks.is_finite());
    grown.map(|grown| format!("growth of {} bytes has a type that is not there", grown.size_bytes))
}
