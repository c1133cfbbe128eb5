//! A process of many threads at rest, with jemalloc and a heartbeat; ended when dropped.

use crate::cost::Files;
use heaptap_test_programs::LEDGER_JEMALLOC;
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
    pub fn start(threads: u32, files: &Files) -> Self {
        let mut child = Command::new(LEDGER_JEMALLOC.expect("this benchmark is for Linux"))
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
        writeln!(crowd.commands, "heartbeat {} fifo", crowd.heartbeat.display()).expect("it listens");
        crowd.await_answer("ok");
        crowd
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
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
