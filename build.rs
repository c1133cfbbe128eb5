//! Compiles the demonstration server, which the command `demo` carries inside.
//!
//! The server is linked with jemalloc as its malloc. heaptap itself stays on the system's: nothing in it refers to the
//! package whose static library is used here. Where jemalloc is the C library's own, the server is linked as it is.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_DEMO").is_none() {
        return Ok(());
    }
    let sources = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("test-programs/demo-server");
    println!("cargo::rerun-if-changed={}", sources.display());
    let server = Path::new(&env::var("OUT_DIR")?).join("demo-server");
    let mut build = cc::Build::new();
    build.std("gnu11").opt_level(2).debug(false);
    let mut command = build.try_get_compiler()?.to_command();
    for entry in fs::read_dir(sources)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            command.arg(path);
        }
    }
    if let Some(root) = env::var_os("DEP_JEMALLOC_ROOT") {
        command.arg(Path::new(&root).join("lib/libjemalloc_pic.a"));
    }
    // jemalloc's own build leaves DWARF behind, several times the size of the server.
    command.args(["-pthread", "-ldl", "-lm", "-Wl,--strip-debug", "-o"]).arg(&server);
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    println!("cargo::rustc-env=HEAPTAP_DEMO_SERVER={}", server.display());
    Ok(())
}
