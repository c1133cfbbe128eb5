//! Finding jemalloc's roots without symbols, by the shape of what they point to.
//!
//! Every function here proposes; none decides.

use super::arena::{ARENAS_MAX, Arena};
use super::extent::Extent;
use super::layout::{Layout, THREAD_DATA_SHIFTS};
use super::rtree::{Geometry, Leaf, Rtree};
use crate::allocator::{AddressSpace, Data, Provenance};
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::AddressRange;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Elements of a supposed leaf that are looked at.
const LEAF_SAMPLE: usize = 24;

/// Root arrays that the words of `data` may belong to: a word that points to something like a leaf (or to a
/// node above leaves) tells, by the addresses in the extents below it, which element of a root it is.
pub fn roots(
    data: &Data,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    layout: &Layout,
    geometry: Geometry,
) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for (at, word) in data.words() {
        if word % 64 != 0 || !space.holds_records(word) {
            continue;
        }
        let Some(leaf) = first_leaf(space, memory, geometry, word) else { continue };
        let Some(heap_address) = speaks_of(space, memory, layout, geometry, leaf) else { continue };
        let index = heap_address / geometry.root_reach_bytes();
        if let Some(root) = at.checked_sub(index * 8)
            && data.has_room(root, geometry.root_bytes())
        {
            found.insert(root);
        }
    }
    found
}

/// The leaf behind a supposed element of the root, with the lowest bits of its reach.
fn first_leaf(
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    geometry: Geometry,
    element: u64,
) -> Option<Leaf> {
    if geometry.node_bytes() == 0 {
        return Some(Leaf { address: element, reach_start: 0 });
    }
    let whole = AddressRange { start: element, end: element.checked_add(geometry.node_bytes())? };
    for present in space.mapped(whole).into_iter().flat_map(|part| memory.present(part)) {
        for page in pages(present) {
            let bytes = memory.read_vec(page.start, usize::try_from(page.len_bytes()).ok()?).ok()?;
            let first = (page.start - element) / 8;
            let filled = (first..).zip(words(&bytes)).find(|(_, word)| *word != 0);
            if let Some((index, leaf)) = filled {
                let plausible = leaf % 64 == 0 && space.holds_records(leaf);
                return plausible
                    .then_some(Leaf { address: leaf, reach_start: index * geometry.leaf_reach_bytes() });
            }
        }
    }
    None
}

/// The heap address that most elements of a supposed leaf speak of, if they agree and lie where they should.
fn speaks_of(
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    layout: &Layout,
    geometry: Geometry,
    leaf: Leaf,
) -> Option<u64> {
    let tree = Rtree { root: 0, geometry };
    let reach_mask = geometry.root_reach_bytes().wrapping_sub(1);
    let (mut looked, mut agreed, mut answer) = (0, 0, None);
    tree.elements(&Present { space, memory }, layout, leaf, &mut |page, element| {
        looked += 1;
        let plausible = element.extent % layout.extent_align == 0 && space.holds_records(element.extent);
        let extent = plausible
            .then(|| Extent::read(memory, layout, geometry.page_bytes(), element.extent).ok())
            .flatten();
        if let Some(extent) = extent {
            let full = (extent.address & !reach_mask) | (page & reach_mask);
            if extent.holds(full, geometry.page_bytes())
                && answer.is_none_or(|answer| answer == full & !reach_mask)
            {
                answer = Some(full & !reach_mask);
                agreed += 1;
            }
        }
        let hopeless = looked >= 4 && agreed == 0;
        if looked >= LEAF_SAMPLE || hopeless { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (agreed > 0 && agreed * 2 >= looked).then_some(answer).flatten()
}

/// Memory whose unmapped parts count as absent; used where an array is only supposed.
struct Present<'a> {
    space: AddressSpace<'a>,
    memory: &'a dyn Memory,
}

impl Memory for Present<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), crate::memory::Fault> {
        self.memory.read(address, bytes)
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        self.space.mapped(range).into_iter().flat_map(|part| self.memory.present(part)).collect()
    }
}

/// The array of arenas: the words at the places of the arenas that extents name point to such arenas.
pub fn arena_array(
    data: &Data,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    layout: &Layout,
    seen: &BTreeSet<u32>,
) -> Option<u64> {
    let lowest = *seen.first()?;
    data.words()
        .filter(|(_, word)| word % 64 == 0 && space.holds_records(*word))
        .filter(|(_, word)| Arena::check(memory, layout, lowest, *word).is_some())
        .filter_map(|(at, _)| at.checked_sub(u64::from(lowest) * 8))
        .filter(|array| data.has_room(*array, ARENAS_MAX * 8))
        .find(|array| is_arena_array(memory, layout, *array, seen))
}

/// Whether `array` holds an arena of the right number for each that extents name, and nothing that is no arena.
pub fn is_arena_array(memory: &dyn Memory, layout: &Layout, array: u64, seen: &BTreeSet<u32>) -> bool {
    let arena = |index: u32| {
        let address = memory.read_u64(array.wrapping_add(u64::from(index) * 8)).ok()?;
        (address != 0).then_some(())?;
        Arena::check(memory, layout, index, address)
    };
    let next = seen.last().map_or(0, |last| last + 1);
    let after = memory.read_u64(array.wrapping_add(u64::from(next) * 8));
    seen.iter().all(|index| arena(*index).is_some())
        && after.is_ok_and(|after| after == 0 || arena(next).is_some())
}

/// The head of the ring of all threads' data, and by how much the data are shifted: an element has an arena, and
/// its neighbours point back to it.
pub fn ring(
    data: &Data,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    layout: &Layout,
    arenas_array: u64,
) -> Option<(u64, i64)> {
    let link = layout.tcache.tsd_link?;
    let arenas: BTreeSet<u64> =
        Arena::all(memory, layout, arenas_array).iter().map(|arena| arena.address).collect();
    let pointers: Vec<(u64, u64)> =
        data.words().filter(|(_, word)| word % 8 == 0 && space.holds_records(*word)).collect();
    // Debug information tells the very offsets.
    let shifts = if layout.provenance == Provenance::Dwarf { &[0] } else { &THREAD_DATA_SHIFTS[..] };
    shifts.iter().find_map(|shift| {
        let shift = *shift;
        let tcache = layout.tcache.shifted(shift);
        let fits = |tsd: u64| {
            let arena = memory.read_u64(tsd.wrapping_add(tcache.tsd_arena));
            arena.is_ok_and(|arena| arenas.contains(&arena))
                && closes(memory, tsd, link.wrapping_add_signed(shift)).is_some()
        };
        pointers.iter().find(|(_, word)| fits(*word)).map(|(at, _)| (*at, shift))
    })
}

/// Whether the neighbours of an element of a circular list point back to it.
fn closes(memory: &dyn Memory, element: u64, link: u64) -> Option<()> {
    let next = memory.read_u64(element.wrapping_add(link)).ok()?;
    let previous = memory.read_u64(element.wrapping_add(link + 8)).ok()?;
    let back = memory.read_u64(next.wrapping_add(link + 8)).ok()?;
    let forth = memory.read_u64(previous.wrapping_add(link)).ok()?;
    (back == element && forth == element).then_some(())
}

/// Where arenas keep the pointer to their base, if not where the table says: the radix tree begins with that of
/// arena 0 (5.3 on), so the word of arena 0 that equals it is the one.
pub fn arena_base(
    data: &Data,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    layout: &Layout,
    root: u64,
    seen: &BTreeSet<u32>,
) -> Option<u64> {
    const ARENA_BYTES_MAX: usize = 1 << 18;
    if !layout.leaf_has_state {
        return None;
    }
    let base = memory.read_u64(root.wrapping_sub(layout.rtree_root)).ok()?;
    let candidates: BTreeSet<u64> = data
        .words()
        .map(|(_, word)| word)
        .filter(|word| word % 64 == 0 && *word != base && space.holds_records(*word))
        .collect();
    let has_base = |offset: u64| {
        candidates
            .iter()
            .any(|arena| memory.read_u64(arena.wrapping_add(offset)).is_ok_and(|word| word == base))
    };
    if base == 0 || has_base(layout.arena_base) {
        return None;
    }
    let mut offsets = BTreeSet::new();
    for arena in &candidates {
        let bytes = memory.read_vec_sparse(*arena, ARENA_BYTES_MAX);
        offsets.extend(words(&bytes).zip(0_u64..).filter(|(word, _)| *word == base).map(|(_, at)| at * 8));
    }
    // Parts of an arena point to its base too; the arena's own pointer comes last.
    offsets
        .into_iter()
        .rev()
        .find(|offset| arena_array(data, space, memory, &layout.with_arena_base(*offset), seen).is_some())
}

/// The distance from a thread's pointer to its data, the same in all threads: where two neighbouring words
/// name an arena and the cache of leaves behind them names leaves of the tree.
pub fn thread_offset(
    memory: &dyn Memory,
    layout: &Layout,
    arenas: &[Arena],
    leaves: &[Leaf],
    thread_pointers: &[u64],
    window_bytes: u64,
) -> Option<i64> {
    let arenas: BTreeSet<u64> = arenas.iter().map(|arena| arena.address).collect();
    let leaves: BTreeSet<u64> = leaves.iter().map(|leaf| leaf.address).collect();
    let tcache = layout.tcache;
    let fits = |tsd: u64| {
        let context = memory.read_words(tsd.wrapping_add(tcache.tsd_rtree_ctx), 48).unwrap_or_default();
        context.chunks_exact(2).any(|pair| pair.last().is_some_and(|leaf| leaves.contains(leaf)))
    };
    for pointer in thread_pointers {
        let start = pointer.saturating_sub(window_bytes) & !0xfff;
        let range = AddressRange { start, end: *pointer };
        for present in memory.present(range) {
            let Ok(len_bytes) = usize::try_from(present.len_bytes()) else { continue };
            let Ok(bytes) = memory.read_vec(present.start, len_bytes) else { continue };
            let found = (present.start..).step_by(8).zip(words(&bytes)).find_map(|(at, word)| {
                let tsd = at.checked_sub(tcache.tsd_arena)?;
                (arenas.contains(&word) && fits(tsd)).then_some(tsd)
            });
            if let Some(tsd) = found {
                return Some(tsd.cast_signed().wrapping_sub(pointer.cast_signed()));
            }
        }
    }
    None
}

/// Pieces of a range, a page each.
fn pages(range: AddressRange) -> impl Iterator<Item = AddressRange> {
    (range.start..range.end)
        .step_by(4096)
        .map(move |start| AddressRange { start, end: range.end.min(start + 4096) })
}
