//! `heaptap record`: which call stacks made what grew.

use super::exit::Exit;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::outputs::Outputs;
use super::setting::Setting;
use super::{duration, moment};
use super::{recording_line::RecordingLine, report};
use crate::recording::file;
use crate::recording::session::{self, Plan};
use crate::target::{Options, Target};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Name the call stacks behind the growth of a process
///
/// Counts all blocks at the beginning and at the end, samples allocations of
/// the size classes that grow in between, and looks at the end which sampled
/// blocks are still there. Growth is exact; it is divided among the stacks
/// whose blocks stay, with 95 % intervals. Stacks whose blocks come and go are
/// not blamed, however often they are seen.
///
///   $ heaptap record 4121 --for 30s
///   $ heaptap record 4121 --for 2m --budget 0.3 --svg leak.svg
///   $ heaptap record 4121 --pprof leak.pb.gz && go tool pprof -top leak.pb.gz
///   $ heaptap record 4121 -o leak.rec && heaptap report leak.rec
///
/// Allocations are seen by hardware watchpoints on the heads of the thread
/// caches, for which no symbol is needed; what passes the caches by, by
/// breakpoints where allocation functions return; large blocks, by who touches
/// their pages first. One thread is watched at a time, nothing is patched, and
/// the kernel removes all of it should heaptap be killed. Each hit costs the
/// target an exception; together they stay below --budget. The target is
/// stopped only for the counts, for milliseconds, six times.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RecordArgs {
    /// Process id
    #[arg(value_name = "PID")]
    target: String,
    /// Length of the recording
    #[arg(long = "for", value_name = "SPAN", default_value = "30s", value_parser = duration::parse)]
    span: Duration,
    /// Percent of one core of the target that sampling may take
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    budget: f64,
    /// Keep the recording in this file, for `heaptap report`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace also a file that is no recording
    #[arg(long, requires = "output")]
    force: bool,
    /// Fetch missing debug files from the servers in `DEBUGINFOD_URLS`
    #[arg(long)]
    debuginfod: bool,
    #[command(flatten)]
    outputs: Outputs,
}

impl RecordArgs {
    /// Records until the time is over or Ctrl-C.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        if moment::pid(&self.target).is_none() {
            return Err(Failure::WrongUse {
                what: format!("`{}` is no process id: only a running process can be recorded", self.target),
                hint: "`heaptap diff` compares files".to_owned(),
            });
        }
        if !(self.budget > 0.0 && self.budget <= 100.0) {
            return Err(Failure::WrongUse {
                what: format!("a budget of {} % makes no sense", self.budget),
                hint: "give percent of one core, more than 0 and at most 100".to_owned(),
            });
        }
        if let Some(path) = &self.output {
            file::refuse_occupied(path, self.force)?;
        }
        let interrupt = Interrupt::listen().map_err(Failure::Signals)?;
        let plan = Plan {
            span: self.span,
            budget: self.budget / 100.0,
            options: Options { residency: false, ..setting.options() },
            ask_network: self.debuginfod,
        };
        let target = Target::open(&self.target)?;
        let kept = {
            let line = RecordingLine::begin(self.span, &interrupt);
            session::record(&target, &plan, &line)?
        };
        if let Some(path) = &self.output {
            file::write(&kept, path, self.force)?;
        }
        report::write(&kept.attribute(), &self.outputs, setting, out)
    }
}
