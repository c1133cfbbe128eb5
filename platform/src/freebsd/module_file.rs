//! The file behind a mapping, found by its path.

use super::{Process, process_table};
use crate::{Mapping, ProcessError};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How a module's file was found, and so how sure it is that it is the mapped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// By its path; file system and number of the file agree with the mapping.
    Path,
    /// By its path; the file's number agrees and the file system's does not.
    PathAndInode,
    /// By its path alone: the file there is another one than the mapped one, perhaps a newer build. Compare build ids before use.
    SameNameOnly,
}

impl FoundBy {
    /// Whether the file is certainly, or as good as certainly, the one that is mapped.
    pub const fn is_mapped_file(self) -> bool {
        !matches!(self, Self::SameNameOnly)
    }
}

/// A module's file, open for reading.
#[derive(Debug)]
pub struct ModuleFile {
    /// The file.
    pub file: File,
    /// How it was found.
    pub found_by: FoundBy,
}

impl Process {
    /// Opens the file that `mapping` shows. The kernel gives its path as this tool sees it, also for a process in a jail below.
    ///
    /// # Errors
    ///
    /// [`ProcessError::ModuleUnavailable`] with what was tried.
    pub fn open_module(&self, mapping: &Mapping) -> Result<ModuleFile, ProcessError> {
        let path = mapping.path().unwrap_or_else(|| Path::new("(no file)"));
        let file = open_regular(path).map_err(|error| ProcessError::ModuleUnavailable {
            pid: self.pid(),
            path: path.to_owned(),
            reason: format!("path: {error}"),
        })?;
        let found_by = identity(&file, mapping);
        Ok(ModuleFile { file, found_by })
    }

    /// Opens a file by a path as the process means it: below its own root. For debug files beside a module.
    ///
    /// # Errors
    ///
    /// The error of the system; also where the path leads to something else than a regular file.
    pub fn open_in_root(&self, path: &Path) -> io::Result<File> {
        let root = process_table::root_folder(self.pid()).unwrap_or_else(|| PathBuf::from("/"));
        // Paths of modules have the root in front already.
        if path.starts_with(&root) {
            return open_regular(path);
        }
        open_regular(&root.join(path.strip_prefix("/").unwrap_or(path)))
    }

    /// Opens the program's file.
    ///
    /// # Errors
    ///
    /// The error of the system; also where the kernel knows no path of it.
    pub fn open_executable(&self) -> io::Result<File> {
        open_regular(self.executable().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?)
    }
}

/// Devices can be mapped too, and opening one may act on it.
fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)
}

/// How far the file agrees with what the mapping says of its file.
fn identity(file: &File, mapping: &Mapping) -> FoundBy {
    let Ok(metadata) = file.metadata() else { return FoundBy::SameNameOnly };
    let (high, low) = mapping.device;
    if metadata.ino() != mapping.inode || mapping.inode == 0 {
        FoundBy::SameNameOnly
    } else if metadata.dev() == u64::from(high) << 32 | u64::from(low) {
        FoundBy::Path
    } else {
        FoundBy::PathAndInode
    }
}
