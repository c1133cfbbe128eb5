//! A recording: the sites that made the growth, with their stacks.

use super::page::{Page, Tone, harmless};
use super::quantity::{count, delta_bytes, delta_count, size_class, span};
use super::stacks;
use super::table::{Align, Table};
use crate::recording::schema::{Recording, Site};
use crate::stacks::schema::Frame;
use std::io::{self, Write};

/// Writes the sites as a table, then each stack.
pub fn write(out: &mut dyn Write, page: &Page, recording: &Recording) -> io::Result<()> {
    let growth = &recording.growth;
    writeln!(
        out,
        "{}  {} in {}, {} of it attributed to stacks",
        page.paint(Tone::Heading, "growth"),
        delta_bytes(growth.total_delta_bytes, page.sizes),
        span(recording.seconds),
        delta_bytes(recording.sites.iter().map(|site| site.delta_bytes).sum(), page.sizes),
    )?;
    writeln!(
        out,
        "{} samples of {} stacks by {}; {} hits of {:.1} us took {:.2} % of one core of the target",
        count(recording.samples),
        count(recording.stacks),
        recording.sampler,
        count(recording.cost.hits),
        recording.cost.hit_cost_us,
        recording.cost.target_cpu_fraction * 100.0
    )?;
    writeln!(out)?;
    if recording.sites.is_empty() {
        return writeln!(out, "no stack was found whose blocks stay");
    }
    table(page, &recording.sites).write(out, page)?;
    for site in recording.sites.iter().take(page.rows_max) {
        writeln!(out)?;
        write_stack(out, page, site)?;
    }
    Ok(())
}

fn table(page: &Page, sites: &[Site]) -> Table {
    let mut table = Table::new([
        (Align::Right, "site"),
        (Align::Right, "delta bytes"),
        (Align::Right, "delta blocks"),
        (Align::Right, "share of class"),
        (Align::Right, "95 % interval"),
        (Align::Right, "size class"),
        (Align::Right, "samples"),
        (Align::Left, "looks like"),
        (Align::Left, "threads"),
    ]);
    for site in sites.iter().take(page.rows_max) {
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        table.push(vec![
            site.rank.to_string().into(),
            delta_bytes(site.delta_bytes, page.sizes).into(),
            delta_count(site.delta_blocks).into(),
            percent(site.share).into(),
            format!("{} to {}", percent(site.share_low), percent(site.share_high)).into(),
            size_class(site.size_bytes, page.sizes).into(),
            count(u64::from(site.samples)).into(),
            site.type_name.as_str().into(),
            site.threads.join(", ").into(),
        ]);
    }
    table
}

fn write_stack(out: &mut dyn Write, page: &Page, site: &Site) -> io::Result<()> {
    let examples: Vec<String> = site.addresses.iter().map(|address| format!("{address:#x}")).collect();
    let title = format!("site {}", site.rank);
    writeln!(out, "{}  blocks such as {}", page.paint(Tone::Heading, &title), examples.join(", "))?;
    for (number, frame) in site.frames.iter().enumerate() {
        writeln!(out, "{number:>4}  {}", stacks::line(page, frame))?;
    }
    Ok(())
}

/// What a flame graph calls a frame.
fn label(frame: &Frame) -> String {
    let place = || match (&frame.module, frame.offset) {
        (Some(module), Some(offset)) => format!("{module}+{offset:#x}"),
        _ => frame.address.map_or_else(|| "?".to_owned(), |address| format!("{address:#x}")),
    };
    harmless(&frame.function.clone().unwrap_or_else(place)).replace(';', ":")
}

/// Writes one line a site, as flame graphs are made of: frames from the oldest on, and bytes grown.
pub fn write_folded(out: &mut dyn Write, recording: &Recording) -> io::Result<()> {
    for site in recording.sites.iter().filter(|site| site.delta_bytes > 0) {
        let labels: Vec<String> = site.frames.iter().rev().map(label).collect();
        writeln!(out, "{} {}", labels.join(";"), site.delta_bytes)?;
    }
    Ok(())
}
