//! What the options of every command mean here and now: on this terminal, in this environment.

use super::args::{Common, Sort, When};
use super::failure::{Failure, tell};
use crate::report::{Page, Sizes};
use crate::target::Options;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Columns of a report that goes into a pipe or a file.
const PIPE_COLUMNS: usize = 100;

/// The options, resolved.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the files of the modules of captures and cores are.
    pub sysroot: PathBuf,
    /// The page that reports are written on.
    pub page: Page,
    /// JSON instead of text.
    pub json: bool,
    /// Which rows were asked for on top.
    pub sort: Option<Sort>,
    /// Longest stop of the target.
    pub pause_budget: Duration,
    /// Standard output is a terminal.
    pub is_terminal: bool,
    /// Standard error shows colours.
    pub is_stderr_colored: bool,
    /// Nothing may be written beside the report: the terminal is drawn on.
    pub is_quiet: bool,
}

/// What the typed options are resolved against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Columns of the terminal on standard output, if that is one.
    pub terminal_columns: Option<usize>,
    /// Standard error is a terminal.
    pub is_stderr_terminal: bool,
    /// `NO_COLOR` is set to something.
    pub is_no_color_set: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn present() -> Self {
        let columns =
            || ratatui::crossterm::terminal::size().map_or(PIPE_COLUMNS, |(columns, _)| columns.into());
        Self {
            terminal_columns: std::io::stdout().is_terminal().then(columns),
            is_stderr_terminal: std::io::stderr().is_terminal(),
            is_no_color_set: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        }
    }
}

impl Setting {
    /// What the typed options mean in these surroundings.
    pub fn resolve(typed: &Common, surroundings: Surroundings) -> Self {
        let is_colored = |is_terminal: bool| match typed.color {
            When::Always => true,
            When::Never => false,
            When::Auto => is_terminal && !surroundings.is_no_color_set,
        };
        let is_terminal = surroundings.terminal_columns.is_some();
        Self {
            sysroot: typed.sysroot.clone(),
            page: Page {
                width_columns: surroundings.terminal_columns.unwrap_or(PIPE_COLUMNS),
                color: is_colored(is_terminal),
                sizes: if typed.bytes { Sizes::Exact } else { Sizes::Human },
                rows_max: typed.top,
                verbose: typed.verbose,
            },
            json: typed.json,
            sort: typed.sort,
            pause_budget: typed.pause_budget,
            is_terminal,
            is_stderr_colored: is_colored(surroundings.is_stderr_terminal),
            is_quiet: false,
        }
    }

    /// What a capture of the target may cost and is to bring.
    pub fn options(&self) -> Options {
        Options { pause_budget: self.pause_budget, ..Options::default() }
    }

    /// The pause budget as reports print it.
    pub fn budget_ms(&self) -> f64 {
        self.pause_budget.as_secs_f64() * 1e3
    }

    /// Which rows of growth shall stand on top.
    ///
    /// # Errors
    /// A slope of two moments.
    pub fn growth_sort(&self, moments: usize) -> Result<Sort, Failure> {
        match self.sort {
            Some(Sort::Slope) if moments < 3 => Err(Failure::WrongUse {
                what: "there is no slope between two moments".to_owned(),
                hint: "name a third moment, or sort by growth".to_owned(),
            }),
            sort => Ok(sort.unwrap_or(Sort::Growth)),
        }
    }

    /// Tells something on standard error that is not the end of the command.
    pub fn warn(&self, sentence: &str) {
        tell(self.is_stderr_colored, "warning", sentence);
    }

    /// With `--verbose`, tells on standard error what took how long.
    pub fn tell_time(&self, what: &str, span: Duration) {
        if self.page.verbose && !self.is_quiet {
            let span_ms = span.as_secs_f64() * 1e3;
            tell(self.is_stderr_colored, "time", &format!("{span_ms:.1} ms to {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Typed;
    use clap::Parser;

    fn colors(words: &[&str], terminal: bool, is_no_color_set: bool) -> (bool, bool) {
        let words = ["heaptap", "info", "1"].iter().chain(words);
        let typed = Typed::try_parse_from(words).unwrap();
        let surroundings = Surroundings {
            terminal_columns: terminal.then_some(80),
            is_stderr_terminal: terminal,
            is_no_color_set,
        };
        let setting = Setting::resolve(&typed.common, surroundings);
        (setting.page.color, setting.is_stderr_colored)
    }

    #[test]
    fn colours_only_on_a_terminal_unless_asked_for() {
        assert_eq!(colors(&[], true, false), (true, true));
        assert_eq!(colors(&[], true, true), (false, false));
        assert_eq!(colors(&[], false, false), (false, false));
        assert_eq!(colors(&["--color", "always"], false, true), (true, true));
        assert_eq!(colors(&["--color=never"], true, false), (false, false));
    }

    #[test]
    fn a_slope_needs_three_moments() {
        let typed = Typed::try_parse_from(["heaptap", "diff", "a", "b", "--sort", "slope"]).unwrap();
        let here = Surroundings { terminal_columns: None, is_stderr_terminal: false, is_no_color_set: false };
        let setting = Setting::resolve(&typed.common, here);
        assert!(matches!(setting.growth_sort(2), Err(Failure::WrongUse { .. })));
        assert_eq!(setting.growth_sort(3).unwrap(), Sort::Slope);
    }
}
