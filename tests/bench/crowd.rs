//! A ledger of some threads at rest, with a heartbeat; ended when dropped.

#![allow(dead_code, reason = "each benchmark uses its part")]

use crate::cost::Files;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Crowd {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    heartbeat: PathBuf,
}

impl Crowd {
    /// Starts the ledger at `program`; if it aborts, its core is among `files`.
    pub fn start(program: &str, threads: u32, files: &Files) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\"", program])
            .current_dir(files.folder())
            .args(["--threads", &threads.to_string()])
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the ledger starts");
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let heartbeat = files.folder().join(format!("heartbeat-{threads}"));
        let mut crowd = Self { child, commands, answers, heartbeat };
        crowd.await_answer("ready");
        let heartbeat = format!("heartbeat {} fifo", crowd.heartbeat.display());
        crowd.command(&heartbeat);
        crowd
    }

    /// Has it obey a command, and waits until it has.
    pub fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("it listens");
        self.await_answer("ok");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an error would, so that the kernel writes its core where it is set up to.
    pub fn abort(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, Signal::SIGABRT).expect("it runs");
        self.child.wait().expect("it is a child");
    }

    pub fn heartbeat_file(&self) -> PathBuf {
        self.heartbeat.clone()
    }

    fn await_answer(&mut self, expected: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the ledger answers");
        assert!(line.starts_with(expected), "{line}");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
