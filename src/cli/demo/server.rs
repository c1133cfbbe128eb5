//! The server of the demonstration: a program of its own, kept in heaptap's own bytes.
//!
//! It ends with its input, so that it does not outlive heaptap, however that ends.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// The program, as the build script linked it.
const PROGRAM: &[u8] = include_bytes!(env!("HEAPTAP_DEMO_SERVER"));

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its program cannot be written to a file.
    #[error("cannot write the demo server to {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be started.
    #[error("cannot start the demo server {}: {source}", path.display())]
    Start {
        /// Its program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not answer, or has ended.
    #[error("the demo server with pid {pid} does not answer")]
    Silent {
        /// Its process.
        pid: u32,
    },
    /// It says something that is no answer.
    #[error("the demo server with pid {pid} said `{line}`")]
    Answer {
        /// Its process.
        pid: u32,
        /// What it said.
        line: String,
    },
}

impl ServerError {
    /// The next thing to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write { .. } | Self::Start { .. } => {
                Some("set TMPDIR to a directory where programs may be written and executed".to_owned())
            }
            Self::Silent { .. } | Self::Answer { .. } => Some("try it again".to_owned()),
        }
    }
}

/// What the server knows of its own leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Truth {
    /// Blocks lost so far.
    pub(super) lost_blocks: u64,
    /// Bytes that each was asked for with.
    pub(super) block_bytes: u64,
}

/// The running server; dropping it ends it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    questions: Option<ChildStdin>,
    answers: Receiver<String>,
    _program: ProgramFile,
}

impl Server {
    /// Starts the server and waits until only its leak can still grow.
    pub(super) fn start() -> Result<Self, ServerError> {
        let program = ProgramFile::write()?;
        let start_error = |source| ServerError::Start { path: program.path.clone(), source };
        // In a process group of its own, Ctrl-C on the terminal is heaptap's to handle.
        let mut child = Command::new(&program.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(start_error)?;
        let (sender, answers) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let questions = child.stdin.take();
        let server = Self { child, questions, answers, _program: program };
        let line = server.line()?;
        if line.starts_with("ready ") {
            Ok(server)
        } else {
            Err(ServerError::Answer { pid: server.pid(), line })
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks what it has lost by now.
    pub(super) fn truth(&mut self) -> Result<Truth, ServerError> {
        let pid = self.pid();
        let asked = self.questions.as_mut().map(|questions| questions.write_all(b"truth\n"));
        if !matches!(asked, Some(Ok(()))) {
            return Err(ServerError::Silent { pid });
        }
        let line = self.line()?;
        truth_of(&line).ok_or(ServerError::Answer { pid, line })
    }

    fn line(&self) -> Result<String, ServerError> {
        self.answers.recv_timeout(PATIENCE).map_err(|_| ServerError::Silent { pid: self.pid() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.questions.take());
        // Killing a child that has ended already is no error, and there is none to tell of either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads `truth lost_blocks=N block_bytes=N`.
fn truth_of(line: &str) -> Option<Truth> {
    let mut words = line.split_whitespace();
    let figure = |word: Option<&str>, name: &str| word?.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    (words.next()? == "truth").then_some(())?;
    Some(Truth {
        lost_blocks: figure(words.next(), "lost_blocks")?,
        block_bytes: figure(words.next(), "block_bytes")?,
    })
}

/// The program as a file that only its owner can execute, removed in the end.
#[derive(Debug)]
struct ProgramFile {
    path: PathBuf,
}

impl ProgramFile {
    fn write() -> Result<Self, ServerError> {
        let path = std::env::temp_dir().join(format!("heaptap-demo-server-{}", std::process::id()));
        let write_error = |source| ServerError::Write { path: path.clone(), source };
        let mut file = Self::create(&path).map_err(write_error)?;
        let program = Self { path: path.clone() };
        file.write_all(PROGRAM).map_err(write_error)?;
        Ok(program)
    }

    /// Never an existing file: the directory may be open to others.
    fn create(path: &Path) -> io::Result<std::fs::File> {
        OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)
    }
}

impl Drop for ProgramFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_the_letter() {
        let truth = truth_of("truth lost_blocks=17 block_bytes=96");
        assert_eq!(truth, Some(Truth { lost_blocks: 17, block_bytes: 96 }));
        for line in ["", "truth", "ready pid=1", "truth lost_blocks=x block_bytes=96", "truth block_bytes=96"]
        {
            assert_eq!(truth_of(line), None, "{line}");
        }
    }

    #[test]
    fn the_server_ends_with_its_owner_and_leaves_nothing() {
        let mut server = Server::start().unwrap();
        let path = server._program.path.clone();
        let first = server.truth().unwrap();
        let mut last = first;
        while last.lost_blocks <= first.lost_blocks {
            last = server.truth().unwrap();
        }
        assert!(path.exists());
        drop(server);
        assert!(!path.exists());
    }
}
