//! A new content for a file name: whole or not at all, and never in place of something precious.

use super::SnapshotError;
use super::format::MAGIC;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Which files may be replaced by a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Snapshots and empty files.
    #[default]
    Snapshots,
    /// Any regular file.
    AnyFile,
}

/// A file under a name of its own beside the name that it is to get; removed unless it is published.
#[derive(Debug)]
pub(super) struct Replacement {
    target: PathBuf,
    partial_path: PathBuf,
    partial: File,
    published: bool,
}

impl Replacement {
    /// Reserves a place beside `target`; a link is followed, so that what it points to is replaced.
    pub(super) fn of(target: &Path, overwrite: Overwrite) -> Result<Self, SnapshotError> {
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        refuse_occupied(&target, overwrite)?;
        for attempt in 0..1000_u32 {
            let partial_path =
                target.with_file_name(format!(".heaptap-{}-{attempt}.partial", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&partial_path) {
                Ok(partial) => return Ok(Self { target, partial_path, partial, published: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(io_error(&target, "write", source)),
            }
        }
        Err(io_error(&target, "write", io::ErrorKind::AlreadyExists.into()))
    }

    /// Gives `bytes` the name: readers see the old file or all of the new one.
    pub(super) fn publish(mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let renamed =
            self.partial.write_all(bytes).and_then(|()| fs::rename(&self.partial_path, &self.target));
        renamed.map_err(|source| io_error(&self.target, "write", source))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a failure here, and the error that led here is the one to report.
            let _ = fs::remove_file(&self.partial_path);
        }
    }
}

/// Refuses names that belong to something which a snapshot must not replace.
fn refuse_occupied(path: &Path, overwrite: Overwrite) -> Result<(), SnapshotError> {
    let occupied = |found: &str, replaceable| {
        Err(SnapshotError::Occupied { path: path.into(), found: found.to_owned(), replaceable })
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error(path, "look at", source)),
    };
    if metadata.is_dir() {
        return occupied("a directory", false);
    }
    if !metadata.is_file() {
        return occupied("not a regular file", false);
    }
    if overwrite == Overwrite::AnyFile {
        return Ok(());
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    read.map_err(|source| io_error(path, "look into", source))?;
    if start.is_empty() || start == MAGIC { Ok(()) } else { occupied("not a heaptap snapshot", true) }
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: path.into(), action, source }
}
