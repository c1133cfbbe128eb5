//! What can go wrong with a core file.

use std::io;
use std::path::{Path, PathBuf};

/// Why a core file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CoreFileError {
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
    /// The file is something else.
    #[error("{} is neither a snapshot nor a core file: {found}", path.display())]
    NotCore {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as it shows.
        found: String,
    },
    /// A core of a kind that is not read.
    #[error("{} is a core file of a kind that is not supported: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What kind.
        what: String,
    },
    /// The file ends before its headers and notes do.
    #[error("{} is truncated: it ends at byte {found_bytes}, within {what}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that it has.
        found_bytes: u64,
        /// What is not whole.
        what: &'static str,
    },
    /// The file contradicts itself.
    #[error("{} is corrupt at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the part starts that is wrong.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The capture was written by a newer heaptap.
    #[error("{} has the capture format `{schema}`, which this heaptap does not know", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        schema: String,
    },
    /// The capture needs more headers than a core can have.
    #[error("{}: {segments} segments are more than a core file can have", path.display())]
    TooManySegments {
        /// The file.
        path: PathBuf,
        /// Segments needed.
        segments: usize,
    },
}

impl CoreFileError {
    /// The next thing to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } => return io_hint(source),
            Self::NotCore { .. } => {
                "`heaptap snap PID -o FILE` writes a snapshot, `heaptap capture PID -o FILE` a capture"
            }
            Self::Unsupported { .. } => "cores of 64-bit little-endian x86-64 and aarch64 processes are read",
            Self::Truncated { .. } => {
                "copy it again from where it was written; look for a limit on core size"
            }
            Self::Corrupt { .. } => "copy it again from where it was written, in binary mode",
            Self::Newer { .. } => "read it with the heaptap that wrote it, or a later one",
            Self::TooManySegments { .. } => "report this: it is a limit of heaptap",
        };
        Some(hint.to_owned())
    }

    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }
}

fn io_hint(error: &io::Error) -> Option<String> {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the permissions of the file and of its directory",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another file system"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
