//! `heaptap watch`: growth of a process, again and again, for as long as it takes.

mod course;
mod series;
mod view;
mod watched;

use super::args::By;
use super::comparison::Comparison;
use super::exit::Exit;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::setting::Setting;
use super::{duration, moment};
use crate::report::watch::{self, Ending};
use clap::Args;
use course::Course;
use std::io::Write;
use std::time::{Duration, Instant};
use view::View;
use watched::Watched;

/// Show what grows in a process, again and again
///
/// Takes a snapshot of PID every 10 seconds (or as --every says) and compares
/// it with the first moment and with the one before. Each row tells its growth
/// since both, and from the third moment on the slope of its live bytes with
/// the half width of its 95 % interval, and whether it grows steadily or
/// wobbles.
///
///   $ heaptap watch 4121
///   $ heaptap watch 4121 --every 1m --for 2h --sort slope
///   $ heaptap watch 4121 --json >> growth.jsonl
///
/// On a terminal the table is redrawn in place: q leaves, s sorts by the next
/// order. In a pipe there is one block of lines for each moment, with --json
/// one line: the first moment as in `snap`, then growth since it.
///
/// The target is stopped for milliseconds at each moment and is left alone in
/// between. Between the first and the last moment, so many summaries are kept
/// that long watches stay small. Ctrl-C ends with a summary. When the target
/// ends, so does the watch, with its summary and exit code 3; when it executes
/// another program, growth is counted anew from there.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct WatchArgs {
    /// Process id
    #[arg(value_name = "PID")]
    target: String,
    /// Time from one moment to the next
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = duration::parse)]
    every: Duration,
    /// End after so many moments
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "SPAN", value_parser = duration::parse)]
    span: Option<Duration>,
    /// One row for each of these
    #[arg(long, value_enum, default_value = "class")]
    by: By,
}

impl WatchArgs {
    /// Watches until told to stop, until the span or the count is over, or until the target ends.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        if moment::pid(&self.target).is_none() {
            return Err(Failure::WrongUse {
                what: format!("`{}` is no process id: only a running process can be watched", self.target),
                hint: "`heaptap diff` compares files".to_owned(),
            });
        }
        let comparison = Comparison {
            by: self.by,
            sort: setting.growth_sort(usize::MAX)?,
            large_blocks_max: setting.page.rows_max,
            allow_different: false,
        };
        let interrupt = Interrupt::listen().map_err(Failure::Signals)?;
        let mut course = Course::new(self.target.clone(), comparison, setting.budget_ms());
        let mut view = View::open(setting, comparison.sort)?;
        let stopped = self.follow(setting, &interrupt, &mut course, &mut view, out);
        drop(view);
        if !setting.json {
            let growth = course.board().since_first.as_ref();
            let ending = Ending { reason: reason(&stopped, &interrupt), ..course.ending().clone() };
            watch::write_ending(out, &setting.page, growth, &ending).map_err(Failure::Report)?;
        }
        stopped?;
        Ok(if course.is_whole() { Exit::Done } else { Exit::Partial })
    }

    /// Takes moment after moment; an error is the end of the target or of the output.
    fn follow(
        &self,
        setting: &Setting,
        interrupt: &Interrupt,
        course: &mut Course,
        view: &mut View,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut watched = Watched::new(self.target.clone());
        let quiet = Setting { is_quiet: view.is_screen(), ..setting.clone() };
        for tick in 1_u64.. {
            match watched.take(&quiet) {
                Ok(seen) => {
                    if let Some(news) = course.add(seen, &setting.page)? {
                        view.tell(out, &news)?;
                    }
                    view.show(out, course)?;
                }
                Err(failure) if course.is_empty() || failure.exit() == Exit::Gone => return Err(failure),
                Err(failure) => {
                    course.skip();
                    view.tell(out, &format!("moment skipped: {failure}"))?;
                }
            }
            let next = next_tick(begun.elapsed(), self.every);
            let is_last =
                self.count.is_some_and(|count| tick >= count) || self.span.is_some_and(|span| next > span);
            if is_last || view.wait(course, begun + next, interrupt)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// When the next moment is due, counted from the first; moments that were missed are left out.
fn next_tick(elapsed: Duration, every: Duration) -> Duration {
    let passed = elapsed.as_nanos() / every.as_nanos().max(1);
    let ticks = u32::try_from(passed + 1).unwrap_or(u32::MAX);
    every.saturating_mul(ticks)
}

fn reason(stopped: &Result<(), Failure>, interrupt: &Interrupt) -> String {
    match stopped {
        Err(failure) if failure.exit() == Exit::Gone => "the target has ended".to_owned(),
        Err(_) => "watch broken off".to_owned(),
        Ok(()) if interrupt.is_raised() => "watch interrupted".to_owned(),
        Ok(()) => "watch done".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_moments_are_left_out() {
        let every = Duration::from_secs(10);
        let due = [0, 9, 10, 34].map(|elapsed| next_tick(Duration::from_secs(elapsed), every).as_secs());
        assert_eq!(due, [10, 10, 20, 40]);
    }
}
