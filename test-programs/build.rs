//! Compiles the C ledger: as it is, without any shared library and stripped, linked with jemalloc, and both.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let sources = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("ledger");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=build.rs");
    link(&sources, "LEDGER", &[])?;
    link(&sources, "LEDGER_PLAIN_STATIC", &["-static".as_ref(), "-s".as_ref()])?;
    // Where jemalloc is malloc in the C library, there is no package of it.
    let Some(root) = env::var_os("DEP_JEMALLOC_ROOT") else {
        return Ok(());
    };
    let jemalloc = Path::new(&root).join("lib/libjemalloc_pic.a");
    link(&sources, "LEDGER_JEMALLOC", &[jemalloc.as_os_str()])?;
    link(&sources, "LEDGER_STATIC", &[jemalloc.as_os_str(), "-static".as_ref()])
}

/// Compiles all sources to one executable and tells the library its path under this name.
fn link(sources: &Path, name: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), Box<dyn Error>> {
    let executable = Path::new(&env::var("OUT_DIR")?).join(name.to_lowercase().replace('_', "-"));
    let mut build = cc::Build::new();
    build.std("gnu11").opt_level(2).debug(true);
    let mut command = build.try_get_compiler()?.to_command();
    command.args(c_files(sources)?).args(arguments).args(["-pthread", "-ldl", "-lm", "-o"]).arg(&executable);
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    println!("cargo::rustc-env={name}={}", executable.display());
    Ok(())
}

fn c_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
