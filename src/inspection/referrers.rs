//! Who points into a block: writable memory is searched, as far as limits allow.

use super::places::{Places, at_distance};
use super::schema::{Referrer, Referrers};
use crate::memory::words;
use heaptap_platform::{AddressRange, merge_ranges};

/// Bytes that are searched at most.
const SEARCHED_BYTES_MAX: u64 = 4 << 30;
/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Words that are listed at most.
const LISTED_MAX: usize = 50;

/// Searches all private writable memory that is in memory for words that point into `block`.
pub(super) fn referrers(places: &Places<'_>, block: AddressRange) -> Referrers {
    let subject = places.subject;
    let writable = subject.mappings.iter().filter(|mapping| mapping.writable && !mapping.shared);
    let ranges = merge_ranges(writable.map(|mapping| mapping.range).collect(), 0);
    let mut found = Referrers { complete: true, ..Referrers::default() };
    let mut bytes = Vec::new();
    for present in ranges.iter().flat_map(|range| subject.memory.present(*range)) {
        let mut start = present.start;
        while start < present.end {
            // The last word of a piece needs the one behind it.
            let end = present.end.min(start.saturating_add(PIECE_BYTES + 8));
            bytes.resize(usize::try_from(end - start).unwrap_or(0), 0);
            if found.searched_bytes >= SEARCHED_BYTES_MAX || found.words.len() >= LISTED_MAX {
                found.complete = false;
                return found;
            }
            if subject.memory.read(start, &mut bytes).is_ok() {
                search(places, block, start, &bytes, &mut found);
            } else {
                found.complete = false;
            }
            found.searched_bytes += (end - start).min(PIECE_BYTES);
            start = start.saturating_add(PIECE_BYTES);
        }
    }
    found
}

fn search(places: &Places<'_>, block: AddressRange, start: u64, bytes: &[u8], found: &mut Referrers) {
    let all: Vec<u64> = words(bytes).collect();
    let own_words = usize::try_from(PIECE_BYTES / 8).unwrap_or(all.len()).min(all.len());
    for (index, value) in all.iter().take(own_words).enumerate() {
        let address = start + index as u64 * 8;
        if !block.contains(*value) || block.contains(address) || found.words.len() >= LISTED_MAX {
            continue;
        }
        let next = if *value == block.start { all.get(index + 1) } else { None };
        found.words.push(Referrer {
            address,
            offset_bytes: value - block.start,
            holder: places.place(address).what,
            type_name: next.and_then(|table| trait_object(places, *table, block.len_bytes())),
        });
    }
}

/// The type that a Rust trait object's reference names, by the function that drops it, or the place of its table.
fn trait_object(places: &Places<'_>, table: u64, block_bytes: u64) -> Option<String> {
    let rust = places.typer.rust_table(table, block_bytes)?;
    let dropped = places.symbolizer.symbol(rust.drop).filter(|(_, distance)| *distance == 0);
    let name = dropped.and_then(|(name, _)| {
        let inner = name.split_once("drop_in_place<")?.1.strip_suffix('>')?;
        Some(inner.to_owned())
    });
    let place = || {
        let (module, offset) = places.symbolizer.module_offset(table)?;
        Some(format!("trait object with vtable {}", at_distance(&module.name(), offset)))
    };
    name.or_else(place)
}
