//! An allocator's own profile: the sites that hold most, with their stacks.

use super::heading::write_moment;
use super::page::{Page, Tone, harmless};
use super::pprof::About;
use super::quantity::{bytes, count, millis, size_class};
use super::stacks;
use super::table::{Align, Table};
use super::weighed::{Label, WeighedStack};
use crate::profile::schema::{ClassRow, Profile, Site};
use std::io::{self, Write};

/// Size classes that are named of a site.
const CLASSES_NAMED: usize = 3;

/// Writes the sites as a table, then each stack. `budget_ms` is the pause budget, where the target was stopped just now.
pub fn write(out: &mut dyn Write, page: &Page, profile: &Profile, budget_ms: Option<f64>) -> io::Result<()> {
    write_moment(out, page, &profile.target, profile.taken_at)?;
    writeln!(
        out,
        "{}  {} in {} blocks, by {} sampled ones of {} stacks{}",
        page.paint(Tone::Heading, "in use"),
        bytes(profile.live_bytes, page.sizes),
        count(profile.live_blocks),
        count(profile.sampled_blocks),
        count(profile.sites.len() as u64),
        period(page, profile),
    )?;
    writeln!(
        out,
        "sampled by {} {} itself; {} of its counters compared, {} differ; {}",
        harmless(&profile.allocator),
        harmless(&profile.version),
        count(profile.counters_compared),
        count(profile.counters_differing),
        pause(profile, budget_ms),
    )?;
    for sentence in &profile.missing {
        page.write_sentence(out, Tone::Warning, "missing: ", sentence)?;
    }
    writeln!(out)?;
    table(page, &profile.sites).write(out, page)?;
    for site in profile.sites.iter().take(page.rows_max) {
        writeln!(out)?;
        write_stack(out, page, site)?;
    }
    Ok(())
}

fn period(page: &Page, profile: &Profile) -> String {
    profile.period_bytes.map_or_else(String::new, |period_bytes| {
        format!(", one each {} allocated", bytes(period_bytes, page.sizes))
    })
}

fn pause(profile: &Profile, budget_ms: Option<f64>) -> String {
    match budget_ms.filter(|_| profile.target.kind == "live") {
        Some(budget_ms) => format!("stopped for {} (budget {budget_ms} ms)", millis(profile.pause_ms)),
        None => "nothing was stopped".to_owned(),
    }
}

fn table(page: &Page, sites: &[Site]) -> Table {
    let mut table = Table::new([
        (Align::Right, "site"),
        (Align::Right, "live bytes"),
        (Align::Right, "live blocks"),
        (Align::Right, "share"),
        (Align::Right, "sampled"),
        (Align::Left, "size classes"),
    ]);
    for site in sites.iter().take(page.rows_max) {
        let mut classes: Vec<&ClassRow> = site.classes.iter().collect();
        classes.sort_by_key(|class| std::cmp::Reverse(class.live_bytes));
        let named = classes.iter().take(CLASSES_NAMED).map(|class| size_class(class.size_bytes, page.sizes));
        let more = if classes.len() > CLASSES_NAMED { ", ..." } else { "" };
        table.push(vec![
            site.rank.to_string().into(),
            bytes(site.live_bytes, page.sizes).into(),
            count(site.live_blocks).into(),
            format!("{:.1} %", site.share * 100.0).into(),
            count(site.sampled_blocks).into(),
            format!("{}{more}", named.collect::<Vec<_>>().join(", ")).into(),
        ]);
    }
    if let Some(others) = sites.get(page.rows_max..).filter(|others| !others.is_empty()) {
        let sum = |figure: fn(&Site) -> u64| others.iter().map(figure).fold(0, u64::saturating_add);
        table.push(vec![
            format!("{} others", count(others.len() as u64)).into(),
            bytes(sum(|site| site.live_bytes), page.sizes).into(),
            count(sum(|site| site.live_blocks)).into(),
            format!("{:.1} %", others.iter().map(|site| site.share).sum::<f64>() * 100.0).into(),
            count(sum(|site| site.sampled_blocks)).into(),
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
pub fn title(profile: &Profile) -> String {
    format!("in use: {} {}, by allocation", harmless(&profile.target.name), profile.target.pid)
}

/// The sites as other tools take them, each size class by itself.
pub fn weighed(profile: &Profile) -> Vec<WeighedStack<'_>> {
    let of_site = |site| weighed_site(profile, site);
    profile.sites.iter().flat_map(of_site).collect()
}

fn weighed_site<'p>(profile: &'p Profile, site: &'p Site) -> impl Iterator<Item = WeighedStack<'p>> {
    let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    site.classes.iter().map(move |class| {
        let mut labels = vec![
            ("allocator", Label::Text(profile.allocator.clone())),
            ("bytes", Label::Bytes(whole(class.size_bytes))),
            ("size_class", Label::Text(class.size_bytes.to_string())),
        ];
        labels.extend(site.shards.iter().map(|shard| ("arena", Label::Text(shard.to_string()))));
        WeighedStack {
            frames: &site.frames,
            bytes: whole(class.live_bytes),
            blocks: whole(class.live_blocks),
            labels,
        }
    })
}

/// What a pprof profile of it says of itself.
pub fn about(profile: &Profile) -> About {
    About {
        taken_at: profile.taken_at,
        seconds: 0.0,
        period_bytes: profile.period_bytes.unwrap_or(0),
        program: profile.target.exe.clone(),
        comments: vec![format!("heaptap: {}", title(profile))],
    }
}
