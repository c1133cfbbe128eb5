//! Is the walk of glibc's malloc exact in programs as others wrote them? Every field of their own `mallinfo2`.
//!
//! A preloaded library writes the fields down when a signal asks for it, before and after the snapshot; it shares no code
//! with heaptap. Each program first works, and is at rest while it is looked at. What is resident of it must be
//! explained too.

use heaptap::snapshot::Snapshot;
use heaptap::target::{Options, Target};
use heaptap_test_programs::MALLINFO;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Other work on a busy machine may make a pause long; it is not what is asked here.
const AMPLE: Duration = Duration::from_secs(10);
/// Longest time that a program may take to answer or to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// A program that goes on working by itself is looked at again.
const LOOKS_MAX: usize = 20;

/// A program at rest; ended when dropped.
struct Program {
    child: Child,
    folder: PathBuf,
}

impl Program {
    /// Starts `command`; `folder` is for its files.
    fn start(name: &str, mut command: Command) -> Self {
        let folder = folder(name);
        let mut child = command
            .env("LD_PRELOAD", MALLINFO.expect("this test is for Linux"))
            .env("MALLINFO_FOLDER", &folder)
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} starts: .ci/run lists its package: {error}"));
        // Kept open, so that a program that waits for its input goes on waiting.
        child.stdin.as_mut().expect("piped").flush().expect("it listens");
        Self { child, folder }
    }

    /// Runs a script of `interpreter` until it says that it is ready.
    fn script(interpreter: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(interpreter);
        command.args(arguments).envs(variables.iter().copied());
        let mut program = Self::start(interpreter, command);
        let mut line = String::new();
        let output = program.child.stdout.as_mut().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("it prints");
        assert_eq!(line.trim(), "ready", "{interpreter}");
        program
    }

    /// The fields of its `mallinfo2`.
    fn figures(&self) -> BTreeMap<String, u64> {
        let path = self.folder.join(self.child.id().to_string());
        let _ = std::fs::remove_file(&path);
        let asked = Command::new("kill").args(["-s", "RTMIN+7", &self.child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "it runs");
        let text = await_some(|| std::fs::read_to_string(&path).ok());
        let field = |line: &str| {
            let (name, figure) = line.split_once(' ').expect("two words");
            (name.to_owned(), figure.parse().expect("a figure"))
        };
        text.lines().map(field).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let target = Target::open(&self.child.id().to_string()).expect("it runs");
        target.snapshot(&Options { pause_budget: AMPLE, ..Options::default() }).expect("its heap can be read")
    }

    /// Compares every field, at a moment at which they were the same before and after.
    fn assert_exact(&self, name: &str) {
        for _ in 0..LOOKS_MAX {
            let before = self.figures();
            let snapshot = self.snapshot();
            if before != self.figures() {
                continue;
            }
            let allocator = snapshot.summary.allocators.iter().find(|allocator| allocator.name == "glibc");
            let allocator = allocator.unwrap_or_else(|| panic!("{name}: glibc's malloc is in it"));
            assert!(allocator.verified, "{name}: {:?} {:?}", allocator.anomalies, allocator.evidence);
            assert_eq!(before.len(), 9, "{name}: all fields were written");
            assert_eq!(allocator.own_figures, before, "{name}: mallinfo2");
            assert_explained(name, &snapshot);
            println!(
                "{name}: {} threads, {} arenas, {} live blocks, {} mappings, 9 of 9 fields equal",
                snapshot.summary.target.threads,
                allocator.shards.len(),
                allocator.live_blocks,
                before["hblks"]
            );
            return;
        }
        panic!("{name} never came to rest");
    }
}

/// Of what is resident, at most 1 % or 2 MB may be unexplained.
fn assert_explained(name: &str, snapshot: &Snapshot) {
    let summary = &snapshot.summary;
    let resident =
        i64::try_from(summary.resident_bytes.expect("it was measured")).expect("a process's memory");
    let unexplained =
        summary.resident.iter().find(|row| row.kind == "unexplained").map_or(0, |row| row.bytes);
    assert!(unexplained <= (resident / 100).max(2 << 20), "{name}: {unexplained} of {resident} unexplained");
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        let _ = kill(pid, Signal::SIGKILL);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("heaptap-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for its files");
    folder
}

/// Asks again and again until there is an answer.
fn await_some<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "no answer");
        std::thread::yield_now();
    }
}

#[test]
fn python() {
    const SCRIPT: &str = r"
import sys, threading
kept = {}
def work(seed):
    for i in range(20000):
        kept[seed, i] = bytes((i * 7919 + seed * 104729) % 3000)
        if i % 3 == 0: kept.pop((seed, i // 2), None)
    if seed == 2: kept['large'] = [bytes(300000 + i) for i in range(20)]
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('ready', flush=True)
sys.stdin.readline()
";
    Program::script("python3", &["-c", SCRIPT], &[]).assert_exact("python3");
}

#[test]
fn bash() {
    const SCRIPT: &str = r"
for ((i = 0; i < 20000; i++)); do printf -v 'kept[i]' '%*s' $((i * 7919 % 600)) $i; done
for ((i = 0; i < 20000; i += 3)); do unset 'kept[i]'; done
echo ready
read -r
";
    Program::script("bash", &["-c", SCRIPT], &[]).assert_exact("bash");
}

#[test]
fn perl() {
    const SCRIPT: &str = r#"
my %kept; $| = 1;
for my $i (0 .. 40000) { $kept{$i} = "x" x ($i * 7919 % 2000); delete $kept{$i >> 1} if $i % 3 == 0 }
print "ready\n"; <STDIN>;
"#;
    Program::script("perl", &["-e", SCRIPT], &[]).assert_exact("perl");
}

#[test]
fn ruby() {
    const SCRIPT: &str = r#"
kept = {}
threads = (0..3).map { |seed| Thread.new { 20000.times { |i| kept[[seed, i]] = "x" * (i * 7919 % 2000); kept.delete([seed, i / 2]) if i % 3 == 0 } } }
threads.each(&:join)
GC.start
STDOUT.puts "ready"; STDOUT.flush; STDIN.gets
"#;
    Program::script("ruby", &["-e", SCRIPT], &[]).assert_exact("ruby");
}

/// PHP takes pages for its own allocator; it can be told to use malloc for everything.
#[test]
fn php() {
    const SCRIPT: &str = r#"
$kept = []; ini_set("memory_limit", "-1");
for ($i = 0; $i < 40000; $i++) { $kept[$i] = str_repeat("x", $i * 7919 % 2000); if ($i % 3 == 0) unset($kept[$i >> 1]); }
echo "ready\n"; fgets(STDIN);
"#;
    Program::script("php", &["-r", SCRIPT], &[]).assert_exact("php");
    Program::script("php", &["-r", SCRIPT], &[("USE_ZEND_ALLOC", "0")]).assert_exact("php on malloc");
}

#[test]
fn memcached() {
    let files = folder("memcached-socket");
    let socket = files.join("socket");
    let mut command = Command::new("memcached");
    command.args(["-U", "0", "-u", "root", "-t", "6", "-m", "64", "-s"]).arg(&socket);
    let program = Program::start("memcached", command);
    let stream = |path: &Path| await_some(|| UnixStream::connect(path).ok());
    for client in 0..8 {
        store(stream(&socket), client);
    }
    program.assert_exact("memcached");
    drop(program);
    let _ = std::fs::remove_dir_all(&files);
}

/// A client that stores values of many lengths, deletes some and goes.
fn store(mut stream: UnixStream, client: usize) {
    let mut request = Vec::new();
    for i in 0..3000_usize {
        let value = "x".repeat(i * 7919 % 5000);
        write!(request, "set {client}-{i} 0 0 {} noreply\r\n{value}\r\n", value.len()).expect("memory");
        if i % 3 == 0 {
            write!(request, "delete {client}-{} noreply\r\n", i / 2).expect("memory");
        }
    }
    request.extend(b"version\r\n");
    stream.write_all(&request).expect("it listens");
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"VERSION");
}
