//! Stacks as text: one block for each group of threads, one line for each frame, nothing cut.

use super::heading::{things, write_moment};
use super::page::{Page, Tone, harmless};
use super::quantity::millis;
use crate::stacks::schema::{Frame, Group, Stacks};
use std::io::{self, Write};

/// Writes the stacks. `budget_ms` is the pause budget, where the target was stopped just now.
pub fn write(out: &mut dyn Write, page: &Page, stacks: &Stacks, budget_ms: Option<f64>) -> io::Result<()> {
    write_moment(out, page, &stacks.target, stacks.taken_at)?;
    let pause = pause(stacks, budget_ms);
    writeln!(out, "{}", page.paint(Tone::Faint, &pause))?;
    for sentence in &stacks.missing {
        page.write_sentence(out, Tone::Warning, "missing: ", sentence)?;
    }
    for group in &stacks.groups {
        write_group(out, page, group)?;
    }
    Ok(())
}

fn pause(stacks: &Stacks, budget_ms: Option<f64>) -> String {
    if stacks.target.kind == "core" {
        return "read from a core file: nothing was stopped".to_owned();
    }
    let live_ms = budget_ms.filter(|_| stacks.target.kind == "live");
    let budget = live_ms.map_or_else(String::new, |budget_ms| format!(" (budget {budget_ms} ms)"));
    let over =
        if live_ms.is_some_and(|budget_ms| stacks.pause_ms > budget_ms) { ", over budget" } else { "" };
    format!("target stopped for {}{budget}{over}", millis(stacks.pause_ms))
}

fn write_group(out: &mut dyn Write, page: &Page, group: &Group) -> io::Result<()> {
    let members: Vec<String> = group
        .threads
        .iter()
        .map(|thread| match &thread.name {
            Some(name) => format!("{name} {}", thread.tid),
            None => thread.tid.to_string(),
        })
        .collect();
    let count = things(group.threads.len() as u64, "thread");
    writeln!(out)?;
    page.write_sentence(out, Tone::Heading, &format!("{count}: "), &members.join(", "))?;
    for (number, frame) in group.frames.iter().enumerate() {
        writeln!(out, "{number:>4}  {}", line(page, frame))?;
    }
    match &group.ends {
        Some(reason) => {
            writeln!(out, "      {}", page.paint(Tone::Warning, &format!("ends early: {}", harmless(reason))))
        }
        None => Ok(()),
    }
}

/// `ads::serve(int)  at src/serve.cc:41  server+0x1234`; without a name, the module with its build id.
pub(super) fn line(page: &Page, frame: &Frame) -> String {
    let place = match (&frame.module, frame.offset) {
        (Some(module), Some(offset)) => format!("{module}+{offset:#x}"),
        _ => frame.address.map_or_else(|| "?".to_owned(), |address| format!("{address:#x}")),
    };
    let mut parts = Vec::new();
    match (&frame.function, &frame.build_id) {
        (Some(function), _) => {
            parts.push(harmless(function));
            match (&frame.file, frame.line) {
                (Some(file), Some(number)) => parts.push(format!("at {}:{number}", harmless(file))),
                (Some(file), None) => parts.push(format!("at {}", harmless(file))),
                _ => {}
            }
            let module = place.rsplit('/').next().unwrap_or(&place);
            let place = if frame.inlined { "inlined".to_owned() } else { harmless(module) };
            parts.push(page.paint(Tone::Faint, &place));
        }
        (None, Some(build_id)) => {
            parts.push(harmless(&place));
            parts.push(page.paint(Tone::Faint, &format!("(BuildId: {})", harmless(build_id))));
        }
        (None, None) => parts.push(harmless(&place)),
    }
    match frame.trust.as_deref() {
        Some("frame_pointer") => parts.push(page.paint(Tone::Warning, "(by frame pointer)")),
        Some("convention") => parts.push(page.paint(Tone::Warning, "(by calling convention)")),
        _ => {}
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_never_cut() {
        let frame = Frame {
            function: Some("f".repeat(500)),
            module: Some("/usr/bin/server".to_owned()),
            offset: Some(0x1f0),
            build_id: Some("ab12".to_owned()),
            trust: Some("cfi".to_owned()),
            ..Frame::default()
        };
        let page = Page { width_columns: 40, ..Page::default() };
        assert_eq!(line(&page, &frame), format!("{}  server+0x1f0", "f".repeat(500)));
        let nameless = Frame { function: None, trust: Some("frame_pointer".to_owned()), ..frame };
        assert_eq!(line(&page, &nameless), "/usr/bin/server+0x1f0  (BuildId: ab12)  (by frame pointer)");
    }
}
