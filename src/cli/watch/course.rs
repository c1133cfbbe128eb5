//! The course of a watch: its first and last moment whole, summaries of some between, and what it cost.

use super::series;
use super::watched::Seen;
use crate::cli::args::Sort;
use crate::cli::comparison::{Comparison, sort_rows};
use crate::cli::failure::Failure;
use crate::growth::{Growth, Observation};
use crate::report::watch::{Board, Ending, Key, Recent};
use crate::report::{Page, doubt, heading};
use crate::snapshot::schema::Target;
use crate::snapshot::{Snapshot, Summary};
use std::collections::BTreeMap;

/// Summaries kept between the first and the last moment; when they are more, every second one is dropped.
const BETWEEN_MAX: usize = 120;

/// What is kept of the moments taken.
#[derive(Debug)]
pub(super) struct Course {
    source: String,
    comparison: Comparison,
    first: Option<Snapshot>,
    between: Between,
    last: Option<Snapshot>,
    board: Board,
    ending: Ending,
    is_whole: bool,
}

impl Course {
    /// A course without moments.
    pub(super) fn new(source: String, comparison: Comparison, budget_ms: f64) -> Self {
        Self {
            source,
            comparison,
            first: None,
            between: Between::default(),
            last: None,
            board: Board { budget_ms, ..Board::default() },
            ending: Ending::default(),
            is_whole: true,
        }
    }

    /// Whether no moment was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether every moment was taken, and taken whole.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole && self.ending.skipped == 0
    }

    /// What is to be shown of the last moment.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// The first moment, as long as it is the only one.
    pub(super) fn only_moment(&self) -> Option<&Summary> {
        self.first.as_ref().filter(|_| self.last.is_none()).map(|first| &first.summary)
    }

    /// What the course came to.
    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// A moment could not be taken.
    pub(super) fn skip(&mut self) {
        self.ending.skipped += 1;
    }

    /// Puts other rows on top, now and from now on.
    pub(super) fn sort(&mut self, sort: Sort) {
        self.comparison.sort = sort;
        if let Some(growth) = &mut self.board.since_first {
            sort_rows(&mut growth.rows, sort);
        }
    }

    /// Takes up a moment; returns a sentence if the process is another program than before.
    ///
    /// # Errors
    /// The process is another one than before, or its moments cannot be compared.
    pub(super) fn add(&mut self, seen: Seen, page: &Page) -> Result<Option<String>, Failure> {
        let Seen { snapshot, is_anew } = seen;
        let news = match &self.first {
            Some(first) => executed(&self.source, &first.summary.target, &snapshot.summary.target, is_anew)?,
            None => None,
        };
        if news.is_some() {
            self.first = None;
            self.last = None;
            self.between = Between::default();
        }
        self.count(&snapshot.summary, page);
        let Some(first) = &self.first else {
            self.board.since_first = None;
            self.board.since_last_bytes = 0;
            self.board.recent = BTreeMap::new();
            self.first = Some(snapshot);
            return Ok(news);
        };
        let before = self.last.as_ref();
        let since_first = self.since_first(first, before, &snapshot)?;
        let since_last = self.comparison.growth(&[
            Observation::of(&self.source, before.unwrap_or(first)),
            Observation::of(&self.source, &snapshot),
        ])?;
        self.board.recent = self.recent(&since_first, &since_last, first, &snapshot);
        self.board.since_last_bytes = since_last.total_delta_bytes;
        self.board.since_first = Some(since_first);
        if let Some(before) = self.last.replace(snapshot) {
            self.between.add(before.summary);
        }
        Ok(news)
    }

    fn since_first(
        &self,
        first: &Snapshot,
        before: Option<&Snapshot>,
        last: &Snapshot,
    ) -> Result<Growth, Failure> {
        let source = self.source.as_str();
        let between = self.between.kept.iter().chain(before.map(|before| &before.summary));
        let moments: Vec<Observation<'_>> = [Observation::of(source, first)]
            .into_iter()
            .chain(between.map(|summary| Observation::totals_only(source, summary)))
            .chain([Observation::of(source, last)])
            .collect();
        self.comparison.growth(&moments)
    }

    fn recent(
        &self,
        since_first: &Growth,
        since_last: &Growth,
        first: &Snapshot,
        last: &Snapshot,
    ) -> BTreeMap<Key, Recent> {
        let summaries: Vec<&Summary> = [&first.summary]
            .into_iter()
            .chain(&self.between.kept)
            .chain(self.last.as_ref().map(|before| &before.summary))
            .chain([&last.summary])
            .collect();
        let summaries = series::spread(&summaries);
        let mut recent: BTreeMap<Key, Recent> = BTreeMap::new();
        for row in &since_first.rows {
            let series_bytes = summaries.iter().map(|summary| series::live_bytes(summary, row)).collect();
            recent.entry(Key::of(row)).or_default().series_bytes = series_bytes;
        }
        for row in &since_last.rows {
            recent.entry(Key::of(row)).or_default().since_last_bytes = row.delta_bytes;
        }
        recent
    }

    fn count(&mut self, summary: &Summary, page: &Page) {
        self.is_whole &= !doubt::is_partial(summary);
        self.ending.moments += 1;
        self.ending.pause_ms_max = self.ending.pause_ms_max.max(summary.pause_ms);
        self.board.program = heading::program(&summary.target);
        self.board.pid = summary.target.pid;
        self.board.moment = self.ending.moments;
        self.board.taken_at = summary.taken_at;
        self.board.live_bytes =
            summary.allocators.iter().fold(0, |sum: u64, allocator| sum.saturating_add(allocator.live_bytes));
        self.board.resident_bytes = summary.resident_bytes;
        self.board.pause_ms = summary.pause_ms;
        self.board.doubts = doubt::of_summary(summary, page);
    }
}

/// A sentence if the process executes another program than at the first moment, or the same one anew.
///
/// The name of the executable is asked only where build ids are not known: it changes also when the file is
/// moved or deleted under the running process.
fn executed(source: &str, first: &Target, now: &Target, is_anew: bool) -> Result<Option<String>, Failure> {
    if first.start_ticks != now.start_ticks || first.boot_id != now.boot_id {
        return Err(Failure::Reused { source_name: source.to_owned() });
    }
    let file = |target: &Target| target.exe.trim_end_matches(" (deleted)").to_owned();
    let is_other = match (&first.build_id, &now.build_id) {
        (Some(first), Some(now)) => first != now,
        _ => file(first) != file(now),
    };
    let program = heading::executable(now);
    Ok((is_anew || is_other)
        .then(|| format!("process {source} executed {program}: growth is counted anew from here")))
}

/// Summaries of moments between the first and the last.
#[derive(Debug, Default)]
struct Between {
    kept: Vec<Summary>,
    passed: u64,
    /// One of so many, as a power of two, is kept.
    stride_log2: u32,
}

impl Between {
    fn add(&mut self, summary: Summary) {
        let is_kept = self.passed.trailing_zeros() >= self.stride_log2;
        self.passed += 1;
        if !is_kept {
            return;
        }
        self.kept.push(summary);
        if self.kept.len() > BETWEEN_MAX {
            let mut index = 0_usize;
            self.kept.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride_log2 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_courses_stay_small_and_evenly_spread() {
        let mut between = Between::default();
        for moment in 0..10_000_u32 {
            between.add(Summary { taken_at: f64::from(moment), ..Summary::default() });
            assert!(between.kept.len() <= BETWEEN_MAX);
        }
        let times: Vec<f64> = between.kept.iter().map(|summary| summary.taken_at).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(times.first(), Some(&0.0));
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{gaps:?}");
        assert!(between.kept.len() > BETWEEN_MAX / 2);
    }

    #[test]
    fn a_deleted_executable_is_no_other_program() {
        let target = |exe: &str, build_id: Option<&str>, start_ticks| Target {
            exe: exe.to_owned(),
            build_id: build_id.map(str::to_owned),
            start_ticks: Some(start_ticks),
            ..Target::default()
        };
        let server = target("/srv/ads", Some("aa"), 7);
        assert_eq!(
            executed("1", &server, &target("/srv/ads (deleted)", Some("aa"), 7), false).unwrap(),
            None
        );
        assert_eq!(
            executed("1", &target("/a", None, 7), &target("/a (deleted)", None, 7), false).unwrap(),
            None
        );
        let news = executed("1", &server, &target("/bin/sh", Some("bb"), 7), false).unwrap();
        assert_eq!(news.unwrap(), "process 1 executed sh: growth is counted anew from here");
        let news = executed("1", &server, &server, true).unwrap();
        assert_eq!(news.unwrap(), "process 1 executed ads: growth is counted anew from here");
        assert!(executed("1", &server, &target("/srv/ads", Some("aa"), 8), true).is_err());
    }
}
