//! `heaptap diff`: what grew between moments.

use super::args::By;
use super::comparison::Comparison;
use super::exit::Exit;
use super::failure::Failure;
use super::moment;
use super::setting::Setting;
use crate::growth::Observation;
use crate::report::{diff, json};
use crate::target::Options;
use clap::Args;
use std::io::Write;
use std::time::Instant;

/// Tell what grew between two or more moments of a process
///
/// The moments are snapshot files, captures, cores or process ids, in any mix,
/// the oldest first; a process is stopped for milliseconds when its turn comes. Rows tell
/// the change of live blocks and bytes, and block by block how many were born,
/// died and stayed: a place that was live at both moments counts as one that
/// stayed. Large blocks that are new or have grown are listed one by one.
///
///   $ heaptap diff before.heaptap after.heaptap
///   $ heaptap diff before.heaptap 4121 --by both --sort blocks
///   $ heaptap diff monday.heaptap tuesday.heaptap wednesday.heaptap --sort slope
///
/// With three or more moments each row also has the slope of its live bytes
/// with the half width of its 95 % interval, and a mark: rows that grow
/// steadily, and rows that only wobble. Rows that are not listed are summed, so
/// that the sum is always that of the whole heap.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DiffArgs {
    /// Snapshot files, captures, cores or process ids, the oldest first
    #[arg(value_name = "MOMENT", required = true, num_args = 2..)]
    sources: Vec<String>,
    /// One row for each of these
    #[arg(long, value_enum, default_value = "class")]
    by: By,
    /// Tell also which types grew, by a random part of each class; snapshots need --types too
    #[arg(long)]
    types: bool,
    /// Compare also moments of different processes: then only counts are compared, not blocks
    #[arg(long)]
    allow_different: bool,
}

impl DiffArgs {
    /// Compares the moments.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let comparison = self.resolve(setting)?;
        let mut snapshots = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            let options = Options { types: self.types, ..setting.options() };
            snapshots.push(moment::take_with(source, setting, &options)?);
        }
        let begun = Instant::now();
        let moments: Vec<Observation<'_>> = self
            .sources
            .iter()
            .zip(&snapshots)
            .map(|(source, snapshot)| Observation::of(source, snapshot))
            .collect();
        let growth = comparison.growth(&moments)?;
        setting.tell_time("compare", begun.elapsed());
        if setting.json { json::write(out, &growth) } else { diff::write(out, &setting.page, &growth) }
            .map_err(Failure::Report)?;
        let exits = snapshots.iter().map(|snapshot| moment::exit_after(&snapshot.summary, setting));
        Ok(exits.max_by_key(|exit| exit.code()).unwrap_or(Exit::Done))
    }

    fn resolve(&self, setting: &Setting) -> Result<Comparison, Failure> {
        Ok(Comparison {
            by: self.by,
            sort: setting.growth_sort(self.sources.len())?,
            large_blocks_max: setting.page.rows_max,
            allow_different: self.allow_different,
        })
    }
}
