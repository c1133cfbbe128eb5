//! A Redis with many small keys and a heartbeat inside; ended when dropped.

use crate::cost::Files;
use heaptap_test_programs::HEARTBEAT;
use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

pub struct Store {
    child: Child,
    /// Kept, since Redis ends when nobody takes what it prints.
    _output: Lines<BufReader<ChildStdout>>,
    heartbeat: PathBuf,
}

impl Store {
    /// Starts Redis and has it make `keys` keys of its own.
    pub fn fill(keys: u64, files: &Files) -> Self {
        let socket = files.path("redis.socket");
        let heartbeat = files.folder().join("heartbeat");
        let mut child = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", &socket, "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "local", "--dir"])
            .arg(files.folder())
            .env("LD_PRELOAD", HEARTBEAT.expect("this benchmark is for Linux"))
            .env("HEARTBEAT_FILE", &heartbeat)
            .env_remove("LD_LIBRARY_PATH")
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server starts: Debian's package redis-server has it");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = output.by_ref().map_while(Result::ok).any(|line| line.contains("eady to accept"));
        assert!(ready, "redis-server is ready");
        let store = Self { child, _output: output, heartbeat };
        let filled = Command::new("redis-cli")
            .args(["-s", &socket, "DEBUG", "POPULATE", &keys.to_string(), "key", "32"])
            .output()
            .expect("redis-cli starts: Debian's package redis-tools has it");
        assert!(filled.stdout.starts_with(b"OK"), "{}", String::from_utf8_lossy(&filled.stdout));
        store
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn heartbeat_file(&self) -> PathBuf {
        self.heartbeat.clone()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
