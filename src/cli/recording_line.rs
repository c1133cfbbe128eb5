//! The line on a terminal while a process is recorded: samples, what they cost, and who leads.

use super::interrupt::Interrupt;
use crate::recording::attendant::Attendant;
use crate::report::page::harmless;
use crate::report::table::cut;
use crate::report::weighed::frame_label;
use crate::stacks::schema::Frame;
use indicatif::ProgressBar;
use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two changes of the line.
const REDRAW: Duration = Duration::from_millis(200);
/// Characters of the leading site's name.
const NAME_COLUMNS: usize = 60;
/// What functions of allocators and of languages' libraries begin with: whoever called them is meant.
const LIBRARIES: [&str; 12] = [
    "operator new",
    "malloc",
    "calloc",
    "realloc",
    "std::",
    "__gnu_cxx::",
    "alloc::",
    "core::",
    "__rust",
    "__rdl",
    "_rjem",
    "<alloc::",
];

/// A line that says how far a recording is; none where standard error is no terminal.
#[derive(Debug)]
pub struct RecordingLine<'i> {
    interrupt: &'i Interrupt,
    bar: Option<ProgressBar>,
    span: Duration,
    drawn: Cell<Option<Instant>>,
    leading: RefCell<String>,
}

impl<'i> RecordingLine<'i> {
    /// A line for a recording of this length.
    pub fn begin(span: Duration, interrupt: &'i Interrupt) -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        Self { interrupt, bar, span, drawn: Cell::new(None), leading: RefCell::default() }
    }
}

impl Attendant for RecordingLine<'_> {
    fn is_ended(&self) -> bool {
        self.interrupt.is_raised()
    }

    fn tell(&self, samples: u64, spent: Duration, elapsed: Duration) {
        let Some(bar) = &self.bar else { return };
        if self.drawn.get().is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        self.drawn.set(Some(Instant::now()));
        bar.set_message(text(samples, spent, elapsed, self.span, &self.leading.borrow()));
        bar.tick();
    }

    fn wants_name(&self) -> bool {
        self.bar.is_some()
    }

    fn name(&self, leading: Option<Vec<Frame>>) {
        *self.leading.borrow_mut() = leading.as_deref().and_then(own_frame).unwrap_or_default();
    }
}

impl Drop for RecordingLine<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn text(samples: u64, spent: Duration, elapsed: Duration, span: Duration, leading: &str) -> String {
    let cost = spent.as_secs_f64() / elapsed.as_secs_f64().max(1e-3) * 100.0;
    let far = format!("{} of {} s", elapsed.as_secs(), span.as_secs());
    let leading = if leading.is_empty() { String::new() } else { format!(", leading: {leading}") };
    format!("{far}: {samples} samples, {cost:.2} % of one core{leading}")
}

/// The first function that is neither the allocator's nor of a language's library.
fn own_frame(frames: &[Frame]) -> Option<String> {
    let is_own = |frame: &&Frame| {
        frame.function.as_ref().is_some_and(|name| !LIBRARIES.iter().any(|start| name.starts_with(start)))
    };
    let own = frames.iter().find(is_own).or(frames.first())?;
    Some(cut(&harmless(&frame_label(own)), NAME_COLUMNS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_samples_cost_and_the_caller_of_libraries() {
        let frames =
            ["operator new(unsigned long)", "std::list<int>::push_back(int&&)", "RankResults::allocate()"]
                .map(|name| Frame { function: Some(name.to_owned()), ..Frame::default() });
        let leading = own_frame(&frames).unwrap();
        let line =
            text(42, Duration::from_millis(50), Duration::from_secs(10), Duration::from_secs(30), &leading);
        assert_eq!(line, "10 of 30 s: 42 samples, 0.50 % of one core, leading: RankResults::allocate()");
        assert_eq!(own_frame(&[]), None);
    }
}
