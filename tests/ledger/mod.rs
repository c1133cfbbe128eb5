//! A ledger that runs: asked for its table and for its allocator's statistics.

#![allow(dead_code, reason = "each test file that includes this uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A test program at rest; ended when dropped.
pub struct Ledger {
    pid: u32,
    /// Absent for a process that another ledger forked: it ends with its input.
    child: Option<Child>,
    commands: Box<dyn Write>,
    answers: BufReader<Box<dyn Read>>,
    /// What stands before its paths where it has a root of its own.
    root: PathBuf,
    file: PathBuf,
}

/// What jemalloc says of itself, by the names of mallctl.
pub struct Statistics {
    values: BTreeMap<String, String>,
}

impl Ledger {
    /// Starts the program at `path`.
    pub fn start(path: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts it with `library` preloaded and configured.
    pub fn preloaded(path: &str, library: &str, configuration: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(arguments);
        command.env("LD_PRELOAD", library).env("MALLOC_CONF", configuration);
        Self::spawn(command)
    }

    /// Runs a command that becomes a ledger.
    pub fn spawn(mut command: Command) -> Self {
        // cargo sets it; the loader allocates a block for each folder in it, which no program knows of.
        command.env_remove("LD_LIBRARY_PATH");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the ledger starts");
        let commands = child.stdin.take().expect("piped");
        let answers = child.stdout.take().expect("piped");
        Self::ready(child.id(), Some(child), Box::new(commands), Box::new(answers))
    }

    /// Waits until it has ended, by whatever cause.
    pub fn wait(mut self) {
        if let Some(child) = &mut self.child {
            child.wait().expect("it is a child of this process");
        }
    }

    fn ready(pid: u32, child: Option<Child>, commands: Box<dyn Write>, answers: Box<dyn Read>) -> Self {
        let (root, file) = (PathBuf::from("/"), fresh_path());
        let mut ledger = Self { pid, child, commands, answers: BufReader::new(answers), root, file };
        let ready = ledger.answer();
        assert!(ready.starts_with("ready"), "{ready}");
        ledger
    }

    /// Forks; the child has the records of all threads, and one thread.
    pub fn fork(&mut self) -> Self {
        let (orders, replies) = (fresh_path(), fresh_path());
        let made = Command::new("mkfifo").args([&orders, &replies]).status().expect("mkfifo runs");
        assert!(made.success(), "{made}");
        let answer = self.command(&format!("fork {} {}", orders.display(), replies.display()));
        let pid = answer.trim().strip_prefix("ok child=").expect("the child's number");
        let commands = File::options().write(true).open(&orders).expect("the child reads it");
        let answers = File::open(&replies).expect("the child writes it");
        let child = Self::ready(pid.parse().expect("a number"), None, Box::new(commands), Box::new(answers));
        for path in [orders, replies] {
            std::fs::remove_file(path).expect("it was made above");
        }
        child
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Says which process it is, where it is not the one that was started.
    pub fn set_pid(&mut self, pid: u32) {
        self.pid = pid;
    }

    /// Says where it runs in a root of its own, in the top folder of which it may write.
    pub fn set_root(&mut self, root: &Path) {
        root.clone_into(&mut self.root);
        self.file = Path::new("/").join(self.file.file_name().expect("it has a name"));
    }

    fn file_from_here(&self) -> PathBuf {
        self.root.join(self.file.strip_prefix("/").expect("it is absolute"))
    }

    /// Sends a command and does not wait for its answer.
    pub fn send(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the ledger listens");
    }

    /// The next line that it says.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the ledger answers");
        line
    }

    /// Gives a command and waits for its answer.
    pub fn command(&mut self, command: &str) -> String {
        self.send(command);
        let answer = self.answer();
        assert!(answer.starts_with("ok"), "{command}: {answer}");
        answer
    }

    fn file_after(&mut self, command: &str) -> String {
        let path = self.file.display().to_string();
        self.command(&format!("{command} {path}"));
        std::fs::read_to_string(self.file_from_here()).expect("the ledger wrote it")
    }

    /// Addresses of all blocks that the program has.
    pub fn table(&mut self) -> BTreeSet<u64> {
        let text = self.file_after("table");
        let address = |line: &str| u64::from_str_radix(line.strip_prefix("0x")?.split(' ').next()?, 16).ok();
        text.lines().filter_map(address).collect()
    }

    /// Usable bytes of all blocks that the program has, by address.
    pub fn usable_sizes(&mut self) -> BTreeMap<u64, u64> {
        let text = self.file_after("table");
        let block = |line: &str| {
            let mut columns = line.strip_prefix("0x")?.split(' ');
            let address = u64::from_str_radix(columns.next()?, 16).ok()?;
            Some((address, columns.nth(1)?.parse().ok()?))
        };
        text.lines().filter_map(block).collect()
    }

    /// What its allocator says of itself.
    pub fn statistics(&mut self) -> Statistics {
        let text = self.file_after("stats");
        let pair = |line: &str| line.split_once(' ').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Statistics { values: text.lines().filter_map(pair).collect() }
    }
}

/// A name that no other test uses.
fn fresh_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("heaptap-ledger-{}-{number}", std::process::id()))
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.file_from_here());
    }
}

impl Statistics {
    /// A number.
    pub fn value(&self, key: &str) -> Option<u64> {
        self.values.get(key)?.parse().ok()
    }

    /// Every arena and size class: blocks in use by jemalloc's own count.
    pub fn cells(&self) -> Vec<(u32, u64, u64)> {
        let mut cells = self.table("bins", "arenas.bin", "curregs");
        cells.extend(self.table("lextents", "arenas.lextent", "curlextents"));
        // Up to 4.5.
        cells.extend(self.table("lruns", "arenas.lrun", "curruns"));
        cells.extend(self.table("hchunks", "arenas.hchunk", "curhchunks"));
        cells
    }

    /// Every arena and small size class: slabs.
    pub fn slabs(&self) -> Vec<(u32, u64, u64)> {
        let mut slabs = self.table("bins", "arenas.bin", "curslabs");
        slabs.extend(self.table("bins", "arenas.bin", "curruns"));
        slabs
    }

    fn table(&self, group: &str, classes: &str, field: &str) -> Vec<(u32, u64, u64)> {
        let cell = |(key, value): (&String, &String)| {
            let (arena, rest) = key.strip_prefix("stats.arenas.")?.split_once('.')?;
            let (index, name) = rest.strip_prefix(group)?.strip_prefix('.')?.split_once('.')?;
            let size = self.value(&format!("{classes}.{index}.size"))?;
            (name == field).then_some((arena.parse().ok()?, size, value.parse().ok()?))
        };
        self.values.iter().filter_map(cell).collect()
    }
}
