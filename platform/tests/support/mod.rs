//! Real processes to examine, and an independent look at them through `/proc`.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// The program `programs/target.c`, compiled once for each test file.
pub fn target_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("target", &[]))
}

/// `programs/target.c` compiled with further options, as a file of the given name.
pub fn compile(name: &str, options: &[&str]) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/target.c");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let unfinished = folder.join(format!("{name}-{}", std::process::id()));
    let status = Command::new("cc")
        .args(["-O1", "-pthread", "-o"])
        .arg(&unfinished)
        .arg(source)
        .args(options)
        .status()
        .expect("a C compiler, as the Rust compiler needs it too");
    assert!(status.success());
    // Several test programs run at once, and a program that runs cannot be overwritten.
    let program = folder.join(format!("{name}-{}.program", std::process::id()));
    fs::rename(unfinished, &program).unwrap();
    program
}

/// A running `target`. It ends when this is dropped, or with the thread that started it.
pub struct Target {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it printed first.
    pub greeting: String,
    grandchild: Option<i32>,
}

impl Target {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_command(Command::new(target_program()).args(arguments))
    }

    /// Starts a command that becomes a `target`, and waits until it is one.
    pub fn start_command(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut target = Self { child, input, output, greeting: String::new(), grandchild: None };
        target.greeting = target.line();
        target
    }

    /// Starts a `target` that is not this process's child but its child's child.
    pub fn start_as_grandchild(arguments: &[&str]) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", r#"exec 3<&0; sh -c 'echo $$; exec "$0" "$@"' "$0" "$@" <&3 & wait"#])
            .arg(target_program())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut target = Self { child, input, output, greeting: String::new(), grandchild: None };
        target.grandchild = Some(target.line().parse().unwrap());
        target
    }

    /// Starts a command that becomes a `target` and does not wait; see [`Target::line`].
    pub fn start_unready(arguments: &[&str]) -> Self {
        let mut child = Command::new(target_program())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, greeting: String::new(), grandchild: None }
    }

    pub fn pid(&self) -> i32 {
        self.grandchild.unwrap_or_else(|| i32::try_from(self.child.id()).unwrap())
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the target ended");
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, question: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{question}").unwrap();
        self.line()
    }

    pub fn say(&mut self, word: &str) {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
    }

    pub fn counters(&mut self) -> Vec<u64> {
        self.ask("counters").split(' ').map(|number| number.parse().unwrap()).collect()
    }

    /// Waits until the counter has grown, which the target's own threads do.
    pub fn wait_for_progress(&mut self, counter: usize) {
        let before = self.counters()[counter];
        while self.counters()[counter] == before {}
    }

    /// The greeting's numbers in base 16.
    pub fn addresses(&self) -> Vec<u64> {
        self.greeting
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("0x"))
            .map(|digits| u64::from_str_radix(digits, 16).unwrap())
            .collect()
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state letter of each thread of a process.
pub fn thread_states(pid: i32) -> Vec<(i32, char)> {
    let mut states = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let tid: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        // A thread may end between the listing and this.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")) {
            let state = stat.rsplit(") ").next().unwrap().chars().next().unwrap();
            states.push((tid, state));
        }
    }
    states
}

/// One line of `/proc/PID/status`.
pub fn status_line(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

/// The tracers of all threads of a process that have one.
pub fn tracers(pid: i32) -> Vec<i32> {
    thread_states(pid)
        .iter()
        .filter_map(|(tid, _)| fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok())
        .filter_map(|status| {
            status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok())
        })
        .filter(|&tracer| tracer != 0)
        .collect()
}

/// Checks that every thread of a process runs or sleeps of its own, and that nobody traces one.
pub fn assert_untouched(pid: i32) {
    let stopped: Vec<_> =
        thread_states(pid).into_iter().filter(|(_, state)| matches!(state, 't' | 'T')).collect();
    assert_eq!(stopped, [], "threads are stopped");
    assert_eq!(tracers(pid), [] as [i32; 0], "threads are traced");
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
