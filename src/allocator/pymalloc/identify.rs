//! Finding `CPython`'s small-object allocator in a target, without symbols and in static programs too.
//!
//! A word of the interpreter's data leads to the array of arenas. It is the right one if all arenas in it are possible
//! and every pool in them says its arena's place in the array. Version numbers stand here and in `layout.rs` only.

use super::Pymalloc;
use super::arena::Arena;
use super::layout::{LAYOUTS, Layout};
use super::pool::Found;
use crate::allocator::{AddressSpace, Data, Provenance};
use crate::memory::{Memory, u32_at, u64_at};
use crate::module::Module;
use heaptap_platform::AddressRange;

/// Pools looked at before a layout is believed.
const SAMPLE_MAX: usize = 2000;
/// Looks at a pool before it counts as broken.
const LOOKS: usize = 4;

/// Looks for it in all modules. An interpreter that uses malloc for everything has no arenas and is not found.
pub fn find(space: AddressSpace<'_>, memory: &dyn Memory) -> Vec<Pymalloc> {
    space.modules.iter().filter_map(|module| find_in(module, space, memory)).collect()
}

fn find_in(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<Pymalloc> {
    if module.image.is_some() && !is_candidate(module) {
        return None;
    }
    let data = Data::read(memory, space, &module.writable);
    let mut best: Option<(u64, Pymalloc)> = None;
    for (at, array) in
        data.words().filter(|(_, word)| word.is_multiple_of(16) && may_begin(memory, space, *word))
    {
        for layout in &LAYOUTS {
            let Some((kept, checked)) = fit(memory, space, layout, array) else { continue };
            if best.as_ref().is_some_and(|(known, _)| *known >= kept) {
                continue;
            }
            let evidence = vec![format!(
                "array of arenas at {array:#x} found by what it leads to; {kept} of {checked} sampled pools say \
                 their place in it"
            )];
            let root = AddressRange::with_len(at, 8)?;
            let module = module.path.display().to_string();
            best = Some((
                kept,
                Pymalloc { module, layout: *layout, root, provenance: Provenance::Probed, evidence },
            ));
        }
    }
    let (_, mut found) = best?;
    let is_named =
        |symbol: &crate::module::Symbol| symbol.name == "arenas" && symbol.address == found.root.start;
    if module.symbols().iter().any(is_named) {
        found.provenance = Provenance::Symbols;
    }
    Some(found)
}

/// Whether an array of arenas may begin at `address`. Most words lead to none, and one look tells; in all builds an
/// arena has 64 pools, or 63 where it does not begin with one.
fn may_begin(memory: &dyn Memory, space: AddressSpace<'_>, address: u64) -> bool {
    let mut first = [0; 48];
    if !space.holds_records(address) || memory.read(address, &mut first).is_err() {
        return false;
    }
    let (start, pools) = (u64_at(&first, 0).unwrap_or(0), u32_at(&first, 20).unwrap_or(0));
    start == 0 || (start.is_multiple_of(4096) && matches!(pools, 63 | 64))
}

/// Whether a module's file has an interpreter in it.
pub fn is_candidate(module: &Module) -> bool {
    const SIGN: &[u8] = b"PYTHONMALLOC";
    let Some(image) = &module.image else { return false };
    image.read_only().iter().any(|(_, bytes)| memchr::memmem::find(bytes, SIGN).is_some())
}

/// Pools that say their place in `array`, of how many in use; `None` if the layout does not fit.
fn fit(memory: &dyn Memory, space: AddressSpace<'_>, layout: &Layout, array: u64) -> Option<(u64, u64)> {
    let (arenas, _) = Arena::all(memory, layout, array);
    if arenas.is_empty() || !arenas.iter().all(|arena| space.holds_records(arena.range.start)) {
        return None;
    }
    let (mut kept, mut checked) = (0, 0);
    let pools = arenas.iter().flat_map(|arena| arena.pools(layout).map(|pool| (arena.index, pool)));
    for (index, address) in pools.take(SAMPLE_MAX) {
        let look = || keeps_invariants(memory, layout, index, address);
        // The target runs: a pool in the middle of a change is not in it a moment later.
        let Some(is_kept) = (1..LOOKS).map(|_| look()).find(|kept| *kept != Some(false)).unwrap_or_else(look)
        else {
            continue;
        };
        checked += 1;
        kept += u64::from(is_kept);
    }
    (kept > 0 && checked - kept <= 1 + kept / 100).then_some((kept, checked))
}

/// Whether the pool at `address`, if it is in use, says its arena's place and counts as many free blocks as its list has.
fn keeps_invariants(memory: &dyn Memory, layout: &Layout, arena: u32, address: u64) -> Option<bool> {
    match Found::read(memory, layout, address) {
        Found::Free => None,
        Found::Broken(_) => Some(false),
        Found::Used(pool) => {
            let blocks = pool.blocks(memory, &mut |_| {});
            let adds_up = blocks.free + pool.used == pool.capacity;
            Some(pool.arena == arena && blocks.broken.is_none() && adds_up)
        }
    }
}
