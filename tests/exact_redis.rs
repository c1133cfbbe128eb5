//! Is the walk exact on a large program that nobody prepared? Debian's stripped redis-server, compared row by row
//! with the text that jemalloc prints of itself in the server.
//!
//! The text is made by a command of the server, and the command uses the heap itself. Small blocks of a command come
//! from the thread's cache and go back there: jemalloc counts them in use before, meanwhile and after. What remains
//! is the buffer that jemalloc prints into: it exists while the figures are taken and not when the server is at
//! rest. The text itself tells its arena and size, as `internal`: what jemalloc has handed out to itself. The server
//! has work of its own in the background; so the text is taken before and after the snapshot, and compared only if
//! it is the same both times.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod redis;

use heaptap::snapshot::{self, Snapshot};
use redis::{ArenaText, BinText, Redis, StatisticsText};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Attempts to find the server quiet.
const ATTEMPTS_MAX: usize = 100;

/// A page that jemalloc adds to each large block, so that not all of them begin at the same place in a page.
const PAD_BYTES: u64 = 4096;

/// Strings, hashes, lists, sets and sorted sets; then holes in all of them.
fn fill(redis: &mut Redis, strings: usize) {
    assert_eq!(redis.command(&format!("DEBUG POPULATE {strings} string 48")), "+OK");
    redis.commands((0..60_000).map(|key| format!("HSET hash:{key} name {key} mail {key}@example.org")));
    redis.commands(
        (0..60_000).map(|key| format!("RPUSH list:{key} {key} {} third", "x".repeat(key % 200 + 1))),
    );
    redis.commands((0..60_000).map(|key| format!("SADD set:{key} {key} member:{key} 7")));
    redis.commands((0..60_000).map(|key| format!("ZADD sorted:{key} {key} first 2 second:{key}")));
    redis.commands(
        (0..20_000).map(|field| format!("HSET large-hash field:{field} {}", "y".repeat(field % 900 + 1))),
    );
    redis.commands((0..20_000).map(|element| format!("RPUSH large-list {}", "z".repeat(element % 3000 + 1))));
    for (key, bytes) in [("megabyte", 1 << 20), ("ten-megabytes", 10 << 20), ("odd", 123_457)] {
        redis.command(&format!("SETRANGE {key} {bytes} end"));
    }
    redis.commands((0..strings).step_by(3).map(|key| format!("DEL string:{key}")));
    redis.commands(
        (0..60_000).step_by(7).map(|key| format!("DEL hash:{key} list:{key} set:{key} sorted:{key}")),
    );
    redis.commands((0..20_000).step_by(2).map(|field| format!("HDEL large-hash field:{field}")));
    redis.command("MEMORY PURGE");
}

/// The server at rest: what it says of itself, and what heaptap says at the same time.
fn at_rest(redis: &mut Redis) -> (StatisticsText, Value, Snapshot) {
    let file = redis.directory().join("moment.heaptap");
    let mut before = redis.statistics();
    let mut change = String::new();
    for _ in 0..ATTEMPTS_MAX {
        let output = Command::new(env!("CARGO_BIN_EXE_heaptap"))
            .args(["snap", "--json", "--pause-budget", "10s", "-o"])
            .arg(&file)
            .arg(redis.pid().to_string())
            .output()
            .unwrap();
        let after = redis.statistics();
        if before == after {
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            let report = serde_json::from_slice(&output.stdout).unwrap();
            return (after, report, snapshot::read(&file).unwrap());
        }
        std::fs::remove_file(&file).unwrap();
        change = differences(&before, &after);
        before = after;
    }
    panic!("the server was never at rest: {change}");
}

fn differences(before: &StatisticsText, after: &StatisticsText) -> String {
    let (before, after) = (format!("{before:#?}"), format!("{after:#?}"));
    let differ = before.lines().zip(after.lines()).filter(|(one, other)| one != other);
    differ.map(|(one, other)| format!("{} -> {}; ", one.trim(), other.trim())).collect()
}

/// heaptap's figures in the form of jemalloc's.
fn walked(report: &Value) -> BTreeMap<u32, ArenaText> {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let mut arenas = BTreeMap::new();
    for shard in report["allocators"][0]["shards"].as_array().unwrap() {
        let mut arena = ArenaText::default();
        let mut overhead_bytes = 0;
        for class in shard["classes"].as_array().unwrap() {
            let size = count(&class["size_bytes"]);
            let own = count(&class["overhead_blocks"]);
            let in_use = count(&class["live_blocks"]) + count(&class["cached_blocks"]) + own;
            overhead_bytes += own * size;
            if count(&class["runs"]) > 0 {
                let bin = BinText { curregs: in_use, curslabs: count(&class["runs"]), nonfull_slabs: 0 };
                arena.bins.insert(size, bin);
            } else {
                arena.large.insert(size, in_use);
            }
        }
        arena.bytes.insert("internal".to_owned(), overhead_bytes);
        arenas.insert(u32::try_from(count(&shard["id"])).unwrap(), arena);
    }
    arenas
}

/// Takes the buffer that jemalloc prints into out of its own figures; returns its bytes.
fn take_out_the_print_buffer(text: &mut StatisticsText, walked: &BTreeMap<u32, ArenaText>) -> u64 {
    let mut taken = Vec::new();
    for (number, arena) in &mut text.arenas {
        let Some(number) = number else { continue };
        let internal = arena.bytes.get_mut("internal").unwrap();
        let bytes = *internal - walked[number].bytes["internal"];
        if bytes > 0 {
            *internal -= bytes;
            let rows = arena.large.get_mut(&bytes).expect("a large block of that size");
            *rows -= 1;
            taken.push((bytes, *number));
        }
    }
    let [(bytes, _)] = taken[..] else { panic!("one buffer is in use while the text is made: {taken:?}") };
    *text.totals.get_mut("allocated").unwrap() -= bytes;
    *text.totals.get_mut("active").unwrap() -= bytes + PAD_BYTES;
    if let Some(merged) = text.arenas.get_mut(&None) {
        *merged.large.get_mut(&bytes).unwrap() -= 1;
    }
    bytes
}

/// Slabs that have room, by arena and size of block: from the snapshot file's bits.
fn slabs_with_room(snapshot: &Snapshot) -> BTreeMap<(u32, u64), u64> {
    let liveness = &snapshot.liveness[0];
    let mut used: BTreeMap<u64, u64> = BTreeMap::new();
    for (address, _) in &liveness.runs.cached {
        *used.entry(*address).or_default() += 1;
    }
    let mut with_room = BTreeMap::new();
    for (index, address) in liveness.runs.address.iter().enumerate() {
        let class = liveness.run_classes[usize::from(liveness.runs.class[index])];
        let live: u64 = liveness.runs.words(index).iter().map(|word| u64::from(word.count_ones())).sum();
        if live + used.get(address).unwrap_or(&0) < u64::from(class.blocks) {
            *with_room.entry((liveness.runs.shard[index], class.block_bytes)).or_default() += 1;
        }
    }
    with_room
}

/// Compares an arena's tables; returns the number of figures that were compared.
fn assert_tables_equal(name: &str, text: &ArenaText, walked: &ArenaText) -> usize {
    for (size, row) in &text.bins {
        let own = walked.bins.get(size).copied().unwrap_or_default();
        assert_eq!(own.curregs, row.curregs, "{name}: regions of {size}");
        assert_eq!(own.curslabs, row.curslabs, "{name}: slabs of {size}");
    }
    for (size, extents) in &text.large {
        assert_eq!(walked.large.get(size).copied().unwrap_or(0), *extents, "{name}: large blocks of {size}");
    }
    // jemalloc leaves out rows that say nothing.
    let unknown_bins = walked.bins.keys().filter(|size| !text.bins.contains_key(size)).count();
    let unknown_large =
        walked.large.iter().filter(|(size, count)| **count > 0 && !text.large.contains_key(size)).count();
    assert_eq!((unknown_bins, unknown_large), (0, 0), "{name}: classes that jemalloc does not list");
    text.bins.len() * 2 + text.large.len()
}

fn sum_of(arenas: &BTreeMap<u32, ArenaText>) -> ArenaText {
    let mut sum = ArenaText::default();
    for arena in arenas.values() {
        for (size, row) in &arena.bins {
            let bin = sum.bins.entry(*size).or_default();
            bin.curregs += row.curregs;
            bin.curslabs += row.curslabs;
        }
        for (size, extents) in &arena.large {
            *sum.large.entry(*size).or_default() += extents;
        }
    }
    sum
}

/// The lines `Allocated: ...`: the blocks, and the address space by use.
fn assert_totals_equal(text: &StatisticsText, report: &Value) {
    let allocator = &report["allocators"][0];
    let figure = |name: &str| allocator[name].as_u64().unwrap();
    let space = |kind: &str| {
        let rows = allocator["address_space"].as_array().unwrap();
        rows.iter().find(|row| row["kind"] == kind).and_then(|row| row["bytes"].as_u64()).unwrap()
    };
    let allocated = figure("live_bytes") + figure("cached_bytes") + figure("overhead_bytes");
    assert_eq!(allocated, text.totals["allocated"], "allocated");
    assert_eq!(space("in_use"), text.totals["active"], "active");
    let mapped = space("in_use") + space("dirty") + space("muzzy") + space("metadata");
    assert_eq!(mapped, text.totals["mapped"], "mapped");
    assert_eq!(space("retained"), text.totals["retained"], "retained");
}

fn assert_exact(strings: usize, keys_min: u64) {
    let mut redis = Redis::start(&format!("exact-redis-{strings}"));
    fill(&mut redis, strings);
    let keys: u64 = redis.command("DBSIZE").trim_start_matches(':').parse().unwrap();
    assert!(keys >= keys_min, "{keys} keys");
    let (mut text, report, snapshot) = at_rest(&mut redis);
    let walked = walked(&report);
    let buffer_bytes = take_out_the_print_buffer(&mut text, &walked);
    let mut compared = 0;
    let with_room = slabs_with_room(&snapshot);
    for (number, arena) in &text.arenas {
        let Some(number) = number else { continue };
        compared += assert_tables_equal(&format!("arena {number}"), arena, &walked[number]);
        for (size, row) in &arena.bins {
            // The slab that a bin allocates from is not in its list of slabs with room.
            let current = with_room.get(&(*number, *size)).unwrap_or(&0).checked_sub(row.nonfull_slabs);
            assert!(matches!(current, Some(0 | 1)), "arena {number}: slabs of {size} with room: {current:?}");
        }
    }
    if let Some(merged) = text.arenas.get(&None) {
        compared += assert_tables_equal("all arenas", merged, &sum_of(&walked));
    }
    assert_totals_equal(&text, &report);
    let in_text: u64 =
        text.arenas.iter().filter(|(number, _)| number.is_some()).map(|(_, arena)| rows(arena)).sum();
    assert!(in_text > 40, "only {in_text} rows of the text were understood");
    let live = &report["allocators"][0]["live_blocks"];
    println!(
        "{keys} keys, {live} live blocks: {compared} figures of the text, 0 differences; print buffer {buffer_bytes}"
    );
}

fn rows(arena: &ArenaText) -> u64 {
    (arena.bins.len() + arena.large.len()) as u64
}

#[test]
fn debians_redis_server_row_by_row() {
    assert_exact(1_300_000, 1_000_000);
}

#[test]
#[ignore = "takes 2 GB and a minute; docs/measurements.md has its figures"]
fn debians_redis_server_with_many_millions_of_keys() {
    assert_exact(12_000_000, 8_000_000);
}
