//! Is the allocator found where the target's paths mean something else, or nothing, from outside?

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod exactness;
mod ledger;
mod outside;

use exactness::{assert_exact, jemalloc};
use heaptap_test_programs::{LEDGER, LEDGER_JEMALLOC};
use ledger::Ledger;
use outside::{Folder, JEMALLOC, children};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies a program and all shared libraries that it needs below `root`, under the paths that they have.
fn furnish(root: &Path, program: &str) {
    let needed = Command::new("ldd").args([program, JEMALLOC]).output().unwrap();
    let text = String::from_utf8(needed.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    for library in libraries {
        let copy = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(library, copy).unwrap();
    }
    fs::copy(program, root.join("ledger")).unwrap();
}

/// Starts a ledger in a mount, PID and user namespace of its own with `folder` as its root and nothing else
/// mounted that it could be seen through.
fn start_in_container(folder: &Folder, library: &Path) -> Ledger {
    const ENTER: &str = "mount --rbind \"$0\" \"$0\" && cd \"$0\" && mkdir outside && pivot_root . outside && \
                         exec /bin/env LD_PRELOAD=\"$1\" /ledger --threads 3";
    fs::create_dir_all(folder.path("bin")).unwrap();
    fs::copy("/usr/bin/env", folder.path("bin/env")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER])
        .args([folder.root(), library]);
    let mut ledger = Ledger::spawn(command);
    let pid = children(ledger.pid())[0];
    ledger.set_pid(pid);
    ledger.set_root(folder.root());
    ledger
}

#[test]
fn a_library_that_does_not_exist_outside() {
    let folder = Folder::new();
    furnish(folder.root(), LEDGER);
    let inside = Path::new("/only/inside/libjemalloc.so.2");
    fs::create_dir_all(folder.path("only/inside")).unwrap();
    fs::copy(JEMALLOC, folder.path("only/inside/libjemalloc.so.2")).unwrap();
    assert!(!inside.exists());
    let mut ledger = start_in_container(&folder, inside);
    let snapshot = assert_exact(&mut ledger);
    assert_eq!(jemalloc(&snapshot).1.module, inside.display().to_string());
    assert_eq!(snapshot.summary.target.pid, i32::try_from(ledger.pid()).unwrap());
}

#[test]
fn a_library_that_is_another_file_outside() {
    let (folder, outside) = (Folder::new(), Folder::new());
    furnish(folder.root(), LEDGER);
    let path = outside.path("libjemalloc.so.2");
    // The same path means the C library outside: whoever looks there finds no jemalloc.
    fs::copy("/lib/x86_64-linux-gnu/libc.so.6", &path).unwrap();
    let copy = folder.path(path.to_str().unwrap().trim_start_matches('/'));
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(JEMALLOC, copy).unwrap();
    let mut ledger = start_in_container(&folder, &path);
    let snapshot = assert_exact(&mut ledger);
    assert_eq!(jemalloc(&snapshot).1.module, path.display().to_string());
}

/// What an upgrade does: a new file takes the name of the old one, or the name goes away.
fn replace(path: &Path, with: Option<&str>) {
    match with {
        Some(other) => {
            let new: PathBuf = path.with_extension("new");
            fs::copy(other, &new).unwrap();
            fs::rename(new, path).unwrap();
        }
        None => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn a_library_that_was_replaced_or_removed() {
    for with in [Some("/lib/x86_64-linux-gnu/libm.so.6"), None] {
        let folder = Folder::new();
        let library = folder.path("libjemalloc.so.2");
        fs::copy(JEMALLOC, &library).unwrap();
        let mut ledger = Ledger::preloaded(LEDGER, &library.display().to_string(), "", &["--threads", "3"]);
        replace(&library, with);
        assert_exact(&mut ledger);
    }
}

#[test]
fn an_executable_that_was_replaced_or_removed() {
    let original = LEDGER_JEMALLOC.expect("built wherever jemalloc is not the C library's own");
    for with in [Some("/bin/true"), None] {
        let folder = Folder::new();
        let program = folder.path("server");
        fs::copy(original, &program).unwrap();
        let mut ledger = Ledger::start(&program.display().to_string(), &["--threads", "3"]);
        replace(&program, with);
        assert_exact(&mut ledger);
    }
}
