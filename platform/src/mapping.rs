//! A mapping: one stretch of a process's address space with one set of rights and one source of bytes.

use crate::AddressRange;
use std::path::{Path, PathBuf};

/// One line of the process's list of mappings, as the kernel gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses that are mapped.
    pub range: AddressRange,
    /// Whether the process may read there.
    pub readable: bool,
    /// Whether the process may write there.
    pub writable: bool,
    /// Whether the process may execute code there.
    pub executable: bool,
    /// Whether writes are seen by other processes that map the same object; private (copy on write) otherwise.
    pub shared: bool,
    /// Where in the mapped file `range.start` lies, in bytes. 0 without a file.
    pub file_offset: u64,
    /// Major and minor number of the file's device, as the kernel prints them. (0, 0) without a file.
    pub device: (u32, u32),
    /// Inode number of the file. 0 without a file.
    pub inode: u64,
    /// What is mapped.
    pub kind: MappingKind,
}

impl Mapping {
    /// The path of the mapped file, as the process's own root and mount namespace had it when it was mapped.
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            MappingKind::File { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether nothing but the process itself can change these bytes: a private mapping without a file.
    pub fn is_private_anonymous(&self) -> bool {
        !self.shared && self.inode == 0 && !matches!(self.kind, MappingKind::File { .. })
    }
}

/// What a mapping shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// A file, or an object that the kernel gives a path (`/memfd:`, `/dev/zero`, `/SYSV`).
    File {
        /// Path in the process's own root, without the mark for deleted files.
        path: PathBuf,
        /// Whether the name was removed, or replaced by another file, since.
        deleted: bool,
    },
    /// The heap that `brk` grows.
    Heap,
    /// The first thread's stack.
    Stack,
    /// Code that the kernel offers to the process.
    Vdso,
    /// The kernel's data for that code. Not readable from outside.
    Vvar,
    /// The old fixed page of system calls of x86-64.
    Vsyscall,
    /// No file; with the name that the process gave it (`[anon:NAME]`), if it did.
    Anonymous {
        /// The name given with `prctl(PR_SET_VMA_ANON_NAME)`.
        name: Option<String>,
    },
    /// A name in brackets that is none of the above, brackets included.
    Other(String),
}
