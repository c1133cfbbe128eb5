//! Is everything that cannot be examined refused, with the cause, the next step and the exit code?

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod handmade;
mod ledger;
mod outside;

use heaptap::snapshot::{self, Overwrite};
use heaptap_test_programs::LEDGER;
use ledger::Ledger;
use outside::{Folder, JEMALLOC, Told, assert_runs, await_that, children, heaptap, limited, status, told};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// An ordinary user that exists everywhere.
const NOBODY: &str = "65534";

/// A child that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks how every command that looks at a process refuses this one; returns what was told.
fn assert_refused(pid: u32, code: i32, error: &str, hint: &str) {
    let pid = pid.to_string();
    for words in [&["snap", &pid][..], &["info", &pid], &["diff", &pid, &pid], &["snap", &pid, "--json"]] {
        assert_told(&heaptap(words), code, error, hint);
    }
}

fn assert_told(told: &Told, code: i32, error: &str, hint: &str) {
    assert_eq!(told.errors, format!("error: {error}\nhint: {hint}\n"), "{told:?}");
    assert_eq!((told.code, told.report.as_str()), (code, ""), "{told:?}");
}

#[test]
fn under_strace() {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", LEDGER, "--empty", "--threads", "3"]).env("LD_PRELOAD", JEMALLOC);
    let mut traced = Ledger::spawn(command);
    let strace = traced.pid();
    let pid = children(strace)[0];
    traced.set_pid(pid);
    assert_refused(
        pid,
        4,
        &format!("process {pid} (ledger) is already traced by process {strace} (strace)"),
        &format!("detach or end strace (process {strace}) first"),
    );
    assert!(traced.command("check").contains("threads=4"), "strace has it as before");
    assert_eq!(status(pid, pid, "TracerPid"), Some(strace.to_string()));
}

#[test]
fn under_gdb() {
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "3"]);
    let pid = ledger.pid();
    // The shell that gdb runs waits for a line that never comes, and ends with its input.
    let mut gdb = Command::new("gdb")
        .args(["-batch", "-nx", "-iex", "set debuginfod enabled off", "-p", &pid.to_string()])
        .args(["-ex", "shell echo attached; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(gdb.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "attached"), "gdb did not attach");
    assert_refused(
        pid,
        4,
        &format!("process {pid} (ledger) is already traced by process {} (gdb)", gdb.id()),
        &format!("detach or end gdb (process {}) first", gdb.id()),
    );
    drop(gdb.stdin.take());
    gdb.wait().unwrap();
    assert!(ledger.command("check").contains("threads=4"));
    assert_runs(pid);
    assert_eq!(heaptap(&["snap", &pid.to_string()]).code, 0, "gdb has let go");
}

#[test]
fn a_zombie() {
    let mut ended = Running::start(&mut Command::new("true"));
    let pid = ended.pid();
    await_that("it ends", || status(pid, pid, "State").is_some_and(|state| state.starts_with('Z')));
    assert_refused(
        pid,
        3,
        &format!("process {pid} (true) is a zombie: it has ended and has no memory"),
        &format!("nothing is left to examine; its parent is process {}", std::process::id()),
    );
    ended.0.wait().unwrap();
    let hint = "look up the process id again, for example with pgrep";
    assert_refused(pid, 3, &format!("no process has the id {pid}"), hint);
}

#[test]
fn no_such_process() {
    let hint = "look up the process id again, for example with pgrep";
    // Beyond the largest id that Linux gives (PID_MAX_LIMIT).
    assert_refused(4_194_305, 3, "no process has the id 4194305", hint);
}

/// In a PID namespace of its own no kernel thread is to be seen: then there is nothing to refuse.
#[test]
fn a_kernel_thread() {
    let is_seen = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n");
    if !is_seen {
        eprintln!("no kernel thread is visible here: nothing was tested");
        return;
    }
    let hint = "give the id of the process whose heap grows";
    assert_refused(2, 5, "2 (kthreadd) is a kernel thread: it has no heap", hint);
}

#[test]
fn a_thread() {
    let ledger = Ledger::preloaded(LEDGER, JEMALLOC, "", &["--empty", "--threads", "1"]);
    let pid = ledger.pid();
    let tid = outside::threads(pid).into_iter().find(|tid| *tid != pid).unwrap();
    let error = format!("{tid} is a thread of process {pid}, not a process");
    assert_refused(tid, 2, &error, &format!("use the process id {pid}"));
}

/// A program of one segment that waits for ever: `class` is 1 for 32 bits and 2 for 64.
fn waiting_program(class: u8) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    // mov $number, %eax; int $0x80 or syscall; jmp to the start. The call is pause.
    let code: [u8; 9] = match class {
        1 => [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7],
        _ => [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7],
    };
    let (word, headers, machine) = if class == 1 { (4, [52, 32], 3) } else { (8, [64, 56], 62) };
    let length = headers[0] + headers[1] + code.len() as u32;
    let mut bytes =
        vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0, 1, 0, 0, 0];
    let mut put = |value: u32, width: usize| {
        let value = u64::from(value).to_le_bytes();
        bytes.extend(&value[..width]);
    };
    // Entry, program headers, section headers; flags; sizes and numbers of headers.
    [BASE + headers[0] + headers[1], headers[0], 0].iter().for_each(|value| put(*value, word));
    put(0, 4);
    [headers[0], headers[1], 1, 0, 0, 0].iter().for_each(|value| put(*value, 2));
    // Loadable; the flags (readable, executable) stand second in 64-bit files and last but one in 32-bit ones.
    put(1, 4);
    if class == 2 {
        put(5, 4);
    }
    [0, BASE, BASE, length, length].iter().for_each(|value| put(*value, word));
    if class == 1 {
        put(5, 4);
    }
    put(4096, word);
    bytes.extend(code);
    bytes
}

fn start_waiting(folder: &Folder, name: &str, class: u8) -> std::io::Result<Running> {
    let path = folder.path(name);
    fs::write(&path, waiting_program(class))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Command::new(&path).spawn().map(Running)
}

#[test]
fn a_32_bit_program() {
    let folder = Folder::new();
    let target = match start_waiting(&folder, "narrow", 1) {
        Ok(target) => target,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) => {
            eprintln!("this kernel runs no 32-bit programs: nothing was tested");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let pid = target.pid();
    assert_refused(
        pid,
        5,
        &format!("process {pid} (narrow) runs a 32-bit program; only 64-bit programs can be examined"),
        "run its 64-bit build, if there is one",
    );
}

#[test]
fn a_program_without_an_allocator() {
    let folder = Folder::new();
    let target = start_waiting(&folder, "bare", 2).unwrap();
    let pid = target.pid();
    let told = heaptap(&["snap", &pid.to_string()]);
    assert_eq!(told.code, 5, "{told:?}");
    assert!(
        told.errors.starts_with(&format!("error: process {pid}: no supported allocator found\nhint: ")),
        "{told:?}"
    );
    assert!(told.errors.contains("jemalloc 4.0"), "it says what is supported: {told:?}");
}

/// What was found is named: a library that stands for an allocator which heaptap knows by name alone.
#[test]
fn an_allocator_that_is_not_supported() {
    let folder = Folder::new();
    let library = folder.path("libsnmalloc.so");
    let source = folder.path("main.c");
    fs::write(&source, "void wait_for_ever(void);\nvoid _start(void) { wait_for_ever(); }\n").unwrap();
    let part = folder.path("part.c");
    let call = "void wait_for_ever(void) { for (;;) __asm__ volatile(\"syscall\" : : \"a\"(34) : \"rcx\", \"r11\"); }\n";
    fs::write(&part, call).unwrap();
    let compile = |words: &[&Path]| {
        let options = ["-nostdlib", "-fPIC", "-fno-stack-protector"];
        let made = Command::new("cc").args(options).args(words).status().expect("a C compiler");
        assert!(made.success());
    };
    let program = folder.path("server");
    compile(&[Path::new("-shared"), Path::new("-o"), &library, &part]);
    compile(&[Path::new("-o"), &program, &source, &library]);
    let target = Running::start(&mut Command::new(&program));
    let pid = target.pid();
    // Its dynamic linker needs a moment.
    await_that("it waits", || status(pid, pid, "State").is_some_and(|state| state.starts_with('S')));
    let told = heaptap(&["snap", &pid.to_string()]);
    let error =
        format!("error: process {pid}: no supported allocator found; found: snmalloc in libsnmalloc.so");
    assert!(told.errors.starts_with(&error), "{told:?}");
    assert_eq!(told.code, 5, "{told:?}");
}

/// heaptap as an ordinary user may run it, wherever the build has put it.
fn public_copy(folder: &Folder) -> std::path::PathBuf {
    let copy = folder.path("heaptap");
    fs::copy(env!("CARGO_BIN_EXE_heaptap"), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.root(), fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn is_root() -> bool {
    status(std::process::id(), std::process::id(), "Uid").is_some_and(|line| line.starts_with('0'))
}

#[test]
fn a_process_of_another_user() {
    let scope = match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) if scope.trim() != "0" => format!("; kernel.yama.ptrace_scope is {}", scope.trim()),
        _ => String::new(),
    };
    // The first process belongs to root; as root, an ordinary user's view has to be made.
    let (told, user) = if is_root() {
        let folder = Folder::new();
        let heaptap = public_copy(&folder);
        let mut command = limited();
        command.arg("setpriv").args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        (told(command.arg(heaptap).args(["snap", "1"])), NOBODY.to_owned())
    } else {
        let line = status(std::process::id(), std::process::id(), "Uid").unwrap();
        (heaptap(&["snap", "1"]), line.split_whitespace().next().unwrap().to_owned())
    };
    assert_told(
        &told,
        4,
        &format!(
            "not permitted to examine process 1: it belongs to user 0, this tool runs as user {user}{scope}; \
             without the capability CAP_SYS_PTRACE"
        ),
        "run as root, or give the tool the capability CAP_SYS_PTRACE",
    );
}

/// A process that declares itself not dumpable: its own user may not look into it either.
#[test]
fn a_process_of_the_same_user_that_is_not_dumpable() {
    let folder = Folder::new();
    let heaptap = public_copy(&folder);
    let as_user = |mut command: Command| {
        if is_root() {
            command.args(["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        }
        command
    };
    // The fourth option of prctl (157), PR_SET_DUMPABLE, to 0.
    let program = "syscall(157, 4, 0, 0, 0, 0); $0 = 'closed'; sleep 600";
    let target = Running::start(as_user(Command::new("env")).args(["perl", "-e", program]));
    let pid = target.pid();
    await_that("it runs", || status(pid, pid, "Name").is_some_and(|name| name == "closed"));
    let user = status(pid, pid, "Uid").unwrap().split_whitespace().next().unwrap().to_owned();
    let told = told(as_user(limited()).arg(&heaptap).args(["snap", &pid.to_string()]));
    let beginning =
        format!("error: not permitted to examine process {pid}: it belongs to the same user {user}");
    assert!(told.errors.starts_with(&beginning), "{told:?}");
    let ending = "; the process is not dumpable; without the capability CAP_SYS_PTRACE\n\
                  hint: run as root, or give the tool the capability CAP_SYS_PTRACE\n";
    assert!(told.errors.ends_with(ending), "{told:?}");
    assert_eq!((told.code, told.report.as_str()), (4, ""), "{told:?}");
}

/// Snapshot files that were damaged or come from another time.
#[test]
fn snapshot_files_that_are_damaged_or_newer() {
    let folder = Folder::new();
    let sound = folder.path("sound.heaptap");
    snapshot::write(&handmade::snapshot(0, 0), &sound, Overwrite::AnyFile).unwrap();
    let bytes = fs::read(&sound).unwrap();
    let damaged = folder.path("damaged.heaptap");
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&damaged, &changed).unwrap();
    let newer = folder.path("newer.heaptap");
    let mut later = bytes;
    later[8] = 2;
    let checksum = crc32fast::hash(&later[..28]).to_le_bytes();
    later[28..32].copy_from_slice(&checksum);
    fs::write(&newer, &later).unwrap();
    let sound = sound.display().to_string();
    for path in [&damaged, &newer] {
        let path = path.display().to_string();
        for words in [&["snap", &path][..], &["diff", &sound, &path]] {
            let told = heaptap(words);
            assert_eq!((told.code, told.report.as_str()), (6, ""), "{told:?}");
            if path.ends_with("newer.heaptap") {
                let error = format!("{path} has snapshot format 2; this heaptap reads formats up to 1");
                assert_told(&told, 6, &error, "read it with the heaptap that wrote it, or a later one");
            } else {
                assert!(told.errors.starts_with(&format!("error: {path} is corrupt at byte ")), "{told:?}");
                assert!(told.errors.contains("\nhint: copy it again from where it was written"), "{told:?}");
            }
        }
    }
}
