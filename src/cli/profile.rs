//! `heaptap profile`: what a process's allocator has sampled itself.

use super::exit::Exit;
use super::failure::Failure;
use super::moment;
use super::outputs::Outputs;
use super::progress::Progress;
use super::setting::Setting;
use crate::report::{json, profile};
use crate::target::Target;
use clap::Args;
use std::io::Write;
use std::time::Instant;

/// Show what is in use by the stacks that the allocator itself has kept
///
/// jemalloc with its profiler on (opt.prof) samples allocations and keeps the
/// stack of each sampled block that is in use. heaptap reads them from memory:
/// a profile since the program began, from a process or a core, without a
/// dump by the program. Each sampled block is counted as what it stands for,
/// as jeprof does; how often jemalloc samples is found out.
///
///   $ heaptap profile 4121
///   $ heaptap profile core.4121 --svg in-use.svg --pprof in-use.pb.gz
///
/// The target is stopped once, for milliseconds, and the pause is printed.
/// Without its own profiler, `heaptap record` tells who makes what grows.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ProfileArgs {
    /// Process id or core
    #[arg(value_name = "PID")]
    target: String,
    /// Fetch missing debug files from the servers in `DEBUGINFOD_URLS`
    #[arg(long)]
    debuginfod: bool,
    #[command(flatten)]
    outputs: Outputs,
}

impl ProfileArgs {
    /// Reports the profile.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let found = {
            let _progress = Progress::begin(format!("reading {}", self.target));
            let target = Target::open(&self.target)?.below(&setting.sysroot);
            let begun = Instant::now();
            let found = target.profile(&setting.options(), self.debuginfod)?;
            setting.tell_time(&format!("read the profile of {}", self.target), begun.elapsed());
            found
        };
        self.outputs.write(&profile::weighed(&found), &profile::title(&found), &profile::about(&found))?;
        if setting.json {
            json::write(out, &found)
        } else {
            profile::write(out, &setting.page, &found, moment::budget_ms(&self.target, setting))
        }
        .map_err(Failure::Report)?;
        Ok(if found.missing.is_empty() { Exit::Done } else { Exit::Partial })
    }
}
