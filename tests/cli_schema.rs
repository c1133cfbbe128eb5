//! The JSON that is printed and `docs/report-format.md` say the same, field by field.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod handmade;

use heaptap::allocator::Anomaly;
use heaptap::cli::exit::Exit;
use heaptap::content::Evidence;
use heaptap::growth::schema::{Growth, Moment, ResidentDelta, Row, TypeGrowth};
use heaptap::inspection::{
    self,
    schema::{
        Block, CommonWord, Inspection, Place, Referrer, Referrers, Sample, SampledBlock, TypeCount, Word,
    },
};
use heaptap::snapshot::Summary;
use heaptap::snapshot::schema::{LiveBound, OtherHeap, TypeRow};
use heaptap::stacks::schema::Thread;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = include_str!("../docs/report-format.md");

/// The rows of the tables under a heading: the first two columns.
fn documented(heading: &str) -> Vec<(String, String)> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading");
    section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| field") && !line.starts_with("| code"))
        .map(|line| {
            let mut columns =
                line.split('|').skip(1).map(|column| column.trim().trim_matches('`').to_owned());
            (columns.next().unwrap(), columns.next().unwrap())
        })
        .collect()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Every field of a value with its type, elements of arrays joined.
fn fields(prefix: &str, value: &Value, found: &mut BTreeMap<String, &'static str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                found.insert(path.clone(), type_of(member));
                fields(&path, member, found);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                fields(&format!("{prefix}[]"), element, found);
            }
        }
        _ => {}
    }
}

fn printed<T: serde::Serialize>(value: &T) -> BTreeMap<String, &'static str> {
    let mut text = Vec::new();
    heaptap::report::json::write(&mut text, value).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("{\"schema\":\"heaptap/"), "schema comes first: {text}");
    assert_eq!(text.matches('\n').count(), 1, "one line");
    let mut found = BTreeMap::new();
    fields("", &serde_json::from_str(&text).unwrap(), &mut found);
    found
}

/// A summary that lacks nothing. Its parts are spelt out, so that a new field fails to compile here.
fn whole_summary() -> Summary {
    let Summary {
        schema,
        target,
        pause_ms,
        stops,
        taken_at,
        mut allocators,
        other_heaps: _,
        resident,
        resident_bytes,
        swapped_bytes: _,
        types: _,
        missing: _,
    } = handmade::snapshot(0, 1).summary;
    for allocator in &mut allocators {
        allocator.live_bound = Some(LiveBound::Upper);
        allocator.anomalies.push(Anomaly { address: 1, what: "odd".to_owned(), count: 2 });
    }
    for class in
        allocators.iter_mut().flat_map(|allocator| &mut allocator.shards).flat_map(|shard| &mut shard.classes)
    {
        class.overhead_blocks = 1;
    }
    let missing = vec!["a page".to_owned()];
    let swapped_bytes = Some(4096);
    let types = vec![TypeRow::default()];
    Summary {
        schema,
        target,
        pause_ms,
        stops,
        taken_at,
        allocators,
        other_heaps: vec![OtherHeap {
            name: "Go heap".to_owned(),
            kind: "go_heap".to_owned(),
            module: "server".to_owned(),
            evidence: "known by its build information".to_owned(),
            bytes: 1 << 26,
        }],
        resident,
        resident_bytes,
        swapped_bytes,
        types,
        missing,
    }
}

fn whole_growth() -> Growth {
    let moment = Moment {
        source: "4121".to_owned(),
        pid: 4121,
        taken_at: 1.5,
        pause_ms: 0.5,
        live_bytes: 10,
        live_blocks: 1,
    };
    let row = Row {
        allocator: "jemalloc".to_owned(),
        shard: Some(1),
        size_bytes: 640,
        address: Some(0x7f00),
        type_name: Some("std::list".to_owned()),
        delta_blocks: -1,
        delta_bytes: -640,
        live_blocks: 3,
        live_bytes: 1920,
        born_blocks: Some(1),
        died_blocks: Some(2),
        stayed_blocks: Some(2),
        slope_bytes_per_s: Some(0.5),
        slope_error_bytes_per_s: Some(0.25),
        steady: Some(true),
    };
    Growth {
        schema: heaptap::growth::schema::SCHEMA.to_owned(),
        from: moment.clone(),
        to: moment.clone(),
        between: vec![moment],
        rows: vec![row.clone()],
        large_blocks: vec![row],
        total_delta_bytes: -640,
        total_delta_blocks: -1,
        resident: vec![ResidentDelta { kind: "live".to_owned(), delta_bytes: -640 }],
        resident_delta_bytes: Some(-640),
        types: vec![TypeGrowth { delta_blocks_error: 0.5, ..TypeGrowth::default() }],
        notes: vec!["a note".to_owned()],
    }
}

fn assert_documented(heading: &str, printed: &BTreeMap<String, &'static str>) {
    let documented: BTreeMap<String, String> = documented(heading).into_iter().collect();
    let names: BTreeSet<&String> = printed.keys().collect();
    let documented_names: BTreeSet<&String> = documented.keys().collect();
    let undocumented: Vec<_> = names.difference(&documented_names).collect();
    let not_printed: Vec<_> = documented_names.difference(&names).collect();
    assert!(undocumented.is_empty(), "{heading}: printed, not documented: {undocumented:?}");
    assert!(not_printed.is_empty(), "{heading}: documented, not printed: {not_printed:?}");
    for (name, kind) in printed {
        assert_eq!(documented.get(name).map(String::as_str), Some(*kind), "{heading}: type of {name}");
    }
}

#[test]
fn every_field_of_a_snapshot_is_documented() {
    assert_documented("heaptap/snapshot/1", &printed(&whole_summary()));
}

#[test]
fn every_field_of_growth_is_documented() {
    let mut printed = printed(&whole_growth());
    // The page describes these once and refers to them.
    for (copy, original) in [("to", "from"), ("between[]", "from"), ("large_blocks[]", "rows[]")] {
        let inner = |name: &str, prefix: &str| {
            name.strip_prefix(prefix).filter(|rest| rest.starts_with('.')).map(str::to_owned)
        };
        let described: BTreeSet<String> = printed.keys().filter_map(|name| inner(name, original)).collect();
        let copied: BTreeSet<String> = printed.keys().filter_map(|name| inner(name, copy)).collect();
        assert_eq!(copied, described, "{copy} has the fields of {original}");
        printed.retain(|name, _| inner(name, copy).is_none());
    }
    assert_documented("heaptap/growth/1", &printed);
}

/// An inspection that lacks nothing.
fn whole_inspection() -> Inspection {
    let block = Block {
        type_name: Some(String::new()),
        type_by: Some(Evidence::Rtti),
        run_address: Some(1),
        run_index: Some(1),
        run_blocks: Some(1),
        run_live_blocks: Some(1),
        ..Block::default()
    };
    let word = Word { points_to: Some(String::new()), ..Word::default() };
    Inspection {
        schema: inspection::schema::SCHEMA.to_owned(),
        pause_ms: 0.5,
        taken_at: 0.5,
        place: Some(Place {
            block: Some(block.clone()),
            allocator: Some(String::new()),
            before: Some(Block::default()),
            after: Some(Block::default()),
            thread: Some(Thread::default()),
            module: Some(String::new()),
            offset: Some(1),
            symbol: Some(String::new()),
            mapping_start: Some(1),
            mapping_end: Some(1),
            ..Place::default()
        }),
        words: vec![word.clone()],
        referrers: Some(Referrers {
            words: vec![Referrer { type_name: Some(String::new()), ..Referrer::default() }],
            ..Referrers::default()
        }),
        sample: Some(Sample {
            shard: Some(1),
            new_since: Some(String::new()),
            types: vec![TypeCount { type_name: String::new(), type_by: Evidence::Text, blocks: 1 }],
            common: vec![CommonWord { points_to: Some(String::new()), ..CommonWord::default() }],
            blocks: vec![SampledBlock::default()],
            ..Sample::default()
        }),
        missing: vec![String::new()],
        ..Inspection::default()
    }
}

#[test]
fn every_field_of_an_inspection_is_documented() {
    // Blocks and targets are documented once.
    let is_repeated = |field: &str| {
        ["target.", "place.before.", "place.after.", "place.thread.", "sample.blocks[].block."]
            .iter()
            .any(|start| field.starts_with(start))
    };
    let mut fields = printed(&whole_inspection());
    fields.retain(|field, _| !is_repeated(field));
    assert_documented("heaptap/block/1", &fields);
}

#[test]
fn every_field_may_be_absent() {
    let summary: Summary = serde_json::from_str("{}").expect("a snapshot without fields");
    assert_eq!(summary.schema, "");
    let growth: Growth = serde_json::from_str("{}").expect("growth without fields");
    assert!(growth.rows.is_empty());
}

#[test]
fn exit_codes_are_documented() {
    let documented = documented("Exit codes");
    let known: Vec<(String, String)> =
        Exit::ALL.iter().map(|(exit, meaning)| (exit.code().to_string(), (*meaning).to_owned())).collect();
    assert_eq!(documented, known);
    for (exit, _) in Exit::ALL {
        assert_eq!(Exit::from_code(exit.code()), exit);
    }
}
