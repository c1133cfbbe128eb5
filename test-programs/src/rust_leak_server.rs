//! The Rust leak server, on tikv-jemallocator as Rust programs have it. It is a package of its own, since the jemalloc of this
//! one is built in another way; cargo builds it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use thiserror::Error;

/// Why there is no such program.
#[derive(Debug, Error)]
pub enum RustLeakServerError {
    /// cargo could not be started.
    #[error("cargo: {0}")]
    Start(io::Error),
    /// It failed; its messages are on standard error.
    #[error("cargo: {0}")]
    Build(ExitStatus),
}

/// The program, built on the first call of all: that takes a minute once, and a moment as long as no source changes.
///
/// # Errors
/// If cargo fails, on every call.
pub fn rust_leak_server() -> Result<&'static Path, &'static RustLeakServerError> {
    static PROGRAM: OnceLock<Result<PathBuf, RustLeakServerError>> = OnceLock::new();
    PROGRAM.get_or_init(build).as_ref().map(PathBuf::as_path)
}

fn build() -> Result<PathBuf, RustLeakServerError> {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = programs.with_file_name("target").join("test-programs/rust-leak-server");
    let status = Command::new("cargo")
        .current_dir(programs.join("rust-leak-server"))
        .args(["build", "--quiet", "--release", "--locked"])
        .env("CARGO_TARGET_DIR", &target)
        // Only the library that is linked.
        .env("MAKEFLAGS", "STATIC_LIBS=lib/libjemalloc_pic.a DSOS=")
        .status()
        .map_err(RustLeakServerError::Start)?;
    if status.success() {
        Ok(target.join("release/rust-leak-server"))
    } else {
        Err(RustLeakServerError::Build(status))
    }
}
