//! The page that a report is written on: its width, its colours, how sizes are spelt.

use super::quantity::Sizes;
use std::io::{self, Write};

/// What a report has to know of the place where it will be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Columns that fit on a line.
    pub width_columns: usize,
    /// Whether escape sequences may be used.
    pub color: bool,
    /// How byte quantities are spelt.
    pub sizes: Sizes,
    /// How many rows of a table are listed one by one; the others are summed in one line.
    pub rows_max: usize,
    /// Whether evidence and timing are told as well.
    pub verbose: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self { width_columns: 100, color: false, sizes: Sizes::Human, rows_max: 20, verbose: false }
    }
}

/// Why a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// It does not.
    #[default]
    Plain,
    /// Names what follows.
    Heading,
    /// Something became more.
    Grew,
    /// Something became less.
    Shrank,
    /// A figure must not be taken at face value.
    Warning,
    /// Of secondary interest.
    Faint,
}

impl Tone {
    /// The tone of a change.
    pub const fn of_change(delta: i64) -> Self {
        match delta {
            0 => Self::Faint,
            1.. => Self::Grew,
            _ => Self::Shrank,
        }
    }

    const fn escape(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Heading => Some("\x1b[1m"),
            Self::Grew => Some("\x1b[31m"),
            Self::Shrank => Some("\x1b[32m"),
            Self::Warning => Some("\x1b[33m"),
            Self::Faint => Some("\x1b[2m"),
        }
    }
}

impl Page {
    /// The text with the escape sequences of its tone, or as it is on a page without colours.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        match tone.escape() {
            Some(escape) if self.color && !text.is_empty() => format!("{escape}{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// The rows to list one by one, and those to sum in one line; a sum of a single row gains nothing.
    pub fn split<'a, T>(&self, rows: &'a [T]) -> (&'a [T], &'a [T]) {
        let listed = if rows.len() <= self.rows_max.saturating_add(1) { rows.len() } else { self.rows_max };
        rows.split_at_checked(listed).unwrap_or((rows, &[]))
    }

    /// Writes a sentence in lines that fit, each after the first indented like the first word.
    pub fn write_sentence(
        &self,
        out: &mut dyn Write,
        tone: Tone,
        lead: &str,
        sentence: &str,
    ) -> io::Result<()> {
        let indent = lead.chars().count();
        let room = self.width_columns.saturating_sub(indent).max(20);
        for (index, line) in wrapped(sentence, room).iter().enumerate() {
            if index == 0 {
                writeln!(out, "{}", self.paint(tone, &format!("{lead}{line}")))?;
            } else {
                writeln!(out, "{}{}", " ".repeat(indent), self.paint(tone, line))?;
            }
        }
        Ok(())
    }
}

/// Breaks text between words into lines of at most `room` characters; longer words keep a line of their own.
///
/// Control characters become `?`: names come from the target and must not steer the terminal.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in harmless(text).split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        let needed = line.chars().count() + word.chars().count() + 1;
        if line.is_empty() {
            line.push_str(word);
        } else if needed <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Text from the target without the characters that would steer a terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_allowed() {
        let plain = Page::default();
        let colored = Page { color: true, ..plain };
        assert_eq!(plain.paint(Tone::Grew, "+1"), "+1");
        assert_eq!(colored.paint(Tone::Grew, "+1"), "\x1b[31m+1\x1b[0m");
        assert_eq!(colored.paint(Tone::Plain, "1"), "1");
    }

    #[test]
    fn sentences_wrap_under_their_first_word() {
        let mut out = Vec::new();
        let page = Page { width_columns: 30, ..Page::default() };
        page.write_sentence(&mut out, Tone::Plain, "hint: ", "detach gdb or strace first, then repeat")
            .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "hint: detach gdb or strace\n      first, then repeat\n");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\nc"), "a?[2Jb?c");
    }
}
