//! Where a watch is shown: lines in a pipe, JSON, or a terminal that is redrawn in place.

use super::course::Course;
use crate::cli::args::Sort;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::setting::Setting;
use crate::report::{json, screen, watch};
use clap::ValueEnum;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::Write;
use std::time::{Duration, Instant};

/// How long a terminal may be deaf to a signal that is not typed.
const SIGNAL_LATENCY: Duration = Duration::from_millis(200);

/// The orders that the key s steps through.
const ORDERS: [Sort; 4] = [Sort::Growth, Sort::Slope, Sort::Blocks, Sort::Live];

/// A place to show moments.
#[derive(Debug)]
pub(super) struct View {
    setting: Setting,
    sort: Sort,
    surface: Surface,
}

#[derive(Debug)]
enum Surface {
    Lines,
    Json,
    Screen(Screen),
}

impl View {
    /// The view that fits the setting.
    ///
    /// # Errors
    /// The terminal cannot be prepared.
    pub(super) fn open(setting: &Setting, sort: Sort) -> Result<Self, Failure> {
        let surface = match (setting.json, setting.is_terminal) {
            (true, _) => Surface::Json,
            (false, false) => Surface::Lines,
            (false, true) => Surface::Screen(Screen::open()?),
        };
        Ok(Self { setting: setting.clone(), sort, surface })
    }

    /// Whether the terminal is drawn on, so that nothing else may write to it.
    pub(super) fn is_screen(&self) -> bool {
        matches!(self.surface, Surface::Screen(_))
    }

    /// Shows the last moment of the course.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn show(&mut self, out: &mut dyn Write, course: &Course) -> Result<(), Failure> {
        let page = &self.setting.page;
        match &mut self.surface {
            Surface::Lines => watch::write(out, page, course.board()),
            Surface::Json => match (&course.board().since_first, course.only_moment()) {
                (Some(growth), _) => json::write(out, growth),
                (None, Some(summary)) => json::write(out, summary),
                (None, None) => Ok(()),
            },
            Surface::Screen(screen) => return screen.draw(&self.setting, self.sort, course),
        }
        .and_then(|()| out.flush())
        .map_err(Failure::Report)
    }

    /// Tells something that is not a figure.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn tell(&mut self, out: &mut dyn Write, sentence: &str) -> Result<(), Failure> {
        match &mut self.surface {
            Surface::Lines => watch::write_news(out, &self.setting.page, sentence).map_err(Failure::Report),
            Surface::Json => {
                self.setting.warn(sentence);
                Ok(())
            }
            Surface::Screen(screen) => {
                sentence.clone_into(&mut screen.news);
                Ok(())
            }
        }
    }

    /// Waits for the next moment; true if the user wants to leave.
    ///
    /// # Errors
    /// The terminal cannot be read or drawn on.
    pub(super) fn wait(
        &mut self,
        course: &mut Course,
        until: Instant,
        interrupt: &Interrupt,
    ) -> Result<bool, Failure> {
        let Surface::Screen(screen) = &mut self.surface else {
            return Ok(interrupt.wait(until.saturating_duration_since(Instant::now())));
        };
        loop {
            screen.draw(&self.setting, self.sort, course)?;
            let left = until.saturating_duration_since(Instant::now());
            match screen.wish(left.min(SIGNAL_LATENCY))? {
                Wish::Leave => return Ok(true),
                Wish::NextOrder => {
                    let index = ORDERS.iter().position(|sort| *sort == self.sort).unwrap_or(0);
                    self.sort = ORDERS.iter().copied().cycle().nth(index + 1).unwrap_or(Sort::Growth);
                    course.sort(self.sort);
                }
                Wish::None if interrupt.is_raised() => return Ok(true),
                Wish::None if left.is_zero() => return Ok(false),
                Wish::None => {}
            }
        }
    }
}

/// The terminal, taken over as long as this lives.
#[derive(Debug)]
struct Screen {
    terminal: DefaultTerminal,
    news: String,
}

/// What was typed on the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    None,
    Leave,
    NextOrder,
}

impl Screen {
    fn open() -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(Failure::Terminal)?;
        Ok(Self { terminal, news: String::new() })
    }

    fn draw(&mut self, setting: &Setting, sort: Sort, course: &Course) -> Result<(), Failure> {
        let status = format!("q leaves, s sorts (now by {})  {}", name(sort), self.news);
        self.terminal
            .draw(|frame| screen::draw(frame, &setting.page, course.board(), &status))
            .map(|_| ())
            .map_err(Failure::Terminal)
    }

    fn wish(&mut self, span: Duration) -> Result<Wish, Failure> {
        if !event::poll(span).map_err(Failure::Terminal)? {
            return Ok(Wish::None);
        }
        let Event::Key(key) = event::read().map_err(Failure::Terminal)? else { return Ok(Wish::None) };
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        Ok(match key.code {
            _ if key.kind == KeyEventKind::Release => Wish::None,
            KeyCode::Char('c' | 'd') if is_control => Wish::Leave,
            KeyCode::Char('q') | KeyCode::Esc => Wish::Leave,
            KeyCode::Char('s') => Wish::NextOrder,
            _ => Wish::None,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn name(sort: Sort) -> String {
    sort.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
