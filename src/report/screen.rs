//! A watched target on a terminal that is redrawn in place: the lines of [`super::watch`], with a line below
//! that says how to leave.

use super::page::{Page, Tone};
use super::table::Cell;
use super::watch::{Board, lines_within};
use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// Draws the newest moment, as much of it as fits, and the status line at the bottom.
pub fn draw(frame: &mut Frame<'_>, page: &Page, board: &Board, status: &str) {
    let area = frame.area();
    let page = Page { width_columns: usize::from(area.width), ..*page };
    let height_lines = usize::from(area.height).saturating_sub(2);
    let mut lines: Vec<Line<'_>> =
        lines_within(&page, board, height_lines).into_iter().map(|cells| line(&page, cells)).collect();
    lines.resize(height_lines + 1, Line::default());
    lines.push(line(&page, vec![Cell::toned(Tone::Faint, status)]));
    frame.render_widget(Paragraph::new(lines), area);
}

fn line(page: &Page, cells: Vec<Cell>) -> Line<'static> {
    let spans: Vec<Span<'static>> = cells
        .into_iter()
        .map(|cell| Span::styled(cell.text, if page.color { style(cell.tone) } else { Style::new() }))
        .collect();
    Line::from(spans)
}

const fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Heading => Style::new().add_modifier(Modifier::BOLD),
        Tone::Grew => Style::new().fg(Color::Red),
        Tone::Shrank => Style::new().fg(Color::Green),
        Tone::Warning => Style::new().fg(Color::Yellow),
        Tone::Faint => Style::new().add_modifier(Modifier::DIM),
    }
}
