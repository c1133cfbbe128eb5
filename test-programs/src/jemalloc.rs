//! The programs linked with one jemalloc each. They cannot be built by this package, since only one version of a library
//! can be in one dependency graph; the script `build` builds them and lists them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use thiserror::Error;

/// What a program is written in, and so how it uses the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// The C ledger, which speaks the whole protocol.
    C,
    /// The Rust ledger: boxes, strings and maps; a part of the protocol.
    Rust,
}

/// A ledger with a jemalloc inside.
#[derive(Debug, Clone)]
pub struct JemallocProgram {
    /// Unique, such as `ledger-5.2-vaddr57`.
    pub name: String,
    /// Version of jemalloc by its sources, such as `5.2.1`; what the program says of itself may differ.
    pub version: String,
    /// What it is written in.
    pub language: Language,
    /// Whether jemalloc's functions begin with `_rjem_`, so that malloc remains the C library's.
    pub prefixed: bool,
    /// Whether jemalloc keeps statistics.
    pub statistics: bool,
    /// Whether jemalloc was built with its own assertions, which make its structures longer.
    pub assertions: bool,
    /// The program with its symbols and, of jemalloc, its DWARF.
    pub executable: PathBuf,
    /// The same program without symbols and DWARF.
    pub stripped: PathBuf,
}

/// Why there are no such programs.
#[derive(Debug, Error)]
pub enum ProgramsError {
    /// The script could not be started.
    #[error("{script}: {source}")]
    Start {
        /// Path of the script.
        script: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The script failed; its messages are on standard error.
    #[error("{script}: {status}")]
    Build {
        /// Path of the script.
        script: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// The script printed a line that is not a program.
    #[error("{script} printed a line that is not a program: {line:?}")]
    Line {
        /// Path of the script.
        script: PathBuf,
        /// The line.
        line: String,
    },
}

/// Those whose jemalloc is 5.0 or later, built as in production; built on the first call of all: that takes minutes once, and
/// milliseconds as long as no source changes.
///
/// # Errors
/// If the script fails, on every call.
pub fn jemalloc_programs() -> Result<&'static [JemallocProgram], &'static ProgramsError> {
    split().as_ref().map(|programs| programs.release.as_slice())
}

/// Those whose jemalloc is 4.x, which keeps chunks and runs.
///
/// # Errors
/// As [`jemalloc_programs`].
pub fn jemalloc_programs_with_chunks() -> Result<&'static [JemallocProgram], &'static ProgramsError> {
    split().as_ref().map(|programs| programs.chunks.as_slice())
}

/// The leak server with the jemalloc of a program inside as its malloc; `None` where there is none with that one.
pub fn leak_server_beside(program: &JemallocProgram) -> Option<PathBuf> {
    let name = program.name.strip_prefix("ledger-")?;
    let server = program.executable.with_file_name(format!("leak-server-{name}"));
    server.exists().then_some(server)
}

/// Those whose jemalloc has its own assertions.
///
/// # Errors
/// As [`jemalloc_programs`].
pub fn jemalloc_programs_with_assertions() -> Result<&'static [JemallocProgram], &'static ProgramsError> {
    split().as_ref().map(|programs| programs.assertions.as_slice())
}

#[derive(Debug, Default)]
struct Programs {
    release: Vec<JemallocProgram>,
    assertions: Vec<JemallocProgram>,
    chunks: Vec<JemallocProgram>,
}

fn split() -> &'static Result<Programs, ProgramsError> {
    static PROGRAMS: OnceLock<Result<Programs, ProgramsError>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let (chunks, others): (Vec<_>, Vec<_>) =
            build()?.into_iter().partition(|program| program.version.starts_with("4."));
        let (release, assertions) = others.into_iter().partition(|program| !program.assertions);
        Ok(Programs { release, assertions, chunks })
    })
}

fn build() -> Result<Vec<JemallocProgram>, ProgramsError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build");
    let output = Command::new(&script)
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|source| ProgramsError::Start { script: script.clone(), source })?;
    if !output.status.success() {
        return Err(ProgramsError::Build { script, status: output.status });
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            parse(line).ok_or_else(|| ProgramsError::Line { script: script.clone(), line: line.to_owned() })
        })
        .collect()
}

fn parse(line: &str) -> Option<JemallocProgram> {
    let mut fields = line.split('\t');
    Some(JemallocProgram {
        name: fields.next()?.to_owned(),
        version: fields.next()?.to_owned(),
        language: match fields.next()? {
            "c" => Language::C,
            "rust" => Language::Rust,
            _ => return None,
        },
        prefixed: fields.next()? == "prefixed",
        statistics: fields.next()? == "statistics",
        assertions: fields.next()? == "assertions",
        executable: PathBuf::from(fields.next()?),
        stripped: PathBuf::from(fields.next()?),
    })
}
