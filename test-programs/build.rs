//! Compiles the C ledger: as it is, without any shared library and stripped, linked with jemalloc, and both; the same
//! with tcmalloc where that is installed.
//! Compiles the C++ leak server: as it is, and linked with jemalloc. Compiles the small C programs that benchmarks
//! measure with.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let programs = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let sources = programs.join("ledger");
    let server = programs.join("leak-server");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed={}", server.display());
    println!("cargo::rerun-if-changed=build.rs");
    link(&sources, "LEDGER", &[])?;
    link(&sources, "LEDGER_PLAIN_STATIC", &["-static".as_ref(), "-s".as_ref()])?;
    link_server(&server, "LEAK_SERVER", &[])?;
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        link_measures(&programs.join("measure"))?;
    }
    link_stacks(&programs.join("stacks"))?;
    link_types(&programs.join("types"))?;
    link_sampled(&programs.join("sampled"))?;
    link_tcmalloc(&sources)?;
    // Where jemalloc is malloc in the C library, there is no package of it.
    let Some(root) = env::var_os("DEP_JEMALLOC_ROOT") else {
        return Ok(());
    };
    let jemalloc = Path::new(&root).join("lib/libjemalloc_pic.a");
    link(&sources, "LEDGER_JEMALLOC", &[jemalloc.as_os_str()])?;
    // Only the C++ library calls malloc, which does not make a linker look into an archive.
    link_server(&server, "LEAK_SERVER_JEMALLOC", &["-Wl,--undefined=malloc".as_ref(), jemalloc.as_os_str()])?;
    link(&sources, "LEDGER_STATIC", &[jemalloc.as_os_str(), "-static".as_ref()])
}

/// Compiles all C sources to one executable and tells the library its path under this name.
fn link(sources: &Path, name: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), Box<dyn Error>> {
    let mut build = cc::Build::new();
    build.std("gnu11");
    link_files(&mut build, &files(sources, "c")?, name, arguments)
}

/// The same for C++.
fn link_server(sources: &Path, name: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), Box<dyn Error>> {
    let mut build = cc::Build::new();
    build.cpp(true).std("gnu++17");
    link_files(&mut build, &files(sources, "cpp")?, name, arguments)
}

/// The C ledger with gperftools tcmalloc inside, where its archive is installed: alone, and without any shared library
/// and stripped.
fn link_tcmalloc(sources: &Path) -> Result<(), Box<dyn Error>> {
    const ARCHIVE: &str = "libtcmalloc_minimal.a";
    let mut compiler = cc::Build::new().try_get_compiler()?.to_command();
    let output = compiler.arg(format!("-print-file-name={ARCHIVE}")).output()?;
    let archive = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    // Without a folder it was not found.
    if archive.as_os_str() == ARCHIVE {
        return Ok(());
    }
    link(sources, "LEDGER_TCMALLOC", &[archive.as_os_str(), "-lstdc++".as_ref()])?;
    let alone = [archive.as_os_str(), "-lstdc++".as_ref(), "-static".as_ref(), "-s".as_ref()];
    link(sources, "LEDGER_TCMALLOC_STATIC", &alone)
}

/// The programs that benchmarks measure with, a file each.
fn link_measures(sources: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", sources.display());
    let one = |file: &str, name: &str, arguments: &[&std::ffi::OsStr]| {
        link_files(cc::Build::new().std("gnu11"), &[sources.join(file)], name, arguments)
    };
    one("bulk-read.c", "BULK_READ", &[])?;
    one("spent.c", "SPENT", &[])?;
    one("heartbeat.c", "HEARTBEAT", &["-shared".as_ref(), "-fPIC".as_ref()])?;
    one("mallinfo.c", "MALLINFO", &["-shared".as_ref(), "-fPIC".as_ref()])
}

/// The programs with known stacks, with every kind of call frame information.
fn link_stacks(sources: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", sources.display());
    let shapes = [sources.join("shapes.cc")];
    link_files(cc::Build::new().cpp(true).std("gnu++17"), &shapes, "SHAPES", &[])?;
    let one = |name: &str, arguments: &[&str]| {
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        link_files(cc::Build::new().std("gnu11"), &[sources.join("calls.c")], name, &arguments)
    };
    one("CALLS", &["-fomit-frame-pointer"])?;
    one("CALLS_WITHOUT_HDR", &["-fomit-frame-pointer", "-Wl,--no-eh-frame-hdr"])?;
    one("CALLS_DEBUG_FRAME", &["-fomit-frame-pointer", "-fno-asynchronous-unwind-tables"])?;
    one("CALLS_FRAME_POINTER", &["-g0", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"])
}

/// Programs with objects of known types: stripped, with and without fixed addresses, with and without shared libraries.
fn link_types(sources: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", sources.display());
    let one = |name: &str, arguments: &[&str]| {
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let mut build = cc::Build::new();
        build.cpp(true).std("gnu++17");
        link_files(&mut build, &[sources.join("types.cpp")], name, &arguments)
    };
    one("TYPES", &["-fPIE", "-pie", "-s"])?;
    one("TYPES_NAMED", &["-fPIE", "-pie"])?;
    one("TYPES_FIXED", &["-fno-PIE", "-no-pie", "-s"])?;
    one("TYPES_STATIC", &["-static", "-s"])?;
    one("TYPES_WITHOUT_RTTI", &["-fno-rtti", "-s"])?;
    let executable = Path::new(&env::var("OUT_DIR")?).join("traits");
    let mut command = std::process::Command::new(env::var("RUSTC")?);
    command.args(["--edition", "2024", "-O", "-o"]).arg(&executable).arg(sources.join("traits.rs"));
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    println!("cargo::rustc-env=TRAITS={}", executable.display());
    Ok(())
}

/// The program whose allocator may sample it, with every name that the linker can keep.
fn link_sampled(sources: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", sources.display());
    link_files(
        cc::Build::new().std("gnu11"),
        &[sources.join("sampled.c")],
        "SAMPLED",
        &["-rdynamic".as_ref()],
    )
}

fn link_files(
    build: &mut cc::Build,
    sources: &[PathBuf],
    name: &str,
    arguments: &[&std::ffi::OsStr],
) -> Result<(), Box<dyn Error>> {
    let executable = Path::new(&env::var("OUT_DIR")?).join(name.to_lowercase().replace('_', "-"));
    let mut command = build.opt_level(2).debug(true).try_get_compiler()?.to_command();
    command.args(sources).args(arguments).args(["-pthread", "-ldl", "-lm", "-o"]).arg(&executable);
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    println!("cargo::rustc-env={name}={}", executable.display());
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
