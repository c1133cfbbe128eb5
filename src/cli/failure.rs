//! Why a command could not do what it was asked for.

use super::exit::Exit;
use crate::growth::GrowthError;
use crate::recording::RecordingError;
use crate::recording::file::RecordingFileError;
use crate::recording::session::SessionError;
use crate::snapshot::SnapshotError;
use crate::target::TargetError;
use heaptap_platform::SamplerError;
use std::io::{self, Write};

/// A failure of a command; each has an exit code and, where there is one, a next thing to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line makes no sense although it is well formed.
    #[error("{what}")]
    WrongUse {
        /// What makes no sense.
        what: String,
        /// What would.
        hint: String,
    },
    /// The target cannot be opened or captured.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The process id belongs to another process than before.
    #[error("process {source_name} has ended, and its id belongs to another process now")]
    Reused {
        /// What the user named.
        source_name: String,
    },
    /// The moments cannot be compared.
    #[error(transparent)]
    Growth(#[from] GrowthError),
    /// Nothing could be sampled.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// A snapshot file cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A file that is to be named cannot be read, or is not what it should be.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A recording file cannot be read or written.
    #[error(transparent)]
    RecordingFile(#[from] RecordingFileError),
    /// A file for another tool cannot be written.
    #[error("cannot write {path}: {source}")]
    Output {
        /// The file.
        path: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Report(#[source] io::Error),
    /// The terminal cannot be drawn on.
    #[error("cannot draw on the terminal: {0}")]
    Terminal(#[source] io::Error),
    /// The user ended the command before there was anything to report.
    #[error("interrupted before there were two moments to compare")]
    Interrupted,
    /// The demo server does not serve.
    #[cfg(feature = "demo")]
    #[error(transparent)]
    Server(#[from] super::demo::ServerError),
    /// Ctrl-C cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Target(error) => Self::Target(error),
            SessionError::Growth(error) => Self::Growth(error),
            SessionError::Recording(error) => Self::Recording(error),
        }
    }
}

impl Failure {
    /// The next thing to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::WrongUse { hint, .. } => Some(hint.clone()),
            Self::Target(error) => error.hint(),
            Self::Growth(GrowthError::DifferentProcesses { .. }) => {
                Some("name moments of one process, or compare counts alone with --allow-different".to_owned())
            }
            Self::Growth(error) => error.hint(),
            #[cfg(feature = "demo")]
            Self::Server(error) => error.hint(),
            Self::Snapshot(error) => error.hint(),
            Self::Recording(RecordingError::Sampler(error)) => error.hint().map(str::to_owned),
            Self::Recording(_) => Some("`heaptap watch` tells what grows, without stacks".to_owned()),
            Self::Terminal(_) => Some("pipe the output through cat: then it is plain lines".to_owned()),
            Self::Unreadable { .. } => Some(
                "give the output of `heaptap stacks --json`, lines with `module+0xoffset`, or an ELF file with --file"
                    .to_owned(),
            ),
            Self::RecordingFile(error) => error.hint().map(str::to_owned),
            Self::Reused { .. }
            | Self::Interrupted
            | Self::Output { .. }
            | Self::Report(_)
            | Self::Signals(_) => None,
        }
    }

    /// The exit code that goes with it. A reader that has seen enough is no failure.
    pub fn exit(&self) -> Exit {
        match self {
            Self::WrongUse { .. } => Exit::WrongUse,
            Self::Target(error) => Exit::from_code(error.exit_code()),
            Self::Reused { .. } => Exit::Gone,
            Self::Unreadable { .. } => Exit::BadInput,
            Self::Growth(GrowthError::TooFewMoments { .. } | GrowthError::DifferentProcesses { .. }) => {
                Exit::WrongUse
            }
            Self::Growth(_) => Exit::BadInput,
            Self::Recording(RecordingError::Sampler(SamplerError::Gone { .. })) => Exit::Gone,
            Self::Recording(RecordingError::Sampler(SamplerError::NotPermitted { .. })) => Exit::NotPermitted,
            Self::Recording(_) => Exit::Unsupported,
            Self::Snapshot(SnapshotError::Occupied { .. }) => Exit::WrongUse,
            Self::Snapshot(_) => Exit::BadInput,
            Self::RecordingFile(RecordingFileError::Occupied { .. }) => Exit::WrongUse,
            Self::RecordingFile(_) => Exit::BadInput,
            Self::Output { .. } => Exit::Partial,
            Self::Report(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            #[cfg(feature = "demo")]
            Self::Server(_) => Exit::Partial,
            Self::Interrupted | Self::Report(_) | Self::Terminal(_) | Self::Signals(_) => Exit::Partial,
        }
    }

    /// Tells the failure on standard error, unless the reader of the report has merely gone.
    pub fn tell(&self, is_colored: bool) {
        if self.exit() == Exit::Done {
            return;
        }
        tell(is_colored, "error", &self.to_string());
        if let Some(hint) = self.hint() {
            tell(is_colored, "hint", &hint);
        }
    }
}

/// Writes `error: ...`, `hint: ...` or `warning: ...` to standard error; where that is closed there is no one
/// to tell.
pub fn tell(is_colored: bool, what: &str, sentence: &str) {
    let sentence = crate::report::page::harmless(sentence);
    let escape = if what == "error" { "\x1b[1;31m" } else { "\x1b[1m" };
    let mut stderr = io::stderr().lock();
    let _ = if is_colored {
        writeln!(stderr, "{escape}{what}:\x1b[0m {sentence}")
    } else {
        writeln!(stderr, "{what}: {sentence}")
    };
}
