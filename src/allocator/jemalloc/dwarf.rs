//! Offsets from debug information, where the module or its debug file has it.
//!
//! Names of structures and members are those of jemalloc's headers (include/jemalloc/internal, 5.0.1 to the
//! development head of 2026-05, 295e4894). Widths of bit fields and alignments are macros there, which debug
//! information does not tell: they remain those of the table. So a table is filled in only if its version has
//! the same structures; what is told of one structure is never mixed with the table of another version.

use super::layout::{BinPlaces, CACHE_BIN_BYTES, Layout, TcacheLayout};
use crate::allocator::Provenance;
use crate::module::dwarf::DebugSections;
use crate::module::types::{Type, Types};
use crate::module::{Image, Module};

/// The source whose unit describes every structure that is read here.
const SOURCES: [&str; 1] = ["jemalloc.c"];

/// What the names of members of thread-specific data begin with, from 5.2.1 on and before.
const TSD_PREFIXES: [&str; 2] =
    ["cant_access_tsd_items_directly_use_a_getter_or_setter_", "use_a_getter_or_setter_instead_"];

/// Puts the layouts that the module's own debug information tells before those of `layouts`, which are tables.
pub fn refine(module: &Module, layouts: &mut Vec<Layout>) {
    let has_debug_info = |image: &&Image| image.has_debug_info();
    let images = [module.image.as_deref(), module.debug.as_deref()];
    let Some(image) = images.into_iter().flatten().find(has_debug_info) else { return };
    let told = told(image, layouts);
    layouts.splice(0..0, told);
}

/// Those of `tables` whose structures the debug information of `image` describes, with its offsets.
pub fn told(image: &Image, tables: &[Layout]) -> Vec<Layout> {
    let Some(sections) = DebugSections::of(image) else { return Vec::new() };
    let types = Types::of(&sections, &SOURCES);
    let Some(structures) = Structures::find(&types) else { return Vec::new() };
    tables.iter().filter_map(|table| structures.layout(table)).collect()
}

/// The structures that a walk reads fields of.
#[derive(Debug)]
struct Structures<'t, 'a> {
    extent: Type<'t, 'a>,
    arena: Type<'t, 'a>,
    bin: Type<'t, 'a>,
    base: Type<'t, 'a>,
    rtree: Type<'t, 'a>,
    tsd: Type<'t, 'a>,
    tcache: Type<'t, 'a>,
    tcache_slow: Option<Type<'t, 'a>>,
    cache_bin: Type<'t, 'a>,
    descriptor: Option<Type<'t, 'a>>,
}

impl<'t, 'a> Structures<'t, 'a> {
    fn find(types: &'t Types<'a>) -> Option<Self> {
        Some(Self {
            extent: types.find(&["edata_s", "extent_s"])?,
            arena: types.find(&["arena_s"])?,
            bin: types.find(&["bin_s", "arena_bin_s"])?,
            base: types.find(&["base_s"])?,
            rtree: types.find(&["rtree_s"])?,
            tsd: types.find(&["tsd_s"])?,
            tcache: types.find(&["tcache_s"])?,
            tcache_slow: types.find(&["tcache_slow_s"]),
            cache_bin: types.find(&["cache_bin_s", "tcache_bin_s"])?,
            descriptor: types.find(&["cache_bin_array_descriptor_s"]),
        })
    }

    /// The layout of these structures, if they are those that `table` speaks of.
    fn layout(&self, table: &Layout) -> Option<Layout> {
        let expected = self.extent.offset_bytes("e_bits") == Some(0)
            && self.cache_bin.size_bytes() == Some(CACHE_BIN_BYTES);
        if !expected {
            return None;
        }
        let large_stats = self.arena.member("stats.lstats")?;
        Some(Layout {
            table: table.table,
            provenance: Provenance::Dwarf,
            bits: table.bits,
            extent_address: self.extent.offset_bytes("e_addr")?,
            extent_size: self.extent.offset_bytes("e_size_esn")?,
            extent_serial: same(self.extent.offset_bytes("e_sn"), table.extent_serial)?,
            extent_bitmap: self.extent.offset_bytes("e_slab_data.bitmap")?,
            extent_align: table.extent_align,
            leaf_has_state: table.leaf_has_state,
            large_unrounded: table.large_unrounded,
            rtree_root: self.rtree.offset_bytes("root")?,
            arena_base: self.arena.offset_bytes("base")?,
            bins: self.bins(table.bins)?,
            bin_bytes: self.bin.size_bytes()?,
            bin_lock: self.bin_lock()?,
            bin_curregs: self.bin.offset_bytes("stats.curregs")?,
            bin_curslabs: self.bin.offset_bytes("stats.curslabs")?,
            arena_internal: self.arena.offset_bytes("stats.internal")?,
            large_stats: large_stats.offset_bytes,
            large_stats_bytes: large_stats.of.elements()?.0.size_bytes()?,
            base_ind: self.base.offset_bytes("ehooks.ind").or_else(|| self.base.offset_bytes("ind"))?,
            base_blocks: self.base.offset_bytes("blocks")?,
            tcache: self.tcache(&table.tcache)?,
            profile: table.profile,
        })
    }

    /// The word that tells that a bin's lock is held. In FreeBSD's C library the lock itself is a pointer.
    fn bin_lock(&self) -> Option<u64> {
        if self.bin.offset_bytes("lock.postponed_next").is_none() {
            return self.bin.offset_bytes("lock.lock");
        }
        let waiting = || self.bin.offset_bytes("lock.prof_data.n_waiting_thds");
        self.bin.offset_bytes("lock.locked").or_else(waiting)
    }

    fn bins(&self, table: BinPlaces) -> Option<BinPlaces> {
        let member = self.arena.member("bins").or_else(|| self.arena.member("all_bins"))?;
        let (element, count) = member.of.elements()?;
        let offset = member.offset_bytes;
        let is_bin = element.size_bytes() == self.bin.size_bytes();
        // An array without elements stands for all that follows the arena.
        let is_filled = count.is_some_and(|count| count > 0);
        match table {
            BinPlaces::Inline(_) if is_bin && is_filled => Some(BinPlaces::Inline(offset)),
            BinPlaces::Pointers(_) if !is_bin && is_filled => Some(BinPlaces::Pointers(offset)),
            BinPlaces::Flat(_) if is_bin && !is_filled => Some(BinPlaces::Flat(offset)),
            _ => None,
        }
    }

    fn tcache(&self, table: &TcacheLayout) -> Option<TcacheLayout> {
        let bins = ["bins", "bins_small", "tbins_small"].iter().find_map(|name| self.tcache.member(name))?;
        let bins_large = ["bins_large", "tbins_large"].iter().find_map(|name| self.tcache.member(name));
        let bins_count = bins.of.elements()?.1?;
        let large_count = bins_large.and_then(|large| large.of.elements()?.1).unwrap_or(0);
        let descriptor = |path: &str| self.descriptor?.offset_bytes(path);
        let slow = |path: &str| self.tcache_slow?.offset_bytes(path);
        let link = |path: &str| slow(path).or_else(|| self.tcache.offset_bytes(path));
        let tsd_tcache = self.tsd_offset("tcache")?;
        // In 5.2 the ring goes through the part of a thread's data that is its cache.
        let tsd_link = self.tsd_offset("tsd_link.qre_next").or_else(|| {
            self.tcache.offset_bytes("tsd_link.qre_next").map(|offset| tsd_tcache.wrapping_add(offset))
        });
        let descriptors = self.arena.offset_bytes("cache_bin_array_descriptor_ql.qlh_first");
        Some(TcacheLayout {
            form: table.form,
            arena_descriptors: same(descriptors, table.arena_descriptors)?,
            descriptor_bins: same(
                descriptor("bins").or_else(|| descriptor("bins_small")),
                table.descriptor_bins,
            )?,
            descriptor_bins_large: same(descriptor("bins_large"), table.descriptor_bins_large)?,
            arena_tcaches: same(self.arena.offset_bytes("tcache_ql.qlh_first"), table.arena_tcaches)?,
            // The development head has neither that list nor the link.
            tcache_link: link("link.qre_next").unwrap_or(table.tcache_link),
            tcache_bins: bins.offset_bytes,
            tcache_bins_large: same(bins_large.map(|large| large.offset_bytes), table.tcache_bins_large)?,
            tsd_tcache,
            tsd_tcache_slow: same(self.tsd_offset("tcache_slow"), table.tsd_tcache_slow)?,
            tsd_link: same(tsd_link, table.tsd_link)?,
            tsd_arena: self.tsd_offset("arena")?,
            tsd_tickers: same(self.tsd_offset("arenas_tdata"), table.tsd_tickers)?,
            tsd_rtree_ctx: self.tsd_offset("rtree_ctx")?,
            slow_nbins: same(slow("tcache_nbins"), table.slow_nbins)?,
            slow_tcache: same(slow("tcache"), table.slow_tcache)?,
            slow_stacks: same(slow("dyn_alloc"), table.slow_stacks)?,
            tsd_bytes: self.tsd.size_bytes()?,
            bins_max: u32::try_from(bins_count.checked_add(large_count)?).ok()?,
        })
    }

    fn tsd_offset(&self, path: &str) -> Option<u64> {
        TSD_PREFIXES.iter().find_map(|prefix| self.tsd.offset_bytes(&format!("{prefix}{path}")))
    }
}

/// The offset of a member that not every version has, if `table` agrees on whether this one has it.
#[expect(clippy::option_option, reason = "a member that the version lacks is not one that contradicts it")]
fn same(offset: Option<u64>, table: Option<u64>) -> Option<Option<u64>> {
    (offset.is_some() == table.is_some()).then_some(offset)
}
