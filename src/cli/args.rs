//! What can be typed, as types: the options that every command takes, and the commands.
//!
//! Nothing here decides anything: [`super::setting`] and the commands say what was meant.

#[cfg(feature = "demo")]
use super::demo;
use super::exit::Exit;
use super::{
    capture, diff, duration, generate, info, profile, record, report, show, snap, stacks, symbolize, watch,
};
use crate::report::rollup::Grouping;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Show, from outside, what grows in the heap of a running process
///
/// heaptap attaches to a process for milliseconds, reads the allocator's own
/// records, and lets go. Nothing is preloaded, linked or restarted; the target
/// may be stripped, and so may its allocator. Because it reads those records,
/// it sees every block that is live, also those allocated long before it came.
///
///   $ heaptap snap 4121 -o before.heaptap
///   $ heaptap snap 4121 -o after.heaptap      (some time later)
///   $ heaptap diff before.heaptap after.heaptap
///
/// `heaptap demo` shows it on a small leaking server of its own.
#[derive(Debug, Parser)]
#[command(name = "heaptap", version, verbatim_doc_comment, max_term_width = 100, after_long_help = exit_codes())]
pub struct Typed {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to do it.
    #[command(flatten)]
    pub common: Common,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each command documents itself in its own file")]
pub enum Command {
    Info(info::InfoArgs),
    Snap(snap::SnapArgs),
    Diff(diff::DiffArgs),
    Watch(watch::WatchArgs),
    Record(record::RecordArgs),
    Report(report::ReportArgs),
    Profile(profile::ProfileArgs),
    Capture(capture::CaptureArgs),
    Show(show::ShowArgs),
    Stacks(stacks::StacksArgs),
    Symbolize(symbolize::SymbolizeArgs),
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

/// The options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// Print JSON, one object a moment on one line
    #[arg(long, global = true)]
    pub json: bool,
    /// List this many rows of a table, and sum the others in one line
    #[arg(long, global = true, value_name = "N", default_value_t = 20, value_parser = rows)]
    pub top: usize,
    /// Put these rows on top
    #[arg(long, global = true, value_enum, value_name = "ORDER")]
    pub sort: Option<Sort>,
    /// Print every digit of sizes, in bytes
    #[arg(long, global = true, visible_alias = "exact")]
    pub bytes: bool,
    /// Use colours; auto means on a terminal where `NO_COLOR` is not set
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub color: When,
    /// Stop the target for at most this long at a time
    #[arg(long, global = true, value_name = "SPAN", default_value = "50ms", value_parser = duration::parse)]
    pub pause_budget: Duration,
    /// Look below this directory for the files of the modules of captures and cores
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    pub sysroot: PathBuf,
    /// Tell also how allocators were found, every anomaly, and what took how long
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

fn exit_codes() -> String {
    let lines: Vec<String> =
        Exit::ALL.iter().map(|(exit, meaning)| format!("  {}  {meaning}", exit.code())).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}

fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a number from 1 on".to_owned()),
        Ok(rows) => Ok(rows),
    }
}

/// Which rows stand on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Most bytes grown (diff, watch)
    Growth,
    /// Most blocks: grown in diff and watch, live in snap
    Blocks,
    /// Steepest growth over three or more moments (diff, watch)
    Slope,
    /// Largest size class
    Size,
    /// Most blocks born (diff, watch)
    Born,
    /// Most live bytes
    Live,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal where `NO_COLOR` is not set
    Auto,
    /// Also in pipes and files
    Always,
    /// Nowhere
    Never,
}

/// What tells rows apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Size classes, over all arenas
    Class,
    /// Arenas, over all size classes
    Arena,
    /// Size classes of each arena
    Both,
}

impl By {
    /// What is meant in the tables of one moment.
    pub(super) const fn grouping(self) -> Grouping {
        match self {
            Self::Class => Grouping::Class,
            Self::Arena => Grouping::Arena,
            Self::Both => Grouping::Both,
        }
    }
}
