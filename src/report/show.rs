//! An address or a sample of blocks as text: what it is, then a word a line, with what each points to.

use super::heading::{things, write_moment};
use super::page::{Page, Tone, harmless};
use super::quantity::{bytes, count, millis, percent};
use super::table::{Align, Cell, Table, cut};
use crate::inspection::schema::{
    Block, CommonWord, Inspection, Place, Referrers, Sample, SampledBlock, Word,
};
use std::io::{self, Write};

/// Columns before a word's meaning: address, bytes, text and the gaps.
const WORD_COLUMNS: usize = 14 + 2 + 23 + 2 + 8 + 2;

/// Writes the inspection. `budget_ms` is the pause budget, where the target was stopped just now.
pub fn write(
    out: &mut dyn Write,
    page: &Page,
    inspection: &Inspection,
    budget_ms: Option<f64>,
) -> io::Result<()> {
    write_moment(out, page, &inspection.target, inspection.taken_at)?;
    writeln!(out, "{}", page.paint(Tone::Faint, &pause(inspection, budget_ms)))?;
    for sentence in &inspection.missing {
        page.write_sentence(out, Tone::Warning, "missing: ", sentence)?;
    }
    if let Some(place) = &inspection.place {
        write_place(out, page, place)?;
        writeln!(out)?;
        let equal = |_: usize, _: &Word| false;
        write_words(out, page, &inspection.words, &equal, Some(place.address))?;
    }
    if let Some(referrers) = &inspection.referrers {
        write_referrers(out, page, referrers)?;
    }
    inspection.sample.as_ref().map_or(Ok(()), |sample| write_sample(out, page, sample))
}

fn pause(inspection: &Inspection, budget_ms: Option<f64>) -> String {
    if inspection.target.kind == "core" {
        return "read from a core file: nothing was stopped".to_owned();
    }
    let live_ms = budget_ms.filter(|_| inspection.target.kind == "live");
    let stops =
        if inspection.stops > 1 { format!(" at most, {} times", inspection.stops) } else { String::new() };
    let budget = live_ms.map_or_else(String::new, |budget_ms| format!(" (budget {budget_ms} ms)"));
    let over = if live_ms.is_some_and(|budget| inspection.pause_ms > budget) { ", over budget" } else { "" };
    format!("target stopped for {}{stops}{budget}{over}", millis(inspection.pause_ms))
}

fn write_place(out: &mut dyn Write, page: &Page, place: &Place) -> io::Result<()> {
    writeln!(out)?;
    page.write_sentence(out, Tone::Heading, &format!("{:#x}  ", place.address), &place.what)?;
    if let Some(block) = &place.block {
        write_block(out, page, place, block)?;
    }
    for (name, neighbour) in [("before", &place.before), ("behind", &place.after)] {
        if let Some(block) = neighbour {
            writeln!(out, "  {name}  {:#x}  {}", block.address, harmless(&brief(block)))?;
        }
    }
    if let (Some(start), Some(end), None) = (place.mapping_start, place.mapping_end, &place.block) {
        let size = bytes(end - start, page.sizes);
        writeln!(out, "  in the mapping {start:#x} to {end:#x} ({size})")?;
    }
    Ok(())
}

fn write_block(out: &mut dyn Write, page: &Page, place: &Place, block: &Block) -> io::Result<()> {
    let allocator = harmless(place.allocator.as_deref().unwrap_or("?"));
    let class = if block.size_bytes > 0 {
        format!("class {}", count(block.size_bytes))
    } else {
        "no class".to_owned()
    };
    let state = if block.state == "overhead" { "the allocator's own" } else { &block.state };
    writeln!(
        out,
        "  block   {:#x}, {state}, {} usable, {class}, {allocator} arena {}",
        block.address,
        bytes(block.usable_bytes, page.sizes),
        block.shard
    )?;
    if let (Some(run), Some(index), Some(blocks), Some(live)) =
        (block.run_address, block.run_index, block.run_blocks, block.run_live_blocks)
    {
        writeln!(
            out,
            "  run     {run:#x}, block {index} of 0 to {}, {live} of {blocks} live",
            blocks.max(1) - 1
        )?;
    }
    match &block.type_name {
        Some(name) => writeln!(out, "  type    {}", harmless(name)),
        None => Ok(()),
    }
}

/// `live, 48 (ads::Bid)`.
fn brief(block: &Block) -> String {
    let type_name = block.type_name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}, {}{type_name}", block.state, count(block.usable_bytes))
}

/// A word a line; lines of zeros are drawn together. Words that are `equal` in all blocks stand out.
fn write_words(
    out: &mut dyn Write,
    page: &Page,
    words: &[Word],
    equal: &dyn Fn(usize, &Word) -> bool,
    marked: Option<u64>,
) -> io::Result<()> {
    let mut rest = words.iter().enumerate().peekable();
    while let Some((index, word)) = rest.next() {
        let mut zeros = 1_u64;
        let is_marked = |word: &Word| marked.is_some_and(|address| address & !7 == word.address);
        while word.value == 0
            && rest.next_if(|(_, next)| next.value == 0 && !is_marked(next) && !is_marked(word)).is_some()
        {
            zeros += 1;
        }
        let more = if zeros > 1 { format!("{zeros} words of zero") } else { String::new() };
        let what = word.points_to.as_deref().unwrap_or(&more);
        let room = page.width_columns.saturating_sub(WORD_COLUMNS).max(20);
        let tone = if equal(index, word) { Tone::Heading } else { Tone::Plain };
        let pointer = if is_marked(word) { ">" } else { " " };
        let what = if page.width_columns >= 60 { cut(&harmless(what), room) } else { harmless(what) };
        let gap = if what.is_empty() { "" } else { "  " };
        writeln!(
            out,
            "{pointer}{:>13x}  {}  {}{gap}{what}",
            word.address,
            page.paint(tone, &hex(word.value)),
            page.paint(Tone::Faint, &text(word.value)),
        )?;
    }
    Ok(())
}

fn hex(value: u64) -> String {
    value.to_le_bytes().map(|byte| format!("{byte:02x}")).join(" ")
}

fn text(value: u64) -> String {
    let shown = |byte: u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
    value.to_le_bytes().into_iter().map(shown).collect()
}

fn write_referrers(out: &mut dyn Write, page: &Page, referrers: &Referrers) -> io::Result<()> {
    let searched = bytes(referrers.searched_bytes, page.sizes);
    let whole = if referrers.complete { "all writable memory" } else { "a part of writable memory" };
    writeln!(out)?;
    let found = things(referrers.words.len() as u64, "word");
    let sentence = format!("{found} found that point into it, in {whole} ({searched} searched)");
    page.write_sentence(out, Tone::Heading, "", &sentence)?;
    for word in &referrers.words {
        let to = if word.offset_bytes == 0 { String::new() } else { format!("  to +{}", word.offset_bytes) };
        let says = word.type_name.as_ref().map(|name| format!("  as {name}")).unwrap_or_default();
        writeln!(out, "  {:#x}  {}", word.address, harmless(&format!("{}{to}{says}", word.holder)))?;
    }
    Ok(())
}

fn write_sample(out: &mut dyn Write, page: &Page, sample: &Sample) -> io::Result<()> {
    writeln!(out)?;
    let arena = sample.shard.map_or_else(String::new, |shard| format!(" of arena {shard}"));
    let new =
        sample.new_since.as_ref().map_or_else(String::new, |name| format!(" that are new since {name}"));
    let sentence =
        format!("{} live blocks of {}{arena}{new}", count(sample.live_blocks), count(sample.size_bytes));
    page.write_sentence(out, Tone::Heading, "", &sentence)?;
    if !sample.types.is_empty() {
        let part = if sample.read_blocks < sample.live_blocks {
            format!("of {} chosen at random", count(sample.read_blocks))
        } else {
            "of all".to_owned()
        };
        let mut table =
            Table::new([(Align::Right, "blocks"), (Align::Right, "share"), (Align::Left, "type")]);
        let (listed, others) = page.split(&sample.types);
        for one in listed {
            table.push(vec![
                count(one.blocks).into(),
                percent(one.blocks, sample.read_blocks).into(),
                one.type_name.clone().into(),
            ]);
        }
        if !others.is_empty() {
            let blocks = others.iter().map(|one| one.blocks).sum();
            let name = format!("{} other types", others.len());
            table.push(vec![
                count(blocks).into(),
                percent(blocks, sample.read_blocks).into(),
                Cell::toned(Tone::Faint, name),
            ]);
        }
        writeln!(out, "types {part}:")?;
        table.write(out, page)?;
    }
    write_common(out, page, sample)?;
    for sampled in &sample.blocks {
        write_sampled(out, page, sample, sampled)?;
    }
    writeln!(out)?;
    writeln!(out, "{}", page.paint(Tone::Faint, &format!("--seed {} shows the same blocks", sample.seed)))
}

fn write_common(out: &mut dyn Write, page: &Page, sample: &Sample) -> io::Result<()> {
    if sample.common.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nin common, of {} shown:", sample.blocks.len())?;
    let mut rest = sample.common.iter().peekable();
    while let Some(CommonWord { offset_bytes, value, equal_blocks, points_to }) = rest.next() {
        let is_next_zero =
            |next: &&CommonWord| *value == 0 && next.value == 0 && next.equal_blocks == *equal_blocks;
        let mut zeros = 1_u64;
        while rest.next_if(is_next_zero).is_some() {
            zeros += 1;
        }
        let more = if zeros > 1 { format!("{zeros} words of zero") } else { String::new() };
        let what = points_to.as_deref().unwrap_or(&more);
        let line = format!("{:>5}  {}  {}  {what}", format!("+{offset_bytes}"), hex(*value), text(*value));
        writeln!(
            out,
            "{}{}",
            page.paint(Tone::Heading, &harmless(line.trim_end())),
            in_how_many(*equal_blocks, sample)
        )?;
    }
    Ok(())
}

fn in_how_many(equal_blocks: u64, sample: &Sample) -> String {
    if equal_blocks == sample.blocks.len() as u64 { String::new() } else { format!("  (in {equal_blocks})") }
}

fn write_sampled(
    out: &mut dyn Write,
    page: &Page,
    sample: &Sample,
    sampled: &SampledBlock,
) -> io::Result<()> {
    let Block { address, shard, type_name, .. } = &sampled.block;
    let type_name = type_name.as_deref().unwrap_or("not readable");
    writeln!(out)?;
    page.write_sentence(out, Tone::Plain, "", &format!("{address:#x}  arena {shard}  {type_name}"))?;
    let is_equal = |index: usize, word: &Word| {
        let offset_bytes = index as u64 * 8;
        sample.common.iter().any(|common| common.offset_bytes == offset_bytes && common.value == word.value)
    };
    write_words(out, page, &sampled.words, &is_equal, None)
}
