//! A recording: the sites that made the growth, with their stacks.

use super::page::{Page, Tone, harmless};
use super::pprof::About;
use super::quantity::{count, delta_bytes, delta_count, size_class, span};
use super::stacks;
use super::table::{Align, Table};
use super::weighed::{Label, WeighedStack};
use crate::recording::schema::{Recording, Site};
use std::io::{self, Write};

/// Writes the sites as a table, then each stack.
pub fn write(out: &mut dyn Write, page: &Page, recording: &Recording) -> io::Result<()> {
    let growth = &recording.growth;
    let attributed = match recording.base {
        None => {
            let bytes = recording.sites.iter().map(|site| site.delta_bytes).sum();
            format!(", {} of it attributed to stacks", delta_bytes(bytes, page.sizes))
        }
        Some(_) => String::new(),
    };
    writeln!(
        out,
        "{}  {} in {}{attributed}",
        page.paint(Tone::Heading, "growth"),
        delta_bytes(growth.total_delta_bytes, page.sizes),
        span(recording.seconds),
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
    if let Some(base) = &recording.base {
        writeln!(
            out,
            "sites below are less those of {}, which grew {} in {} and count {:.2} times",
            harmless(&base.source),
            delta_bytes(base.total_delta_bytes, page.sizes),
            span(base.seconds),
            base.scale
        )?;
    }
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

/// What a flame graph of it is called.
pub fn title(recording: &Recording) -> String {
    let what = if recording.base.is_some() { "more than before" } else { "growth" };
    format!("{what}: {} in {}, by allocation", name(recording), span(recording.seconds))
}

fn name(recording: &Recording) -> String {
    format!("{} {}", harmless(&recording.target.name), recording.target.pid)
}

/// The sites as other tools take them.
pub fn weighed(recording: &Recording) -> Vec<WeighedStack<'_>> {
    recording.sites.iter().map(|site| weighed_site(recording, site)).collect()
}

fn weighed_site<'r>(recording: &'r Recording, site: &'r Site) -> WeighedStack<'r> {
    let row = recording.growth.rows.iter().find(|row| row.size_bytes == site.size_bytes);
    let allocator = if site.allocator.is_empty() {
        row.map(|row| row.allocator.clone()).unwrap_or_default()
    } else {
        site.allocator.clone()
    };
    let size_bytes = i64::try_from(site.size_bytes).unwrap_or(i64::MAX);
    let arenas = site.shards.iter().map(|shard| ("arena", Label::Text(shard.to_string())));
    let threads = site.threads.iter().map(|thread| ("thread", Label::Text(harmless(thread))));
    let mut labels = vec![("allocator", Label::Text(allocator)), ("bytes", Label::Bytes(size_bytes))];
    labels.push(("size_class", Label::Text(site.size_bytes.to_string())));
    labels.push(("type", Label::Text(site.type_name.clone())));
    labels.extend(arenas.chain(threads));
    WeighedStack { frames: &site.frames, bytes: site.delta_bytes, blocks: site.delta_blocks, labels }
}

/// What a pprof profile of it says of itself.
pub fn about(recording: &Recording) -> About {
    About {
        taken_at: recording.taken_at,
        seconds: recording.seconds,
        period_bytes: 0,
        program: recording.target.exe.clone(),
        comments: vec![format!("heaptap: {}", title(recording))],
    }
}
