//! A target as an ELF core file: captures written for later, and cores that others wrote.
//!
//! A capture that is written is a sparse core: its segments are the captured stretches, the rest of each mapping
//! is a segment without bytes. Debuggers open it as they open any core. What a core cannot say stands in a note
//! of heaptap's own, and without that note the file is taken for what it is: a core of somebody else's. Bytes are
//! read where they lie in the mapped file. What they mean is for those who read the memory.

mod compressed;
mod error;
mod kept_name;
mod noted;
mod notes;
mod own_note;
mod read;
mod sparse_file;
mod write;

pub use error::CoreFileError;
pub use read::{from_bytes, open};
pub use write::{Recording, to_file, write};

use super::Capture;
use compressed::Compression;
use heaptap_platform::{Architecture, Mapping};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Whether the file at `path` looks like a core, compressed or not, rather than like anything else.
pub fn is_core(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(8).read_to_end(&mut start));
    read.is_ok() && (start.starts_with(b"\x7fELF") || Compression::of(&start).is_some())
}

/// Who wrote a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// heaptap: it holds what heaptap needs.
    Capture,
    /// An operating system or a debugger.
    Core,
}

impl Kind {
    /// As reports name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Core => "core",
        }
    }
}

/// The process that the bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its id.
    pub pid: i32,
    /// Its own name, as systems keep it: cut short.
    pub name: String,
    /// Its executable as it names it, as far as known.
    pub exe: String,
    /// Its operating system, as in `linux`.
    pub os: String,
    /// Its instruction set.
    pub architecture: Architecture,
    /// When it started, in clock ticks since boot.
    pub start_ticks: Option<u64>,
    /// The machine's boot id.
    pub boot_id: Option<String>,
    /// Build id of the executable, hexadecimal.
    pub build_id: Option<String>,
}

/// A module's build id, as the capture noted it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ModuleNote {
    /// Path as the target sees it.
    pub path: PathBuf,
    /// Where its first mapping starts.
    pub start: u64,
    /// Build id, hexadecimal; absent where the file has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
}

/// A file, read. A copy shares the file's bytes.
#[derive(Debug, Clone)]
pub struct CoreFile {
    /// Who wrote it.
    pub kind: Kind,
    /// The process.
    pub origin: Origin,
    /// Bytes and threads.
    pub capture: Capture,
    /// Mappings in address order.
    pub mappings: Vec<Mapping>,
    /// Modules with their build ids, where the file lists them.
    pub modules: Vec<ModuleNote>,
    /// The auxiliary vector.
    pub auxiliary_vector: Vec<(u64, u64)>,
    /// Names of threads by their ids, where the file tells them.
    pub thread_names: BTreeMap<i32, String>,
}
