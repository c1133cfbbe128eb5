//! Is a core as good as the process? Cores of the kernel and of gcore give the census that the process gave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;

use heaptap::allocator::Provenance;
use heaptap::snapshot::schema::Summary;
use heaptap::target::{Options, Target};
use heaptap_test_programs::{LEDGER, LEDGER_STATIC};
use ledger::Ledger;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Debian's package, stripped; `.ci/run` installs it.
const DEBIAN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// Another.
const TCMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4";

/// A directory of its own for a test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("heaptap-core-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn summary(spec: &str) -> Summary {
    // Other work on a busy machine may make a pause long; it is not what is asked here.
    let options = Options { pause_budget: Duration::from_secs(10), ..Options::default() };
    Target::open(spec).expect("it can be opened").snapshot(&options).expect("its heap can be read").summary
}

/// A core by gdb's gcore.
fn gcore(pid: u32, folder: &Folder) -> PathBuf {
    let output = Command::new("gcore").arg("-o").arg(folder.0.join("gcore")).arg(pid.to_string()).output();
    let output = output.expect("gdb is installed: .ci/run does");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.0.join(format!("gcore.{pid}"))
}

/// A process whose core the kernel will write into `folder`, if cores go into files here.
fn dumpable(program: &str, library: Option<&str>, folder: &Folder) -> Option<Ledger> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.trim() != "core" {
        return None;
    }
    let mut command = Command::new("prlimit");
    command.args(["--core=unlimited", program]).current_dir(&folder.0);
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    Some(Ledger::spawn(command))
}

fn kernel_core(ledger: Ledger, folder: &Folder) -> PathBuf {
    let pid = ledger.pid().to_string();
    assert!(Command::new("kill").args(["-ABRT", &pid]).status().unwrap().success());
    // The core is whole once the process has ended.
    ledger.wait();
    let core = |name: &str| Some(folder.0.join(name)).filter(|path| path.exists());
    core("core").or_else(|| core(&format!("core.{pid}"))).expect("the kernel wrote a core")
}

fn assert_same_census(name: &str, live: &Summary, core: &Path) {
    let core = summary(core.to_str().unwrap());
    assert_eq!(core.target.kind, "core", "{name}");
    assert_eq!((core.target.pid, core.target.threads), (live.target.pid, live.target.threads), "{name}");
    assert_eq!(core.target.exe, live.target.exe, "{name}");
    assert_eq!(core.allocators.len(), live.allocators.len(), "{name}");
    for (of_core, of_process) in core.allocators.iter().zip(&live.allocators) {
        assert_eq!(of_core.shards, of_process.shards, "{name}");
        assert_eq!(of_core.name, of_process.name, "{name}");
        assert_eq!(of_core.version, of_process.version, "{name}");
        assert_eq!(of_core.address_space, of_process.address_space, "{name}");
        let counts = |one: &heaptap::snapshot::schema::AllocatorSummary| {
            [one.live_blocks, one.live_bytes, one.cached_blocks, one.overhead_blocks, one.cells_compared]
        };
        assert_eq!(counts(of_core), counts(of_process), "{name}");
        assert!(of_core.complete && of_core.verified, "{name}: {:?}", of_core.anomalies);
    }
}

#[test]
fn cores_of_the_kernel_and_of_gcore_give_the_census_of_the_process() {
    let linked = LEDGER_STATIC.expect("built wherever jemalloc is not the C library's");
    for (name, program, library) in [
        ("debian", LEDGER, Some(DEBIAN_LIBRARY)),
        ("static", linked, None),
        ("glibc", LEDGER, None),
        ("tcmalloc", LEDGER, Some(TCMALLOC)),
    ] {
        let folder = Folder::new(name);
        let ledger = match library {
            Some(library) => Ledger::preloaded(program, library, "", &[]),
            None => Ledger::start(program, &[]),
        };
        let live = summary(&ledger.pid().to_string());
        assert_same_census(&format!("{name}, gcore"), &live, &gcore(ledger.pid(), &folder));
        let Some(ledger) = dumpable(program, library, &folder) else { continue };
        let live = summary(&ledger.pid().to_string());
        assert_same_census(&format!("{name}, kernel"), &live, &kernel_core(ledger, &folder));
    }
}

/// Provenance and version, as they are found with the modules' files below `sysroot`.
fn found_below(core: &Path, sysroot: &Path) -> (Provenance, String, String) {
    let target = Target::open(core.to_str().unwrap()).unwrap().below(sysroot);
    let summary = target.snapshot(&Options::default()).unwrap().summary;
    (summary.allocators[0].provenance, summary.allocators[0].version.clone(), summary.missing.join("; "))
}

#[test]
fn files_of_modules_are_taken_from_below_a_directory_if_they_are_the_same_build() {
    let folder = Folder::new("sysroot");
    let program = folder.0.join("program");
    fs::copy(LEDGER_STATIC.unwrap(), &program).unwrap();
    let ledger = Ledger::start(program.to_str().unwrap(), &[]);
    let live = summary(&ledger.pid().to_string()).allocators[0].clone();
    let core = gcore(ledger.pid(), &folder);
    drop(ledger);
    let sysroot = folder.0.join("sysroot");
    let below = sysroot.join(program.strip_prefix("/").unwrap());
    fs::create_dir_all(below.parent().unwrap()).unwrap();
    fs::rename(&program, &below).unwrap();
    assert_eq!(found_below(&core, Path::new("/")).0, Provenance::Probed, "the program is not there any more");
    let (provenance, version, missing) = found_below(&core, &sysroot);
    assert_eq!((provenance, version), (live.provenance, live.version));
    assert_ne!(provenance, Provenance::Probed);
    assert!(!missing.contains("another build"), "{missing}");
    fs::copy(LEDGER, &below).unwrap();
    let (provenance, _, missing) = found_below(&core, &sysroot);
    assert_eq!(provenance, Provenance::Probed);
    assert!(missing.contains("program is another build than the target had"), "{missing}");
}

#[test]
fn a_core_that_was_cut_off_says_so() {
    let folder = Folder::new("cut");
    let ledger = Ledger::preloaded(LEDGER, DEBIAN_LIBRARY, "", &[]);
    // gcore writes its notes last; the kernel's notes come first, so that what is left can be used.
    let Some(dumped) = dumpable(LEDGER, Some(DEBIAN_LIBRARY), &folder) else { return };
    let core = kernel_core(dumped, &folder);
    let length = fs::metadata(&core).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&core).unwrap();
    file.set_len(length - (64 << 20)).unwrap();
    let said = match Target::open(core.to_str().unwrap()).unwrap().snapshot(&Options::default()) {
        Ok(snapshot) => snapshot.summary.missing.join("; "),
        Err(error) => error.to_string(),
    };
    assert!(said.contains("bytes of memory are cut off"), "{said}");
    // Without notes the modules are found by their headers in memory; only the end of the core is lost here.
    let live = summary(&ledger.pid().to_string());
    let core = gcore(ledger.pid(), &folder);
    let packed = fs::read(&core).unwrap();
    let notes = note_segment(&packed);
    fs::write(&core, &packed[..notes]).unwrap();
    let cut = summary(core.to_str().unwrap());
    assert_eq!((cut.target.pid, cut.target.threads), (0, 0), "the notes are lost");
    assert!(cut.missing.join("; ").contains("its notes from byte"), "{:?}", cut.missing);
    assert_eq!(cut.allocators[0].shards, live.allocators[0].shards, "what is there is read");
    fs::write(&core, &packed[..1 << 20]).unwrap();
    let error = Target::open(core.to_str().unwrap()).unwrap().snapshot(&Options::default());
    let said = error.expect_err("the heap is lost").to_string();
    assert!(said.contains("its notes from byte") && said.contains("of memory are cut off"), "{said}");
}

/// Where the notes of a core are, by its program headers.
fn note_segment(bytes: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let headers = (0..count).map(|index| word(32) + index * 56);
    headers.filter(|header| bytes[*header] == 4).map(|header| word(header + 8)).next().expect("it has notes")
}
