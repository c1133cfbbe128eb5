//! `heaptap capture`: one moment of a process as a core file.

use super::exit::Exit;
use super::failure::Failure;
use super::progress::Progress;
use super::setting::Setting;
use crate::report::quantity;
use crate::target::{Contents, Options, Target, TargetError};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Keep one moment of a process as a small core file, to be looked at later
///
/// Writes the allocator's records, the registers of all threads and the tops of
/// their stacks as a sparse ELF core. Every command that reads a process takes
/// such a file as well, and answers the same; gdb opens it, and `bt` works there.
/// A name that ends in .zst makes a compressed file. No other user can read it.
///
///   $ heaptap capture 4121 -o 4121.core
///   $ heaptap snap 4121.core
///   $ gdb /usr/sbin/adserver 4121.core
///
/// The tops of stacks, and the writable data of the module that the allocator
/// is in, may hold data of the program; --no-data leaves both out. Blocks of
/// the heap are copied only where the allocator's records lie among them, as
/// with glibc's malloc; --no-data leaves its records out.
///
/// The target is stopped once, for milliseconds, and the pause is printed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CaptureArgs {
    /// Process id
    #[arg(value_name = "PID")]
    target: String,
    /// The file to be written
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Leave out everything but the allocator's records and registers
    #[arg(long)]
    no_data: bool,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl CaptureArgs {
    /// Captures the target.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let _progress = (!setting.is_quiet).then(|| Progress::begin(format!("capturing {}", self.target)));
        let contents = if self.no_data { Contents::NoData } else { Contents::Data };
        let options = Options { contents, ..setting.options() };
        let captured = Target::open(&self.target)?.capture(&options)?;
        captured.write(&self.output, self.force).map_err(TargetError::from)?;
        let pauses_ms = captured.capture.pauses.iter().map(|pause| pause.stopped_us as f64 / 1e3);
        let pause_ms = pauses_ms.fold(0.0, f64::max);
        let path = self.output.display();
        let bytes = captured.capture.memory.len_bytes();
        for lack in &captured.capture.lacks {
            setting.warn(lack);
        }
        writeln!(
            out,
            "{} of memory and {} threads kept in {path}; pause {pause_ms:.1} ms",
            quantity::bytes(bytes, setting.page.sizes),
            captured.capture.threads.len(),
        )
        .map_err(Failure::Report)?;
        Ok(if captured.capture.lacks.is_empty() { Exit::Done } else { Exit::Partial })
    }
}
