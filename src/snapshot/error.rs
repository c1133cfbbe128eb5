//! What can go wrong with a snapshot file.

use super::Inconsistency;
use super::format::VERSION;
use std::io;
use std::path::{Path, PathBuf};

/// Why a snapshot file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
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
    /// The file does not start as a snapshot does.
    #[error("{} is not a heaptap snapshot: {found}", path.display())]
    NotSnapshot {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as its first bytes tell.
        found: String,
    },
    /// The file was written by a newer heaptap.
    #[error("{} has snapshot format {version}; this heaptap reads formats up to {VERSION}", path.display())]
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
    /// The file starts as a snapshot and then says what no snapshot says.
    #[error("{} is corrupt at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the part starts that is wrong.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Something is larger than the format allows.
    #[error("{}: {what} passes the limit of {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Something else has the name that the snapshot should get.
    #[error("{} exists and is {found}", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// Whether it would be replaced if the caller insisted.
        replaceable: bool,
    },
    /// The snapshot contradicts itself.
    #[error("the snapshot for {} contradicts itself: {fault}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        fault: Inconsistency,
    },
}

impl SnapshotError {
    /// The file that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::NotSnapshot { path, .. }
            | Self::Newer { path, .. }
            | Self::Truncated { path, .. }
            | Self::Corrupt { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Occupied { path, .. }
            | Self::Inconsistent { path, .. } => path,
        }
    }

    /// The next thing to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } => return io_hint(source),
            Self::NotSnapshot { .. } => "`heaptap snap PID -o FILE` writes a snapshot file",
            Self::Newer { .. } => "read it with the heaptap that wrote it, or a later one",
            Self::Truncated { .. } => {
                "copy it again from where it was written; what is left of it cannot be used"
            }
            Self::Corrupt { .. } => {
                "copy it again from where it was written, in binary mode; what it says cannot be trusted"
            }
            Self::TooLarge { .. } => {
                "the heap is beyond what one snapshot takes, or the file is not what it claims"
            }
            Self::Occupied { replaceable: true, .. } => "choose another name, or insist with --force",
            Self::Occupied { replaceable: false, .. } => "choose the name of a regular file",
            Self::Inconsistent { fault, .. } => return fault.hint(),
        };
        Some(hint.to_owned())
    }
}

fn io_hint(error: &io::Error) -> Option<String> {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "check the path; `heaptap snap PID -o FILE` writes a snapshot file",
        io::ErrorKind::PermissionDenied => "check the permissions of the file and of its directory",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another file system"
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose a directory that can be written",
        _ => return None,
    };
    Some(hint.to_owned())
}
