//! Where the fields of jemalloc 4.x are: one table for each change, for the two forms of its locks.
//!
//! From `extent.h`, `arena.h`, `tcache.h`, `rtree.h` and `bitmap.h` of the tags 4.0.4, 4.1.1, 4.2.1, 4.3.1, 4.4.0 and 4.5.0,
//! as compiled for 64 bits; no release in between changes them. What comes behind a lock moves with its length, which
//! is the C library's: that is all in which FreeBSD's own jemalloc differs.

use crate::allocator::jemalloc::layout::Version;

/// Bytes of glibc's `pthread_mutex_t`, alone and with the `witness_t` that 4.2 added.
const GLIBC_LOCK_BYTES: u64 = 40;
/// Bytes of FreeBSD's lock: a pointer to the lock itself, and the link of locks that are made later (`mutex.h`).
const FREEBSD_LOCK_BYTES: u64 = 16;
/// Bytes of `witness_t` (`witness.h`, from 4.2 on).
const WITNESS_BYTES: u64 = 40;

/// The fields of one build. Offsets and lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The releases that it is of.
    pub table: &'static str,
    /// Length of a lock.
    pub lock_bytes: u64,
    /// A lock is a pointer to one, as on FreeBSD.
    pub lock_is_pointer: bool,
    /// `extent_node_t.en_achunk`.
    pub node_achunk: u64,
    /// `extent_node_t.ad_link`: left, then right with the colour in its lowest bit.
    pub node_tree_link: u64,
    /// Length of `extent_node_t`.
    pub node_bytes: u64,
    /// `arena_chunk_t.map_bits`.
    pub map_bits: u64,
    /// Length of `arena_chunk_map_misc_t`.
    pub misc_bytes: u64,
    /// `arena_chunk_map_misc_t.run`.
    pub misc_run: u64,
    /// Length of `arena_bin_info_t`, and its last field.
    pub bin_info_bytes: usize,
    /// `arena_bin_info_t.reg0_offset`.
    pub bin_info_reg0: usize,
    /// `tcache_t.tbins`.
    pub tcache_bins: u64,
    /// `tcache_bin_t.avail` points to the first block, not behind the last.
    pub avail_is_first: bool,
    /// `arena_t.lock`.
    pub arena_lock: u64,
    /// `arena_t.stats.metadata_allocated`.
    pub arena_internal: u64,
    /// `arena_t.stats.lstats`; `hstats` follows.
    pub arena_lstats: u64,
    /// `arena_t.tcache_ql`.
    pub arena_tcaches: u64,
    /// `arena_t.chunks_ad_cached`.
    pub arena_cached: u64,
    /// `arena_t.chunks_ad_retained`.
    pub arena_retained: u64,
    /// `arena_t.bins`.
    pub arena_bins: u64,
    /// Length of `arena_bin_t`.
    pub bin_bytes: u64,
    /// `arena_bin_t.runcur`.
    pub bin_runcur: u64,
    /// `arena_bin_t.stats.curregs`.
    pub bin_curregs: u64,
    /// `arena_bin_t.stats.curruns`.
    pub bin_curruns: u64,
}

impl Layout {
    /// The layouts that a release may have, the likelier first; all where it is not known.
    pub fn candidates(version: Option<Version>) -> Vec<Self> {
        let makers: &[fn(bool) -> Self] = match version.map(|version| version.minor) {
            Some(0) => &[Self::v4_0],
            Some(1) => &[Self::v4_1],
            Some(2) => &[Self::v4_2],
            Some(3) => &[Self::v4_3],
            Some(4..) => &[Self::v4_4],
            None => &[Self::v4_4, Self::v4_3, Self::v4_2, Self::v4_1, Self::v4_0],
        };
        makers.iter().flat_map(|make| [make(false), make(true)]).collect()
    }

    /// What 4.0 had; later tables tell what they changed.
    fn v4_0(is_freebsd: bool) -> Self {
        let lock_bytes = if is_freebsd { FREEBSD_LOCK_BYTES } else { GLIBC_LOCK_BYTES };
        Self {
            table: if is_freebsd { "4.0 of FreeBSD" } else { "4.0" },
            lock_bytes,
            lock_is_pointer: is_freebsd,
            node_achunk: 26,
            node_tree_link: 88,
            node_bytes: 104,
            map_bits: 104,
            misc_bytes: 96,
            misc_run: 16,
            bin_info_bytes: 96,
            bin_info_reg0: 88,
            tcache_bins: 32,
            avail_is_first: true,
            arena_lock: 8,
            arena_internal: 48 + lock_bytes,
            arena_lstats: 112 + lock_bytes,
            arena_tcaches: 128 + lock_bytes,
            // Trees hold a whole node as their end.
            arena_cached: 544 + 2 * lock_bytes,
            arena_retained: 768 + 2 * lock_bytes,
            arena_bins: 944 + 4 * lock_bytes,
            bin_bytes: 184 + lock_bytes,
            bin_runcur: lock_bytes,
            bin_curregs: 136 + lock_bytes,
            bin_curruns: 176 + lock_bytes,
        }
    }

    /// 4.1: trees without an end node, linear bitmaps, a ticker in each thread cache.
    fn v4_1(is_freebsd: bool) -> Self {
        let before = Self::v4_0(is_freebsd);
        let lock_bytes = before.lock_bytes;
        Self {
            table: if is_freebsd { "4.1 of FreeBSD" } else { "4.1" },
            misc_bytes: 88,
            bin_info_bytes: 64,
            bin_info_reg0: 56,
            tcache_bins: 40,
            avail_is_first: false,
            arena_cached: 1992 + 2 * lock_bytes,
            arena_retained: 2008 + 2 * lock_bytes,
            arena_bins: 2080 + 4 * lock_bytes,
            bin_bytes: 88 + lock_bytes,
            bin_curregs: 40 + lock_bytes,
            bin_curruns: 80 + lock_bytes,
            ..before
        }
    }

    /// 4.2: locks with a witness, pairing heaps of runs, arenas that count two kinds of threads.
    fn v4_2(is_freebsd: bool) -> Self {
        let before = Self::v4_1(is_freebsd);
        let lock_bytes = before.lock_bytes + WITNESS_BYTES;
        Self {
            table: if is_freebsd { "4.2 of FreeBSD" } else { "4.2" },
            lock_bytes,
            misc_bytes: 96,
            misc_run: 24,
            arena_lock: 16,
            arena_internal: 64 + lock_bytes,
            arena_lstats: 128 + lock_bytes,
            arena_tcaches: 144 + lock_bytes,
            arena_cached: 2016 + 2 * lock_bytes,
            arena_retained: 2032 + 2 * lock_bytes,
            arena_bins: 2104 + 4 * lock_bytes,
            bin_bytes: 88 + lock_bytes,
            bin_runcur: lock_bytes,
            bin_curregs: 40 + lock_bytes,
            bin_curruns: 80 + lock_bytes,
            ..before
        }
    }

    /// 4.3: one word less in an arena's decay.
    fn v4_3(is_freebsd: bool) -> Self {
        let before = Self::v4_2(is_freebsd);
        Self {
            table: if is_freebsd { "4.3 of FreeBSD" } else { "4.3" },
            arena_cached: before.arena_cached - 8,
            arena_retained: before.arena_retained - 8,
            arena_bins: before.arena_bins - 8,
            ..before
        }
    }

    /// 4.4 and 4.5: serial numbers of extents, a list of each arena's chunks.
    fn v4_4(is_freebsd: bool) -> Self {
        let before = Self::v4_3(is_freebsd);
        Self {
            table: if is_freebsd { "4.4 of FreeBSD" } else { "4.4" },
            node_achunk: 34,
            node_tree_link: 96,
            node_bytes: 112,
            map_bits: 120,
            arena_cached: before.arena_cached + 16,
            arena_retained: before.arena_retained + 16,
            arena_bins: before.arena_bins + 16,
            ..before
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against what gdb printed of libraries built from the tags with gcc 12 and their default configuration.
    #[test]
    fn the_tables_are_those_of_real_builds() {
        let all =
            [Layout::v4_0, Layout::v4_1, Layout::v4_2, Layout::v4_3, Layout::v4_4].map(|make| make(false));
        let each = |field: fn(&Layout) -> u64| all.each_ref().map(field);
        assert_eq!(each(|layout| layout.lock_bytes), [40, 40, 80, 80, 80]);
        assert_eq!(each(|layout| layout.arena_internal), [88, 88, 144, 144, 144]);
        assert_eq!(each(|layout| layout.arena_lstats), [152, 152, 208, 208, 208]);
        assert_eq!(each(|layout| layout.arena_tcaches), [168, 168, 224, 224, 224]);
        assert_eq!(each(|layout| layout.arena_cached), [624, 2072, 2176, 2168, 2184]);
        assert_eq!(each(|layout| layout.arena_retained), [848, 2088, 2192, 2184, 2200]);
        assert_eq!(each(|layout| layout.arena_bins), [1104, 2240, 2424, 2416, 2432]);
        assert_eq!(each(|layout| layout.bin_bytes), [224, 128, 168, 168, 168]);
        assert_eq!(each(|layout| layout.bin_curregs), [176, 80, 120, 120, 120]);
        assert_eq!(each(|layout| layout.bin_curruns), [216, 120, 160, 160, 160]);
    }

    /// Against DWARF of 4.2.1 and 4.5.0 compiled for FreeBSD with the locks that its C library gives them.
    #[test]
    fn freebsds_locks_move_what_comes_behind_them() {
        let all = [Layout::v4_2, Layout::v4_4].map(|make| make(true));
        let each = |field: fn(&Layout) -> u64| all.each_ref().map(field);
        assert_eq!(each(|layout| layout.lock_bytes), [56, 56]);
        assert_eq!(each(|layout| layout.arena_internal), [120, 120]);
        assert_eq!(each(|layout| layout.arena_lstats), [184, 184]);
        assert_eq!(each(|layout| layout.arena_tcaches), [200, 200]);
        assert_eq!(each(|layout| layout.arena_cached), [2128, 2136]);
        assert_eq!(each(|layout| layout.arena_retained), [2144, 2152]);
        assert_eq!(each(|layout| layout.arena_bins), [2328, 2336]);
        assert_eq!(each(|layout| layout.bin_bytes), [144, 144]);
        assert_eq!(each(|layout| layout.bin_curregs), [96, 96]);
        assert_eq!(each(|layout| layout.bin_curruns), [136, 136]);
    }
}
