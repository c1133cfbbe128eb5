//! The `heaptap` binary: all of it is in [`heaptap::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    heaptap::cli::main()
}
