//! Folded stacks: one line a stack, of which flame graphs are made, and the flame graph itself.

use super::weighed::{WeighedStack, frame_label};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Writes one line a stack: frames from the oldest on, and bytes. Stacks with the same names are one line.
pub fn write(out: &mut dyn Write, stacks: &[WeighedStack<'_>]) -> io::Result<()> {
    for line in lines(stacks) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Writes a flame graph as SVG, which a browser zooms and searches; `what` stands above it.
pub fn write_flame_graph(out: &mut dyn Write, stacks: &[WeighedStack<'_>], what: &str) -> io::Result<()> {
    let lines = lines(stacks);
    let mut options = inferno::flamegraph::Options::default();
    what.clone_into(&mut options.title);
    "bytes".clone_into(&mut options.count_name);
    options.colors = inferno::flamegraph::Palette::Basic(inferno::flamegraph::color::BasicPalette::Mem);
    options.deterministic = true;
    if lines.is_empty() {
        // Of nothing there is no graph: an error of inferno's, but none here.
        "heaptap: no stack holds anything".clone_into(&mut options.title);
        return inferno::flamegraph::from_lines(&mut options, ["nothing 1"], out).map_err(io::Error::other);
    }
    inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
        .map_err(io::Error::other)
}

fn lines(stacks: &[WeighedStack<'_>]) -> Vec<String> {
    let mut bytes_by_names: BTreeMap<String, i64> = BTreeMap::new();
    for stack in stacks.iter().filter(|stack| stack.bytes > 0 && !stack.frames.is_empty()) {
        let labels: Vec<String> = stack.frames.iter().rev().map(frame_label).collect();
        let bytes = bytes_by_names.entry(labels.join(";")).or_default();
        *bytes = bytes.saturating_add(stack.bytes);
    }
    bytes_by_names.into_iter().map(|(names, bytes)| format!("{names} {bytes}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::schema::Frame;

    fn frame(function: &str) -> Frame {
        Frame { function: Some(function.to_owned()), ..Frame::default() }
    }

    #[test]
    fn stacks_with_the_same_names_are_one_line_and_separators_are_none_in_names() {
        let frames = [frame("keep<a;b>"), frame("main")];
        let nameless =
            [Frame { module: Some("/usr/bin/server".to_owned()), offset: Some(0x10), ..Frame::default() }];
        let stack = |frames, bytes| WeighedStack { frames, bytes, blocks: 1, labels: Vec::new() };
        let stacks =
            [stack(&frames[..], 3), stack(&frames[..], 4), stack(&nameless[..], 5), stack(&frames[..], 0)];
        let mut text = Vec::new();
        write(&mut text, &stacks).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "main;keep<a:b> 7\nserver+0x10 5\n");
    }

    #[test]
    fn a_flame_graph_of_nothing_is_one_too() {
        for stacks in
            [&[][..], &[WeighedStack { frames: &[frame("a")], bytes: 9, blocks: 1, labels: Vec::new() }]]
        {
            let mut svg = Vec::new();
            write_flame_graph(&mut svg, stacks, "growth").unwrap();
            let svg = String::from_utf8(svg).unwrap();
            assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        }
    }
}
