//! `heaptap demo`: the whole of it on a small leaking server of its own.

mod server;

pub use server::ServerError;

use super::args::By;
use super::comparison::Comparison;
use super::exit::Exit;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::setting::Setting;
use super::{duration, moment};
use crate::growth::{Growth, Observation, Row};
use crate::report::quantity::{count, delta_count, size_class};
use crate::report::{diff, json};
use crate::snapshot::Snapshot;
use clap::Args;
use server::{Server, Truth};
use std::io::Write;
use std::time::{Duration, Instant};

/// Moments that are taken.
const MOMENTS: u32 = 6;

/// Find a leak in a small server that comes with heaptap
///
/// Starts a server that was built into heaptap, on jemalloc: four threads
/// answer made-up requests, with sessions, buffers and a cache that come and
/// go, and lose a small block now and then. Attaches to it six times within
/// ten seconds, prints what grew, with the lost blocks on top, and beside it
/// what the server itself counted. Then it stops the server.
///
///   $ heaptap demo
///
/// Nothing has to be set up, and nothing is left behind.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DemoArgs {
    /// Time from the first moment to the last
    #[arg(long = "for", value_name = "SPAN", default_value = "10s", value_parser = duration::parse)]
    span: Duration,
}

/// A moment, between two answers of the server: what it had lost then lies between them.
struct Taken {
    before: Truth,
    snapshot: Snapshot,
    after: Truth,
}

impl DemoArgs {
    /// Starts the server, watches it, reports, and stops it.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let comparison = Comparison {
            by: By::Class,
            sort: setting.growth_sort(MOMENTS as usize)?,
            large_blocks_max: setting.page.rows_max,
            allow_different: false,
        };
        let interrupt = Interrupt::listen().map_err(Failure::Signals)?;
        let mut server = Server::start()?;
        let source = server.pid().to_string();
        if !setting.json {
            writeln!(out, "A server with pid {source} runs and leaks; heaptap attaches {MOMENTS} times.\n")
                .and_then(|()| out.flush())
                .map_err(Failure::Report)?;
        }
        let taken = watch(&mut server, &source, self.span, setting, &interrupt)?;
        drop(server);
        let moments: Vec<Observation<'_>> =
            taken.iter().map(|taken| Observation::of(&source, &taken.snapshot)).collect();
        let growth = comparison.growth(&moments)?;
        report(setting, out, &growth, &taken).map_err(Failure::Report)?;
        let exits = taken.iter().map(|taken| moment::exit_after(&taken.snapshot.summary, setting));
        Ok(exits.max_by_key(|exit| exit.code()).unwrap_or(Exit::Done))
    }
}

/// Takes the moments; Ctrl-C leaves it at those taken, once there are two to compare.
fn watch(
    server: &mut Server,
    source: &str,
    span: Duration,
    setting: &Setting,
    interrupt: &Interrupt,
) -> Result<Vec<Taken>, Failure> {
    let _progress = Progress::begin(format!("watching the server with pid {source}"));
    let quiet = Setting { is_quiet: true, ..setting.clone() };
    let begun = Instant::now();
    let mut taken = Vec::new();
    for moment in 0..MOMENTS {
        let due = begun + span * moment / (MOMENTS - 1);
        if interrupt.wait(due.saturating_duration_since(Instant::now())) {
            break;
        }
        let before = server.truth()?;
        let snapshot = moment::take(source, &quiet)?;
        let after = server.truth()?;
        taken.push(Taken { before, snapshot, after });
    }
    if taken.len() < 2 { Err(Failure::Interrupted) } else { Ok(taken) }
}

fn report(setting: &Setting, out: &mut dyn Write, growth: &Growth, taken: &[Taken]) -> std::io::Result<()> {
    if setting.json {
        return json::write(out, growth);
    }
    diff::write(out, &setting.page, growth)?;
    let [first, .., last] = taken else { return Ok(()) };
    let block_bytes = last.after.block_bytes;
    let least = last.before.lost_blocks.saturating_sub(first.after.lost_blocks);
    let most = last.after.lost_blocks.saturating_sub(first.before.lost_blocks);
    writeln!(out)?;
    writeln!(
        out,
        "the server counted {} to {} lost blocks of {block_bytes} bytes between the first moment and the last",
        count(least),
        count(most),
    )?;
    match class_of(growth, block_bytes) {
        Some(row) => writeln!(
            out,
            "heaptap, from outside: {} blocks of {}, those that were in use at a moment among them",
            delta_count(row.delta_blocks),
            size_class(row.size_bytes, setting.page.sizes),
        ),
        None => writeln!(out, "heaptap, from outside: no blocks of that size"),
    }
}

/// The row of the smallest size class that such blocks fit into.
fn class_of(growth: &Growth, block_bytes: u64) -> Option<&Row> {
    growth.rows.iter().filter(|row| row.size_bytes >= block_bytes).min_by_key(|row| row.size_bytes)
}
