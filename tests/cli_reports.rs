//! Text reports of moments made by hand, at a fixed width.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod handmade;

use handmade::{doubtful, snapshot};
use heaptap::growth::{self, Group, Growth, GrowthOptions, Observation};
use heaptap::report::rollup::Grouping;
use heaptap::report::snap::{Order, View};
use heaptap::report::watch::{Board, Ending, Key, Recent};
use heaptap::report::{Page, Sizes, diff, info, screen, snap, watch};
use heaptap::snapshot::Snapshot;
use std::io::{self, Write};

const PAGE: Page =
    Page { width_columns: 100, color: false, sizes: Sizes::Human, rows_max: 20, verbose: false };

fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn growth_of(moments: &[(&str, &Snapshot)], group: Group) -> Growth {
    let observations: Vec<Observation<'_>> =
        moments.iter().map(|(source, snapshot)| Observation::of(source, snapshot)).collect();
    growth::between(&observations, &GrowthOptions { group, ..GrowthOptions::default() }).unwrap()
}

#[test]
fn snap_by_class_and_by_arena() {
    let summary = snapshot(0, 0).summary;
    let view = View { budget_ms: Some(50.0), ..View::default() };
    insta::assert_snapshot!(written(|out| snap::write(out, &PAGE, &view, &summary)));
}

#[test]
fn snap_by_both_exact_and_cut() {
    let summary = snapshot(0, 0).summary;
    let page = Page { sizes: Sizes::Exact, rows_max: 3, ..PAGE };
    let view = View { by: Some(Grouping::Both), order: Order::SizeClass, budget_ms: None };
    insta::assert_snapshot!(written(|out| snap::write(out, &page, &view, &summary)));
}

#[test]
fn snap_says_what_is_doubtful() {
    let view = View { budget_ms: Some(10.0), ..View::default() };
    insta::assert_snapshot!(written(|out| snap::write(out, &PAGE, &view, &doubtful())));
}

#[test]
fn info_of_a_process() {
    let summary = snapshot(0, 0).summary;
    insta::assert_snapshot!(written(|out| info::write(out, &PAGE, &summary, Some(50.0))));
}

#[test]
fn info_says_what_is_doubtful() {
    let page = Page { verbose: true, width_columns: 80, ..PAGE };
    insta::assert_snapshot!(written(|out| info::write(out, &page, &doubtful(), Some(50.0))));
}

#[test]
fn diff_of_two_moments() {
    let (before, after) = (snapshot(0, 0), snapshot(125, 4000));
    let growth = growth_of(&[("before.heaptap", &before), ("4121", &after)], Group::Class);
    insta::assert_snapshot!(written(|out| diff::write(out, &PAGE, &growth)));
}

#[test]
fn diff_of_many_moments() {
    let moments: Vec<Snapshot> =
        (0..8).map(|moment| snapshot(moment * 10, moment * 100 + moment % 3)).collect();
    let named: Vec<(&str, &Snapshot)> = moments.iter().map(|moment| ("4121", moment)).collect();
    let growth = growth_of(&named, Group::ShardAndClass);
    insta::assert_snapshot!(written(|out| diff::write(out, &PAGE, &growth)));
}

#[test]
fn diff_by_arena() {
    let (before, after) = (snapshot(0, 0), snapshot(125, 4000));
    let growth = growth_of(&[("a", &before), ("b", &after)], Group::Shard);
    insta::assert_snapshot!(written(|out| diff::write(out, &PAGE, &growth)));
}

#[test]
fn diff_that_does_not_add_up_says_so() {
    let (before, after) = (snapshot(0, 0), snapshot(125, 4000));
    let mut growth = growth_of(&[("a", &before), ("b", &after)], Group::Class);
    growth.rows.remove(0);
    growth.notes = vec!["the blocks of a moment are not known: only counts are compared".to_owned()];
    for row in &mut growth.rows {
        row.born_blocks = None;
    }
    insta::assert_snapshot!(written(|out| diff::write(out, &PAGE, &growth)));
}

#[test]
fn two_moments_fit_80_columns() {
    let (before, after) = (snapshot(0, 0), snapshot(125, 4000));
    let growth = growth_of(&[("before.heaptap", &before), ("after.heaptap", &after)], Group::Class);
    let page = Page { width_columns: 80, ..PAGE };
    let reports = [
        written(|out| diff::write(out, &page, &growth)),
        written(|out| snap::write(out, &page, &View::default(), &after.summary)),
        written(|out| info::write(out, &page, &after.summary, None)),
    ];
    for line in reports.iter().flat_map(|report| report.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

fn board() -> Board {
    let moments = [snapshot(0, 0), snapshot(10, 100), snapshot(20, 203)];
    let named: Vec<(&str, &Snapshot)> = moments.iter().map(|moment| ("4121", moment)).collect();
    let since_first = growth_of(&named, Group::Class);
    let last = &moments[2].summary;
    let leaking = since_first.rows.iter().find(|row| row.size_bytes == 640).expect("the leaking row");
    let recent = Recent { since_last_bytes: 103 * 640, series_bytes: vec![384, 484, 587] };
    Board {
        program: "ad-server".to_owned(),
        pid: 4121,
        moment: 3,
        taken_at: last.taken_at,
        live_bytes: last.allocators[0].live_bytes,
        resident_bytes: last.resident_bytes,
        pause_ms: 15.8,
        budget_ms: 50.0,
        doubts: vec!["jemalloc: up to 2 blocks were in motion at the stop".to_owned()],
        recent: [(Key::of(leaking), recent)].into(),
        since_last_bytes: 103 * 640,
        since_first: Some(since_first),
    }
}

#[test]
fn watch_block_of_the_first_moment() {
    let board = Board { since_first: None, since_last_bytes: 0, moment: 1, ..board() };
    insta::assert_snapshot!(written(|out| watch::write(out, &PAGE, &board)));
}

#[test]
fn watch_block_of_a_later_moment() {
    insta::assert_snapshot!(written(|out| watch::write(out, &PAGE, &board())));
}

#[test]
fn watch_ending() {
    let ending =
        Ending { reason: "the target has ended".to_owned(), moments: 3, skipped: 1, pause_ms_max: 15.82 };
    let board = board();
    let growth = board.since_first.as_ref();
    insta::assert_snapshot!(written(|out| watch::write_ending(out, &PAGE, growth, &ending)));
}

#[test]
fn watch_on_a_terminal() {
    let mut terminal =
        ratatui::Terminal::new(ratatui::backend::TestBackend::new(100, 14)).expect("a test backend");
    terminal.draw(|frame| screen::draw(frame, &PAGE, &board(), "q leaves, s sorts (now by growth)")).unwrap();
    insta::assert_snapshot!(terminal.backend().to_string());
}

#[test]
fn watch_on_a_terminal_that_is_too_small() {
    for (columns, lines) in [(100, 6), (20, 3), (1, 1)] {
        let mut terminal =
            ratatui::Terminal::new(ratatui::backend::TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| screen::draw(frame, &PAGE, &board(), "q leaves")).unwrap();
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let (before, after) = (snapshot(0, 0), snapshot(125, 4000));
    let growth = growth_of(&[("a", &before), ("b", &after)], Group::Class);
    let colored = written(|out| diff::write(out, &Page { color: true, ..PAGE }, &growth));
    let plain = written(|out| diff::write(out, &PAGE, &growth));
    assert!(colored.contains("\x1b[31m+"), "growth is red");
    let mut stripped = String::new();
    for part in colored.split('\x1b') {
        let is_escape = part.starts_with('[') && part.len() < colored.len();
        let after = part.find('m').filter(|_| is_escape).map_or(part, |end| &part[end + 1..]);
        stripped.push_str(after);
    }
    assert_eq!(stripped, plain);
}
