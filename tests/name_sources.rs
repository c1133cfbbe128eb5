//! Where names are found: in the program, beside it, packed in it, shared with others, and over the network.
//!
//! The program is compiled here, so that the function and the line of one place in it are known: `nm` tells its address. The
//! function is inlined, so only debug information can name it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

const SOURCE: &str = r#"
static inline __attribute__((always_inline)) int deepest(int x)
{
    asm volatile(".globl INSIDE\nINSIDE: nop");
    return x * 3;
}
__attribute__((noinline)) int outer(int x)
{
    return deepest(x) + 1;
}
int main(int argc, char **argv)
{
    (void)argv;
    return outer(argc);
}
"#;
/// Line of the place.
const LINE: &str = "prog.c:4";

struct Program {
    folder: tempfile::TempDir,
    path: PathBuf,
    inside: u64,
    build_id: String,
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn text(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap()
}

impl Program {
    fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("prog.c");
        std::fs::write(&source, SOURCE).unwrap();
        let path = folder.path().join("prog");
        let mut compiler = Command::new("cc");
        compiler.current_dir(folder.path()).args(["-O2", "-g", "-Wl,--build-id", "-o", "prog", "prog.c"]);
        run(compiler.args(arguments));
        let symbols = text(Command::new("nm").arg(&path));
        let inside = symbols.lines().find(|line| line.ends_with(" INSIDE")).unwrap();
        let inside = u64::from_str_radix(inside.split(' ').next().unwrap(), 16).unwrap();
        let notes = text(Command::new("readelf").arg("-n").arg(&path));
        let build_id =
            notes.split("Build ID: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { folder, path, inside, build_id }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Moves the debug information out of the program, to this file.
    fn split_off(&self, name: &str) -> PathBuf {
        let debug = self.file(name);
        run(Command::new("objcopy").arg("--only-keep-debug").arg(&self.path).arg(&debug));
        run(Command::new("strip").arg("--strip-all").arg(&self.path));
        debug
    }

    /// What heaptap calls the place.
    fn named(&self, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heaptap"));
        command.args(["symbolize", "-"]).args(arguments).env_remove("DEBUGINFOD_URLS");
        command.envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let line = format!("{}+{:#x}  (BuildId: {})\n", self.path.display(), self.inside, self.build_id);
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}

fn assert_whole(named: &str) {
    assert!(named.contains("deepest at ") && named.contains(LINE), "{named}");
    assert!(named.contains("inlined in outer"), "{named}");
}

#[test]
fn beside_the_program_by_its_link() {
    let program = Program::new(&[]);
    assert_whole(&program.named(&[], &[]));
    let debug = program.split_off("prog.debug");
    assert!(!program.named(&[], &[]).contains("outer"));
    let mut link = Command::new("objcopy");
    run(link.arg(format!("--add-gnu-debuglink={}", debug.display())).arg(&program.path));
    assert_whole(&program.named(&[], &[]));
}

#[test]
fn packed_in_the_program() {
    let program = Program::new(&[]);
    let debug = program.split_off("symbols");
    run(Command::new("strip").args(["--strip-debug"]).arg(&debug));
    run(Command::new("xz").arg(&debug));
    let section = format!(".gnu_debugdata={}.xz", debug.display());
    run(Command::new("objcopy").args(["--add-section", &section]).arg(&program.path));
    // It has the symbols of functions alone.
    let named = program.named(&[], &[]);
    assert!(named.contains("  outer") && !named.contains("deepest"), "{named}");
}

#[test]
fn in_files_of_the_units() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let program = Program::new(&["-gsplit-dwarf", version]);
        let sections = text(Command::new("readelf").args(["-S", "-W"]).arg(&program.path));
        assert!(sections.contains(".debug_addr"), "{version} is split");
        assert_whole(&program.named(&[], &[]));
        // What belongs to another build is not believed.
        let unit = std::fs::read_dir(program.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "dwo"))
            .unwrap();
        let other = Program::new(&["-gsplit-dwarf", version, "-DOTHER", "-O1"]);
        let others = other.folder.path().join(unit.file_name().unwrap());
        std::fs::copy(&others, &unit).unwrap();
        assert!(!program.named(&[], &[]).contains("deepest"), "{version}");
    }
}

#[test]
fn in_the_package_of_all_units() {
    let program = Program::new(&["-gsplit-dwarf", "-gdwarf-4"]);
    run(Command::new("dwp").current_dir(program.folder.path()).args(["-e", "prog", "-o", "prog.dwp"]));
    for entry in std::fs::read_dir(program.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "dwo") {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert_whole(&program.named(&[], &[]));
}

#[test]
fn shared_with_another_program() {
    let program = Program::new(&[]);
    let (debug, twin) = (program.split_off("prog.debug"), program.file("twin.debug"));
    std::fs::copy(&debug, &twin).unwrap();
    let shared = program.file("shared.debug");
    run(Command::new("dwz").arg("-m").arg(&shared).arg("-M").arg(&shared).arg(&debug).arg(&twin));
    let sections = text(Command::new("readelf").args(["-S", "-W"]).arg(&debug));
    assert!(sections.contains(".gnu_debugaltlink"), "dwz shares");
    assert_whole(&program.named(&["--file", debug.to_str().unwrap()], &[]));
}

/// Serves one file under one name, once for each connection; tells what was asked for.
fn serve(path: String, body: Vec<u8>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let wanted = request(&mut connection);
            let found = wanted == path;
            let _ = tell.send(wanted);
            let (status, body) =
                if found { ("200 OK", body.as_slice()) } else { ("404 Not Found", &b""[..]) };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(body));
        }
    });
    (url, asked)
}

fn request(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().split(' ').nth(1).unwrap_or_default().to_owned()
}

fn environment<'e>(url: &'e str, cache: &'e Path) -> [(&'e str, &'e str); 2] {
    [("DEBUGINFOD_URLS", url), ("DEBUGINFOD_CACHE_PATH", cache.to_str().unwrap())]
}

#[test]
fn from_a_server_if_the_user_asks_and_then_from_the_cache() {
    let program = Program::new(&[]);
    let debug = program.split_off("prog.debug");
    let body = std::fs::read(&debug).unwrap();
    std::fs::remove_file(&debug).unwrap();
    let cache = program.file("cache");
    let wanted = format!("/buildid/{}/debuginfo", program.build_id);
    let (url, asked) = serve(wanted.clone(), body);
    assert!(!program.named(&[], &environment(&url, &cache)).contains("outer"));
    assert!(asked.try_recv().is_err(), "nothing is asked unless the user says so");
    assert_whole(&program.named(&["--debuginfod"], &environment(&url, &cache)));
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [wanted]);
    assert!(cache.join(&program.build_id).join("debuginfo").exists(), "where other clients look too");
    assert_whole(&program.named(&["--debuginfod"], &environment("http://127.0.0.1:1", &cache)));
    assert!(asked.try_recv().is_err());
}

#[test]
fn a_server_that_lies_or_is_not_there_is_not_believed() {
    let program = Program::new(&[]);
    program.split_off("prog.debug");
    std::fs::remove_file(program.file("prog.debug")).unwrap();
    let other = Program::new(&["-DOTHER", "-O1"]);
    let body = std::fs::read(&other.path).unwrap();
    let wanted = format!("/buildid/{}/debuginfo", program.build_id);
    let (url, asked) = serve(wanted, body);
    let cache = program.file("cache");
    let named = program.named(&["--debuginfod"], &environment(&url, &cache));
    assert!(!named.contains("outer") && named.contains("prog+0x"), "{named}");
    assert!(asked.try_recv().is_ok());
    for url in ["http://127.0.0.1:1", "nonsense", ""] {
        let named = program.named(&["--debuginfod"], &environment(url, &program.file("empty")));
        assert!(!named.contains("outer"), "{url}: {named}");
    }
}
