//! `heaptap capture`: one moment of a process as a core file.

use super::exit::Exit;
use super::failure::Failure;
use super::progress::Progress;
use super::setting::Setting;
use crate::report::quantity;
use crate::target::{Captured, Contents, Options, Target, TargetError};
use clap::Args;
use heaptap_platform::AddressRange;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Keep one moment of a process as a core file, to be looked at later
///
/// Writes the allocator's records, the registers of all threads and their stacks
/// (8 MiB of each at most) as a sparse ELF core. Every command that reads a process takes
/// such a file as well, and answers the same; gdb opens it, and `bt` works there.
/// A name that ends in .zst makes a compressed file. No other user can read it.
///
///   $ heaptap capture 4121 -o 4121.core
///   $ heaptap snap 4121.core
///   $ gdb /usr/sbin/adserver 4121.core
///
/// With --full it is a whole core, as gcore writes one, with a short stop: all
/// private memory is read around the stop, and in it what changes, as far as the
/// pause budget reaches. How much has changed meanwhile is printed, and where
/// stands in the file. It needs room for the memory twice, for a while. Pages
/// that the process has not touched, and those in swap, are not brought in.
///
/// Stacks, and the writable data of the module that the allocator
/// is in, may hold data of the program; --no-data leaves both out. Blocks of
/// the heap are copied only where the allocator's records lie among them, as
/// with glibc's malloc; --no-data leaves its records out.
///
/// The target is stopped once, for milliseconds, and the pause is printed. Of a
/// core, a small capture is made that says the same.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CaptureArgs {
    /// Process id, or a core to make a capture of
    #[arg(value_name = "PID")]
    target: String,
    /// The file to be written
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Leave out everything but the allocator's records and registers
    #[arg(long)]
    no_data: bool,
    /// Keep all private memory: a whole core
    #[arg(long, conflicts_with = "no_data")]
    full: bool,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl CaptureArgs {
    /// Captures the target.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let _progress = (!setting.is_quiet).then(|| Progress::begin(format!("capturing {}", self.target)));
        let contents = match (self.no_data, self.full) {
            (true, _) => Contents::NoData,
            (false, true) => Contents::Full,
            (false, false) => Contents::Data,
        };
        let options = Options { contents, ..setting.options() };
        let target = Target::open(&self.target)?.below(&setting.sysroot);
        let captured = if self.full {
            target.capture_whole(&options, self.folder())?
        } else {
            target.capture(&options)?
        };
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
            "{} of memory and {} threads kept in {path}; pause {pause_ms:.1} ms{}",
            quantity::bytes(bytes, setting.page.sizes),
            captured.capture.threads.len(),
            changed(&captured, setting),
        )
        .map_err(Failure::Report)?;
        Ok(if captured.capture.lacks.is_empty() { Exit::Done } else { Exit::Partial })
    }

    /// Where the file is to be, and room for it.
    fn folder(&self) -> &Path {
        self.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

/// How much of the memory is not of the stop.
fn changed(captured: &Captured, setting: &Setting) -> String {
    let changed_bytes: u64 = captured.capture.changed.iter().map(AddressRange::len_bytes).sum();
    if changed_bytes == 0 {
        return String::new();
    }
    format!("; {} changed while it was read", quantity::bytes(changed_bytes, setting.page.sizes))
}
