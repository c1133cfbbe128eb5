//! The file behind a mapping, even if its name was removed or means another file by now.

use super::{Process, proc_file, root_path};
use crate::{Mapping, ProcessError};
use nix::sys::stat::{major, minor};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How a module's file was found, and so how sure it is that it is the mapped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// Through the mapping itself (`/proc/PID/map_files`): it is the mapped file.
    MapFiles,
    /// By its path in the process's own root; device and inode agree with the mapping.
    Path,
    /// By its path in the process's own root; the inode agrees and the device does not, as is usual on btrfs and on overlay
    /// file systems.
    PathAndInode,
    /// Through `/proc/PID/exe`; device and inode, or at least the inode, agree with the mapping.
    Executable,
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
    /// Opens the file that `mapping` shows. Tries the mapping itself, then the path in the process's own root, then the
    /// program's own file; last a file that has the name only, which the result then says.
    ///
    /// # Errors
    ///
    /// [`ProcessError::ModuleUnavailable`] with what was tried.
    pub fn open_module(&self, mapping: &Mapping) -> Result<ModuleFile, ProcessError> {
        let path = mapping.path().unwrap_or_else(|| Path::new("(no file)"));
        let mut tried = Vec::new();
        match self.open_map_file(mapping) {
            Ok(file) => return Ok(ModuleFile { file, found_by: FoundBy::MapFiles }),
            Err(error) => tried.push(format!("map_files: {error}")),
        }
        let by_path = if mapping.path().is_some() { Some(self.open_in_root(path)) } else { None };
        let mut same_name = None;
        match by_path {
            Some(Ok(file)) => match identity(&file, mapping) {
                Some(found_by) => return Ok(ModuleFile { file, found_by }),
                None => same_name = Some(file),
            },
            Some(Err(error)) => tried.push(format!("path: {error}")),
            None => {}
        }
        match self.open_executable() {
            Ok(file) if identity(&file, mapping).is_some() => {
                return Ok(ModuleFile { file, found_by: FoundBy::Executable });
            }
            Ok(_) => tried.push("exe: another file".to_owned()),
            Err(error) => tried.push(format!("exe: {error}")),
        }
        same_name.map(|file| ModuleFile { file, found_by: FoundBy::SameNameOnly }).ok_or_else(|| {
            ProcessError::ModuleUnavailable {
                pid: self.pid(),
                path: path.to_owned(),
                reason: tried.join("; "),
            }
        })
    }

    /// Opens a file by a path as the process means it: in its own root and mounts, links included. For debug files beside a
    /// module.
    ///
    /// # Errors
    ///
    /// The error of the system; also where the path leads to something else than a regular file.
    pub fn open_in_root(&self, path: &Path) -> io::Result<File> {
        root_path::open(&self.living_thread_path("root").map_err(io::Error::other)?, path)
    }

    /// Opens the program's file, also if its name was removed or replaced.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn open_executable(&self) -> io::Result<File> {
        File::open(self.living_thread_path("exe").map_err(io::Error::other)?)
    }

    /// Follows the kernel's link from the mapping to its file. Needs `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`.
    fn open_map_file(&self, mapping: &Mapping) -> io::Result<File> {
        let link = format!("map_files/{:x}-{:x}", mapping.range.start, mapping.range.end);
        let path = proc_file::path(self.pid(), &link);
        // Devices can be mapped too, and opening one may act on it.
        if !std::fs::metadata(&path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        File::open(path)
    }
}

/// How far the file agrees with what the mapping says of its file.
fn identity(file: &File, mapping: &Mapping) -> Option<FoundBy> {
    let metadata = file.metadata().ok()?;
    if metadata.ino() != mapping.inode || mapping.inode == 0 {
        return None;
    }
    let device = metadata.dev();
    let (mapped_major, mapped_minor) = mapping.device;
    if (major(device), minor(device)) == (u64::from(mapped_major), u64::from(mapped_minor)) {
        Some(FoundBy::Path)
    } else {
        Some(FoundBy::PathAndInode)
    }
}
