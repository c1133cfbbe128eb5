//! Compiles the C ledger and links it with the jemalloc that the package depends on; compiles what the Rust ledger
//! needs of it. With the feature `unprefixed` the jemalloc is malloc itself, else its functions begin with `_rjem_`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// The sources that the Rust ledger links.
const CONTROL: [&str; 5] = ["extension.c", "heap.c", "mallinfo.c", "statistics.c", "text.c"];

fn main() -> Result<(), Box<dyn Error>> {
    let sources = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../ledger");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=../build.rs");
    let mut build = cc::Build::new();
    build.std("gnu11");
    let prefixed = env::var_os("CARGO_FEATURE_UNPREFIXED").is_none();
    if prefixed {
        build.define("LEDGER_PREFIX", "_rjem_");
    }
    let ledger = Path::new(&env::var("OUT_DIR")?).join("ledger");
    link_ledger(&build, &sources, &ledger)?;
    println!("cargo::rustc-env=LEDGER={}", ledger.display());
    println!("cargo::rerun-if-env-changed=WITH_LEAK_SERVER");
    if env::var_os("WITH_LEAK_SERVER").is_some() {
        link_server(&sources.with_file_name("leak-server"), &ledger.with_file_name("leak-server"))?;
    }
    if prefixed {
        build.files(CONTROL.map(|name| sources.join(name))).try_compile("ledger_control")?;
    }
    Ok(())
}

fn files(folder: &Path, wanted: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == wanted) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn link_ledger(build: &cc::Build, sources: &Path, ledger: &Path) -> Result<(), Box<dyn Error>> {
    let jemalloc = Path::new(&env::var("DEP_JEMALLOC_ROOT")?).join("lib/libjemalloc_pic.a");
    let mut command = build.try_get_compiler()?.to_command();
    command.args(files(sources, "c")?).arg(jemalloc).args(["-pthread", "-ldl", "-lm", "-o"]).arg(ledger);
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The leak server, whose malloc this jemalloc then is.
fn link_server(sources: &Path, server: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", sources.display());
    let jemalloc = Path::new(&env::var("DEP_JEMALLOC_ROOT")?).join("lib/libjemalloc_pic.a");
    let mut build = cc::Build::new();
    let mut command = build.cpp(true).std("gnu++17").opt_level(2).debug(true).try_get_compiler()?.to_command();
    // Only the C++ library calls malloc, which does not make a linker look into an archive.
    command.args(files(sources, "cpp")?).arg("-Wl,--undefined=malloc").arg(jemalloc);
    let status = command.args(["-pthread", "-ldl", "-lm", "-o"]).arg(server).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
