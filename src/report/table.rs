//! Tables in plain text: a heading, aligned columns, rules before sums.

use super::page::{Page, Tone, harmless};
use std::io::{self, Write};

const GAP: &str = "  ";
/// A column of text is never cut below this.
const TEXT_COLUMNS_MIN: usize = 12;

/// On which side a column is flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// One field of a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    /// Its text, without characters that would steer a terminal.
    pub text: String,
    /// Why it stands out.
    pub tone: Tone,
}

impl Cell {
    /// A cell that stands out.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: harmless(&text.into()), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

#[derive(Debug, Clone)]
enum Line {
    Cells(Vec<Cell>),
    Rule,
}

/// Lines of cells under a heading.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(Align, Cell)>,
    lines: Vec<Line>,
}

impl Table {
    /// A table without lines.
    pub fn new(columns: impl IntoIterator<Item = (Align, &'static str)>) -> Self {
        let columns = columns
            .into_iter()
            .map(|(align, heading)| (align, Cell::toned(Tone::Heading, heading)))
            .collect();
        Self { columns, lines: Vec::new() }
    }

    /// Appends a line; cells that are missing at its end stay empty.
    pub fn push(&mut self, cells: Vec<Cell>) {
        self.lines.push(Line::Cells(cells));
    }

    /// Appends a rule across all columns.
    pub fn rule(&mut self) {
        self.lines.push(Line::Rule);
    }

    /// Whether no line was appended.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Writes the table; where it is too wide, its widest column of text is cut.
    pub fn write(&self, out: &mut dyn Write, page: &Page) -> io::Result<()> {
        for line in self.lines(page.width_columns) {
            write_line(out, page, &line)?;
        }
        Ok(())
    }

    /// The table laid out for a width: spaces are plain cells, no line ends in one.
    pub fn lines(&self, width_columns: usize) -> Vec<Vec<Cell>> {
        let widths = self.widths(width_columns);
        let heading: Vec<Cell> = self.columns.iter().map(|(_, heading)| heading.clone()).collect();
        let mut laid_out = vec![self.laid_out(&widths, &heading)];
        laid_out.extend(self.lines.iter().map(|line| match line {
            Line::Cells(cells) => self.laid_out(&widths, cells),
            Line::Rule => {
                let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
                vec![Cell::toned(Tone::Faint, rules.join(GAP))]
            }
        }));
        laid_out
    }

    fn widths(&self, width_columns: usize) -> Vec<usize> {
        let mut widths: Vec<usize> =
            self.columns.iter().map(|(_, heading)| heading.text.chars().count()).collect();
        for line in &self.lines {
            let Line::Cells(cells) = line else { continue };
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let total = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
        let excess = total.saturating_sub(width_columns);
        let texts = widths.iter_mut().zip(&self.columns).filter(|(_, (align, _))| *align == Align::Left);
        if let Some((widest, _)) = texts.max_by_key(|(width, _)| **width)
            && *widest > TEXT_COLUMNS_MIN
        {
            *widest = widest.saturating_sub(excess).max(TEXT_COLUMNS_MIN);
        }
        widths
    }

    fn laid_out(&self, widths: &[usize], cells: &[Cell]) -> Vec<Cell> {
        let mut line = Vec::new();
        let mut pending = 0;
        for (index, ((width, (align, _)), cell)) in widths.iter().zip(&self.columns).zip(cells).enumerate() {
            let text = cut(&cell.text, *width);
            let fill = width - text.chars().count().min(*width);
            let (before, after) = if *align == Align::Right { (fill, 0) } else { (0, fill) };
            pending += before + if index > 0 { GAP.len() } else { 0 };
            if !text.is_empty() {
                if pending > 0 {
                    line.push(" ".repeat(pending).into());
                }
                line.push(Cell { text, tone: cell.tone });
                pending = 0;
            }
            pending += after;
        }
        line
    }
}

/// Writes the cells of one line side by side.
pub fn write_line(out: &mut dyn Write, page: &Page, line: &[Cell]) -> io::Result<()> {
    for cell in line {
        write!(out, "{}", page.paint(cell.tone, &cell.text))?;
    }
    writeln!(out)
}

/// The text, or its beginning and an ellipsis where it is longer than `width`.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, page: &Page) -> String {
        let mut out = Vec::new();
        table.write(&mut out, page).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn aligns_and_leaves_no_trailing_space() {
        let mut table = Table::new([(Align::Right, "n"), (Align::Left, "name"), (Align::Left, "note")]);
        table.push(vec!["10".into(), "ab".into()]);
        table.rule();
        table.push(vec!["7".into(), "abcdef".into(), "x".into()]);
        assert_eq!(
            written(&table, &Page::default()),
            " n  name    note\n10  ab\n──  ──────  ────\n 7  abcdef  x\n"
        );
    }

    #[test]
    fn cuts_text_but_never_numbers() {
        let mut table = Table::new([(Align::Right, "bytes"), (Align::Left, "type")]);
        table.push(vec!["123456789".into(), "std::list<ads::Result>".into()]);
        let page = Page { width_columns: 26, ..Page::default() };
        assert_eq!(written(&table, &page), "    bytes  type\n123456789  std::list<ads:…\n");
    }

    #[test]
    fn colour_does_not_move_columns() {
        let mut table = Table::new([(Align::Right, "delta"), (Align::Left, "mark")]);
        table.push(vec![Cell::toned(Tone::Grew, "+1"), "x".into()]);
        let page = Page { color: true, ..Page::default() };
        assert_eq!(
            written(&table, &page),
            "\u{1b}[1mdelta\u{1b}[0m  \u{1b}[1mmark\u{1b}[0m\n   \u{1b}[31m+1\u{1b}[0m  x\n"
        );
    }
}
