//! Compiles the C ledger and links it with the jemalloc that the package depends on; compiles what the Rust ledger
//! needs of it. With the feature `unprefixed` the jemalloc is malloc itself, else its functions begin with `_rjem_`.

use std::env;
use std::path::{Path, PathBuf};

/// The sources that the Rust ledger links.
const CONTROL: [&str; 3] = ["heap.c", "statistics.c", "text.c"];

fn main() {
    let sources = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../../ledger");
    println!("cargo:rerun-if-changed={}", sources.display());
    let prefix = env::var_os("CARGO_FEATURE_UNPREFIXED").is_none().then_some("_rjem_");
    let mut build = cc::Build::new();
    build.std("gnu11");
    if let Some(prefix) = prefix {
        build.define("LEDGER_PREFIX", prefix);
    }
    let ledger = Path::new(&variable("OUT_DIR")).join("ledger");
    link_ledger(&build, &sources, &ledger);
    println!("cargo:rustc-env=LEDGER={}", ledger.display());
    if prefix.is_some() {
        build.files(CONTROL.map(|name| sources.join(name))).compile("ledger_control");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn c_files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    files
}

fn link_ledger(build: &cc::Build, sources: &Path, ledger: &Path) {
    let jemalloc = Path::new(&variable("DEP_JEMALLOC_ROOT")).join("lib/libjemalloc_pic.a");
    let mut command = build.get_compiler().to_command();
    command.args(c_files(sources)).arg(jemalloc).args(["-pthread", "-ldl", "-lm", "-o"]).arg(ledger);
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
