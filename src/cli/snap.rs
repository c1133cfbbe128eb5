//! `heaptap snap`: every block of one moment, as tables and as a file.

use super::args::{By, Sort};
use super::exit::Exit;
use super::failure::Failure;
use super::moment;
use super::setting::Setting;
use crate::report::snap::{Order, View};
use crate::report::{json, snap};
use crate::snapshot::{self, Overwrite, Snapshot};
use crate::target::Options;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Count every block of a process, and keep the moment in a file
///
/// Prints live blocks and bytes, blocks in thread caches, slabs and how full
/// they are, by size class and by arena. Counts are exact: equal to the
/// allocator's own, with the blocks in thread caches taken off. A figure that
/// is not exact is marked, and the exit code is 1.
///
/// With -o the moment is kept, with one bit for each block, so that a later
/// `heaptap diff` can tell blocks that stayed from blocks that were replaced.
/// The file holds sizes, counts and addresses, and no byte of the target's
/// data.
///
///   $ heaptap snap 4121
///   $ heaptap snap 4121 -o before.heaptap
///   $ heaptap snap before.heaptap --by both --sort size
///   $ heaptap snap 4121 --types -o before.heaptap
///
/// With --types it reads up to 5,000 blocks of each class after the stop, tells
/// their types, and keeps the names of the types, so that `heaptap diff` reports
/// growth by type.
///
/// The target is stopped once, for milliseconds, and the pause is printed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct SnapArgs {
    /// Process id, or a file that was captured or snapped before
    #[arg(value_name = "PID")]
    target: String,
    /// Keep the moment in this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace also a file that is no snapshot
    #[arg(long, requires = "output")]
    force: bool,
    /// Tell also what the blocks are: their types, by a random part of each class
    #[arg(long)]
    types: bool,
    /// Print one table with a row for each of these, in place of two
    #[arg(long, value_enum)]
    by: Option<By>,
}

/// What was meant.
#[derive(Debug)]
struct Plan {
    target: String,
    types: bool,
    output: Option<(PathBuf, Overwrite)>,
    view: View,
}

impl SnapArgs {
    /// Reports the moment, and keeps it if asked to.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let plan = self.resolve(setting)?;
        let options = Options { types: plan.types, ..setting.options() };
        let snapshot = moment::take_with(&plan.target, setting, &options)?;
        if let Some((path, overwrite)) = &plan.output {
            let begun = Instant::now();
            snapshot::write(&snapshot, path, *overwrite)?;
            setting.tell_time(&format!("write {}", path.display()), begun.elapsed());
        }
        report(&plan, setting, out, &snapshot)?;
        Ok(moment::exit_after(&snapshot.summary, setting))
    }

    fn resolve(self, setting: &Setting) -> Result<Plan, Failure> {
        let order = match setting.sort {
            None | Some(Sort::Live) => Order::LiveBytes,
            Some(Sort::Blocks) => Order::LiveBlocks,
            Some(Sort::Size) => Order::SizeClass,
            Some(Sort::Growth | Sort::Slope | Sort::Born) => {
                return Err(Failure::WrongUse {
                    what: "one moment has no growth to sort by".to_owned(),
                    hint: "sort by live, blocks or size; `heaptap diff` compares moments".to_owned(),
                });
            }
        };
        let view = View {
            by: self.by.map(By::grouping),
            order,
            budget_ms: moment::budget_ms(&self.target, setting),
        };
        let overwrite = if self.force { Overwrite::AnyFile } else { Overwrite::Snapshots };
        Ok(Plan {
            types: self.types,
            target: self.target,
            output: self.output.map(|path| (path, overwrite)),
            view,
        })
    }
}

fn report(plan: &Plan, setting: &Setting, out: &mut dyn Write, snapshot: &Snapshot) -> Result<(), Failure> {
    if setting.json {
        return json::write(out, &snapshot.summary).map_err(Failure::Report);
    }
    snap::write(out, &setting.page, &plan.view, &snapshot.summary).map_err(Failure::Report)?;
    match &plan.output {
        Some((path, _)) => writeln!(out, "kept in {}", path.display()).map_err(Failure::Report),
        None => Ok(()),
    }
}
