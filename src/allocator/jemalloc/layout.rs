//! Layouts: where the few fields that a walk reads lie in one build of jemalloc.
//!
//! Offsets are in bytes, for 64-bit builds. They were read from the DWARF of builds of the tagged sources of
//! jemalloc (include/jemalloc/internal: `extent_structs.h` and edata.h, `arena_structs_b.h` and arena.h, bin.h,
//! `base_structs.h`, rtree.h, `cache_bin.h`, `tcache_structs.h`, tsd.h). There is one table for each *change* of
//! layout. Version numbers are compared here and in `identify.rs` only.
//!
//! A layout is a claim. Nothing here decides whether it fits the target: `proof.rs` does.

use crate::allocator::Provenance;

/// A jemalloc version as its own version string gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major, as the 5 of 5.3.1.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch level.
    pub patch: u16,
    /// Commits after the release.
    pub commits: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if self.commits > 0 { write!(formatter, "+{}", self.commits) } else { Ok(()) }
    }
}

/// A group of bits in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// Lowest bit.
    pub shift: u32,
    /// Number of bits; 0 where the version lacks the field.
    pub width: u32,
}

impl Bits {
    const fn new(shift: u32, width: u32) -> Self {
        Self { shift, width }
    }

    /// The field's value in `word`.
    pub const fn of(self, word: u64) -> u64 {
        (word >> self.shift) & (1_u64 << self.width).wrapping_sub(1)
    }
}

/// Fields of an extent's first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentBits {
    /// Number of the owning arena.
    pub arena: Bits,
    /// Divided into regions of a small size class.
    pub slab: Bits,
    /// Active, dirty, muzzy, retained, in transition.
    pub state: Bits,
    /// Size class.
    pub szind: Bits,
    /// Free regions of a slab.
    pub nfree: Bits,
    /// Serial number, where it is part of this word.
    pub serial: Bits,
}

/// Where the bins of an arena lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinPlaces {
    /// One bin a class, inside the arena (5.0, 5.1).
    Inline(u64),
    /// An array of pointers, one a class, each to that class's shards (5.2).
    Pointers(u64),
    /// All shards of all classes one after the other (5.3).
    Flat(u64),
}

/// How cached blocks are kept in a thread's cache bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheBinForm {
    /// A count and a pointer past the end of the stack (5.0 to 5.2).
    Counted,
    /// A stack head and the low 16 bits of its bounds (5.3 on).
    LowBits,
}

/// Offsets in thread caches and the thread-specific data around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcacheLayout {
    /// Form of a cache bin.
    pub form: CacheBinForm,
    /// Head of the list of cache bin array descriptors in an arena (5.1 on).
    pub arena_descriptors: Option<u64>,
    /// Descriptor: link to the next; then, per version, pointers to its bins.
    pub descriptor_bins: Option<u64>,
    /// Descriptor: pointer to the large bins, where they are apart (5.1, 5.2).
    pub descriptor_bins_large: Option<u64>,
    /// Head of the list of thread caches in an arena (to 5.3.1).
    pub arena_tcaches: Option<u64>,
    /// In the structure that `arena_tcaches` lists: link to the next.
    pub tcache_link: u64,
    /// In a tcache: the first (small) bin.
    pub tcache_bins: u64,
    /// In a tcache: the first large bin, where they are apart (to 5.2).
    pub tcache_bins_large: Option<u64>,
    /// In tsd: the tcache.
    pub tsd_tcache: u64,
    /// In tsd: the slow half of the tcache (5.3 on).
    pub tsd_tcache_slow: Option<u64>,
    /// In tsd: links of the ring of all threads' tsd (5.2 to 5.3.1).
    pub tsd_link: Option<u64>,
    /// In tsd: the arena; the internal arena's pointer is the word before it.
    pub tsd_arena: u64,
    /// In tsd: pointer to the thread's array of decay tickers, an allocation of jemalloc's own (to 5.2).
    pub tsd_tickers: Option<u64>,
    /// In tsd: the cache of radix tree leaves.
    pub tsd_rtree_ctx: u64,
    /// In the slow half: number of bins in use (5.3.1 on).
    pub slow_nbins: Option<u64>,
    /// In the slow half: pointer to the tcache (5.3 on).
    pub slow_tcache: Option<u64>,
    /// In the slow half: base of the stacks' allocation (5.3 on).
    pub slow_stacks: Option<u64>,
    /// Bytes of tsd.
    pub tsd_bytes: u64,
    /// Bins that a tcache has room for.
    pub bins_max: u32,
}

/// Where one build of jemalloc keeps what a walk reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The version whose table this is.
    pub table: &'static str,
    /// How the offsets were learnt.
    pub provenance: Provenance,
    /// Words of an extent.
    pub bits: ExtentBits,
    /// Extent: its address.
    pub extent_address: u64,
    /// Extent: its size, and below the page size a serial number or generation.
    pub extent_size: u64,
    /// Extent: the serial number in a word of its own (5.3 on).
    pub extent_serial: Option<u64>,
    /// Extent: the slab's bitmap.
    pub extent_bitmap: u64,
    /// Alignment of extents: low bits of a leaf element are free for flags.
    pub extent_align: u64,
    /// Leaf elements carry `state` (5.3 on).
    pub leaf_has_state: bool,
    /// Large sizes may lie between size classes (5.3.1 on).
    pub large_unrounded: bool,
    /// From the start of the radix tree to its root array.
    pub rtree_root: u64,
    /// Arena: pointer to its base.
    pub arena_base: u64,
    /// Arena: its bins.
    pub bins: BinPlaces,
    /// Bytes of a bin.
    pub bin_bytes: u64,
    /// Bin: the word that is not zero while its lock is held.
    pub bin_lock: u64,
    /// Bin: regions handed out.
    pub bin_curregs: u64,
    /// Bin: slabs.
    pub bin_curslabs: u64,
    /// Arena: bytes that jemalloc has handed out to itself (builds with statistics).
    pub arena_internal: u64,
    /// Arena: the statistics of large size classes.
    pub large_stats: u64,
    /// Bytes of one of those.
    pub large_stats_bytes: u64,
    /// Base: the arena's number.
    pub base_ind: u64,
    /// Base: list of its blocks.
    pub base_blocks: u64,
    /// Thread caches.
    pub tcache: TcacheLayout,
    /// What the profiler keeps, in builds that have it.
    pub profile: ProfileLayout,
}

/// Offsets in what the profiler keeps of sampled blocks (`prof_structs.h`, the same in builds with and without it: read
/// from the DWARF of 5.0.1, 5.1.0, 5.2.1, 5.3.0 and 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileLayout {
    /// Extent: pointer to the context of a sampled block, `prof_tctx_t`; 1 for blocks that were not sampled.
    pub extent_context: u64,
    /// Context of a thread: blocks in use; their bytes; both together scaled for what was not sampled (5.3 on).
    pub context_blocks: u64,
    /// The bytes.
    pub context_bytes: u64,
    /// The bytes, scaled.
    pub context_scaled_bytes: Option<u64>,
    /// Pointer to the context of all threads, `prof_gctx_t`.
    pub context_global: u64,
    /// Bytes of a context that are read.
    pub context_read_bytes: u64,
    /// Context of all threads: its backtrace, a pointer and a number of 32 bits.
    pub global_backtrace: u64,
    /// Where the return addresses begin that the pointer leads to.
    pub global_addresses: u64,
}

impl ProfileLayout {
    const V5_0: Self = Self {
        extent_context: 64,
        context_blocks: 24,
        context_bytes: 32,
        context_scaled_bytes: None,
        context_global: 56,
        context_read_bytes: 64,
        global_backtrace: 72,
        global_addresses: 88,
    };
    const V5_2: Self = Self { extent_context: 72, ..Self::V5_0 };
    const V5_3: Self = Self {
        extent_context: 80,
        context_blocks: 32,
        context_bytes: 48,
        context_scaled_bytes: Some(56),
        context_global: 96,
        context_read_bytes: 104,
        global_backtrace: 104,
        global_addresses: 120,
    };
}

/// Bytes of an element of `bin_infos` (`bin_info.h)`: its first four fields never changed in 5.x, what follows
/// depends on how many regions a slab can have.
pub const BIN_INFO_BYTES_MIN: usize = 40;
/// The same with a tree of bitmaps of the greatest height.
pub const BIN_INFO_BYTES_MAX: usize = 120;

/// Bytes of a cache bin (`cache_bin.h`, `tcache_structs.h`; unchanged in all of 5.x).
pub const CACHE_BIN_BYTES: u64 = 24;

/// Bytes of a thread's cache of radix tree leaves: 16 and 8 entries of a key and a leaf (`rtree_tsd.h`).
pub const RTREE_CTX_BYTES: u64 = 384;

/// Bytes at the end of thread-specific data, behind the tcache: the locks that the thread holds (witness.h; all
/// of 5.x, used in debug builds only).
const WITNESS_BYTES: u64 = 16;

/// What a table depends on besides the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// Number of small size classes: 36 for a quantum of 16 bytes, 39 for one of 8.
    pub nbins: u64,
    /// Number of large size classes: 196 with pages of 4 KiB, fewer with larger ones.
    pub nlarge: u64,
    /// Logarithm of the page size.
    pub lg_page: u32,
}

impl Layout {
    /// The layouts that a version may have, the likeliest first.
    ///
    /// Commits after a release may belong to any later layout, so several are offered; the proof chooses.
    pub fn candidates(version: Version, build: Build) -> Vec<Self> {
        let of = |release: fn(Build) -> Self| release(build);
        match (version.major, version.minor, version.patch) {
            (5, 0, _) => vec![of(Self::v5_0), of(Self::v5_1)],
            (5, 1, _) => vec![of(Self::v5_1), of(Self::v5_1_freebsd), of(Self::v5_2)],
            (5, 2, _) => vec![of(Self::v5_2), of(Self::v5_2_freebsd), of(Self::v5_3_0)],
            (5, 3, 0) if version.commits == 0 => vec![of(Self::v5_3_0)],
            (5, 3, 0) => {
                vec![of(Self::v5_3_0), of(Self::v5_3_0_freebsd), of(Self::v5_3_1), of(Self::development)]
            }
            (5, 3, 1) if version.commits == 0 => vec![of(Self::v5_3_1)],
            (5, _, _) => vec![of(Self::development), of(Self::v5_3_1)],
            _ => Vec::new(),
        }
    }

    /// 5.0.0 and 5.0.1.
    pub fn v5_0(build: Build) -> Self {
        let link = 16 + CACHE_BIN_BYTES * build.nbins;
        let bins = 16328;
        Self {
            table: "5.0",
            provenance: Provenance::Probed,
            bits: ExtentBits::before_5_3(build, 15, Bits::new(35, 29)),
            extent_address: 8,
            extent_size: 16,
            extent_serial: None,
            extent_bitmap: 64,
            extent_align: 64,
            leaf_has_state: false,
            large_unrounded: false,
            rtree_root: 104,
            arena_base: bins + 264 * build.nbins,
            bins: BinPlaces::Inline(bins),
            bin_bytes: 264,
            bin_lock: 64,
            bin_curregs: 152,
            bin_curslabs: 192,
            arena_internal: 88,
            large_stats: 720,
            large_stats_bytes: 32,
            base_ind: 0,
            base_blocks: 136,
            tcache: TcacheLayout {
                form: CacheBinForm::Counted,
                arena_descriptors: None,
                descriptor_bins: None,
                descriptor_bins_large: None,
                arena_tcaches: Some(behind_large_stats(7000, build, 32)),
                tcache_link: link,
                tcache_bins: 16,
                tcache_bins_large: Some(align_8(link + 28 + build.nbins)),
                tsd_tcache: 440,
                tsd_tcache_slow: None,
                tsd_link: None,
                tsd_arena: 424,
                tsd_rtree_ctx: 32,
                slow_nbins: None,
                slow_tcache: None,
                slow_stacks: None,
                tsd_tickers: Some(432),
                tsd_bytes: 440
                    + align_8(link + 28 + build.nbins)
                    + CACHE_BIN_BYTES * build.nlarge
                    + WITNESS_BYTES,
                bins_max: bins_max(build, build.nlarge),
            },
            profile: ProfileLayout::V5_0,
        }
    }

    /// 5.1.0: cache bins are reached by descriptors; bins are split off the arena's header.
    pub fn v5_1(build: Build) -> Self {
        let before = Self::v5_0(build);
        let link = before.tcache.tcache_link;
        let bins = 16344;
        let large = align_8(link + 60 + build.nbins);
        Self {
            table: "5.1",
            bits: ExtentBits::before_5_3(build, 16, Bits::new(36, 28)),
            arena_base: bins + 264 * build.nbins,
            bins: BinPlaces::Inline(bins),
            arena_internal: 88,
            large_stats: 728,
            tcache: TcacheLayout {
                arena_descriptors: Some(behind_large_stats(7016, build, 32)),
                descriptor_bins: Some(16),
                descriptor_bins_large: Some(24),
                arena_tcaches: Some(behind_large_stats(7008, build, 32)),
                tcache_bins_large: Some(large),
                tsd_tcache: 448,
                tsd_arena: 432,
                tsd_tickers: Some(440),
                tsd_rtree_ctx: 40,
                tsd_bytes: 448 + large + CACHE_BIN_BYTES * build.nlarge + WITNESS_BYTES,
                ..before.tcache
            },
            ..before
        }
    }

    /// 5.2.0 and 5.2.1: bin shards, a ring of all threads' data, a longer mutex.
    pub fn v5_2(build: Build) -> Self {
        let before = Self::v5_1(build);
        let link = before.tcache.tcache_link;
        let bins = 29192;
        let large = align_8(link + 84 + build.nbins);
        let tcache = align_8(456 + build.nbins);
        Self {
            table: "5.2",
            bits: ExtentBits::before_5_3(build, 16, Bits::new(43, 21)),
            rtree_root: 112,
            arena_base: bins + 8 * build.nbins,
            bins: BinPlaces::Pointers(bins),
            bin_bytes: 280,
            bin_curregs: 160,
            bin_curslabs: 200,
            arena_internal: 104,
            large_stats: 768,
            large_stats_bytes: 48,
            base_blocks: 144,
            profile: ProfileLayout::V5_2,
            tcache: TcacheLayout {
                arena_descriptors: Some(behind_large_stats(10192, build, 48)),
                arena_tcaches: Some(behind_large_stats(10184, build, 48)),
                tcache_bins_large: Some(large),
                tsd_tcache: tcache,
                tsd_link: Some(tcache + link + 16),
                tsd_arena: 440,
                tsd_tickers: Some(448),
                tsd_rtree_ctx: 48,
                tsd_bytes: tcache + large + CACHE_BIN_BYTES * build.nlarge + WITNESS_BYTES,
                ..before.tcache
            },
            ..before
        }
    }

    /// 5.3.0: extents become edata, thread caches keep a stack head and low bits.
    pub fn v5_3_0(build: Build) -> Self {
        let before = Self::v5_2(build);
        let stacks = align_8(52 + 3 * build.nbins);
        let link = align_8(161 + build.nbins);
        let bins_max = bins_max(build, 37);
        Self {
            table: "5.3.0",
            bits: ExtentBits::since_5_3(build),
            extent_serial: Some(32),
            extent_align: 128,
            leaf_has_state: true,
            rtree_root: 120,
            arena_base: 78936,
            bins: BinPlaces::Flat(78952),
            bin_bytes: 224,
            bin_curregs: 136,
            bin_curslabs: 176,
            arena_internal: 56,
            large_stats: 976,
            base_blocks: 160,
            profile: ProfileLayout::V5_3,
            tcache: TcacheLayout {
                form: CacheBinForm::LowBits,
                arena_descriptors: Some(behind_large_stats(10400, build, 48)),
                descriptor_bins_large: None,
                arena_tcaches: Some(behind_large_stats(10392, build, 48)),
                tcache_link: 0,
                tcache_bins: 8,
                tcache_bins_large: None,
                slow_tcache: Some(stacks + 8),
                slow_stacks: Some(stacks),
                bins_max,
                ..before.tcache.thread_data(
                    ThreadData { link, slow: link + 56, slow_bytes: stacks + 16, arena: 144 },
                    bins_max,
                )
            },
            ..before
        }
    }

    /// 5.1.0 in the C library of FreeBSD 12, whose mutexes are 80 bytes (from the DWARF of a build with mutexes of that form).
    /// They have no mark that they are held; the number of threads that wait for one stands for it.
    pub fn v5_1_freebsd(build: Build) -> Self {
        let bins = 16128;
        Self {
            table: "5.1 of FreeBSD",
            rtree_root: 80,
            arena_base: bins + 240 * build.nbins,
            bins: BinPlaces::Inline(bins),
            bin_bytes: 240,
            bin_lock: FREEBSD_WAITING,
            bin_curregs: 128,
            bin_curslabs: 168,
            base_blocks: 112,
            ..Self::v5_1(build)
        }
    }

    /// 5.2.1 in the C library of FreeBSD 13 and 14, whose mutexes are shorter: 88 bytes (from the DWARF of objects
    /// compiled as its release is).
    pub fn v5_2_freebsd(build: Build) -> Self {
        let before = Self::v5_2(build);
        let bins = 28976;
        Self {
            table: "5.2 of FreeBSD",
            rtree_root: 88,
            arena_base: bins + 8 * build.nbins,
            bins: BinPlaces::Pointers(bins),
            bin_bytes: 256,
            bin_lock: FREEBSD_LOCKED,
            bin_curregs: 136,
            bin_curslabs: 176,
            base_blocks: 120,
            ..before
        }
    }

    /// 5.3.0 in the C library of FreeBSD 15.
    pub fn v5_3_0_freebsd(build: Build) -> Self {
        Self {
            table: "5.3.0 of FreeBSD",
            rtree_root: 96,
            arena_base: 78648,
            bins: BinPlaces::Flat(78664),
            bin_bytes: 200,
            bin_lock: FREEBSD_LOCKED,
            bin_curregs: 112,
            bin_curslabs: 152,
            base_blocks: 136,
            ..Self::v5_3_0(build)
        }
    }

    /// 5.3.1: thread cache sizes per thread, large sizes between classes, bins aligned to a cache line.
    pub fn v5_3_1(build: Build) -> Self {
        let before = Self::v5_3_0(build);
        let stacks = align_8(76 + 4 * build.nbins);
        let link = align_8(217 + build.nbins);
        let bins_max = bins_max(build, 5);
        Self {
            table: "5.3.1",
            large_unrounded: true,
            arena_base: 80648,
            bins: BinPlaces::Flat(80704),
            bin_lock: 72,
            arena_internal: 72,
            large_stats: 992,
            large_stats_bytes: 56,
            tcache: TcacheLayout {
                arena_descriptors: Some(behind_large_stats(11984, build, 56)),
                arena_tcaches: Some(behind_large_stats(11976, build, 56)),
                slow_nbins: Some(48),
                slow_tcache: Some(stacks + 8),
                slow_stacks: Some(stacks),
                bins_max,
                ..before.tcache.thread_data(
                    ThreadData { link, slow: link + 40, slow_bytes: stacks + 16, arena: 200 },
                    bins_max,
                )
            },
            ..before
        }
    }

    /// The development head of 2026-05 (295e4894): no list of thread caches, no ring of threads.
    pub fn development(build: Build) -> Self {
        let before = Self::v5_3_1(build);
        let stacks = align_8(60 + 4 * build.nbins);
        let link = align_8(217 + build.nbins);
        let bins_max = bins_max(build, 5);
        Self {
            table: "development",
            arena_base: 100_616,
            bins: BinPlaces::Flat(100_672),
            arena_internal: 72,
            large_stats: 1064,
            tcache: TcacheLayout {
                arena_descriptors: Some(behind_large_stats(12048, build, 56)),
                arena_tcaches: None,
                slow_nbins: Some(32),
                slow_tcache: Some(stacks + 8),
                slow_stacks: Some(stacks),
                bins_max,
                tsd_link: None,
                ..before.tcache.thread_data(
                    ThreadData { link, slow: link + 16, slow_bytes: stacks + 16, arena: 200 },
                    bins_max,
                )
            },
            ..before
        }
    }
}

/// Large size classes of a 64-bit build with 4 KiB pages, for which the tables are written.
const NLARGE: u64 = 196;

/// In a mutex of FreeBSD's: the mark that it is held. The word that other systems keep there is a pointer.
const FREEBSD_LOCKED: u64 = 80;

/// In a mutex of any system: how many threads wait for it.
const FREEBSD_WAITING: u64 = 36;

/// What an offset behind an arena's statistics moves by if there are fewer large classes than in the tables.
const fn behind_large_stats(offset: u64, build: Build, stride: u64) -> u64 {
    (offset + build.nlarge * stride).wrapping_sub(NLARGE * stride)
}

impl Layout {
    /// The same with the pointer to an arena's base at `offset`: what lies before it depends on the page size.
    pub fn with_arena_base(self, offset: u64) -> Self {
        let bins = match self.bins {
            BinPlaces::Flat(bins) => {
                // Bins follow the arena, aligned to a cache line where they are not 16 bytes behind the base.
                let gap = bins - self.arena_base;
                BinPlaces::Flat(if gap == 16 { offset + gap } else { (offset + 56).next_multiple_of(64) })
            }
            other => other,
        };
        Self { arena_base: offset, bins, ..self }
    }
}

impl ExtentBits {
    /// 5.0 to 5.2: `state` is at `state_shift`, the serial number in the same word.
    const fn before_5_3(build: Build, state_shift: u32, serial: Bits) -> Self {
        let nfree = build.lg_page - 2;
        let pushed = nfree - 10;
        Self {
            arena: Bits::new(0, 12),
            slab: Bits::new(12, 1),
            state: Bits::new(state_shift, 2),
            szind: Bits::new(state_shift + 2, 8),
            nfree: Bits::new(state_shift + 10, nfree),
            serial: Bits::new(serial.shift + pushed, serial.width - pushed),
        }
    }

    /// 5.3 on.
    const fn since_5_3(build: Build) -> Self {
        Self {
            arena: Bits::new(0, 12),
            slab: Bits::new(12, 1),
            state: Bits::new(17, 3),
            szind: Bits::new(20, 8),
            nfree: Bits::new(28, build.lg_page - 2),
            serial: Bits::new(0, 0),
        }
    }
}

/// Places in thread-specific data from which the others follow (5.3 on).
struct ThreadData {
    link: u64,
    slow: u64,
    slow_bytes: u64,
    arena: u64,
}

/// What thread-specific data may be shifted by in 5.3.1 and later: builds without statistics lack two words,
/// builds with profiling have one more. Both stand before everything that is read here.
pub const THREAD_DATA_SHIFTS: [i64; 4] = [0, -16, 8, -8];

impl TcacheLayout {
    /// The same with everything in thread-specific data moved by `shift` bytes.
    pub fn shifted(self, shift: i64) -> Self {
        let moved = |offset: u64| offset.wrapping_add_signed(shift);
        Self {
            tsd_tcache: moved(self.tsd_tcache),
            tsd_tcache_slow: self.tsd_tcache_slow.map(moved),
            tsd_link: self.tsd_link.map(moved),
            tsd_arena: moved(self.tsd_arena),
            tsd_rtree_ctx: moved(self.tsd_rtree_ctx),
            tsd_bytes: moved(self.tsd_bytes),
            ..self
        }
    }

    fn thread_data(self, data: ThreadData, bins_max: u32) -> Self {
        let rtree_ctx = data.slow + data.slow_bytes;
        let tcache = rtree_ctx + RTREE_CTX_BYTES + 40;
        Self {
            tsd_link: Some(data.link),
            tsd_tcache_slow: Some(data.slow),
            tsd_rtree_ctx: rtree_ctx,
            tsd_tcache: tcache,
            tsd_arena: data.arena,
            tsd_tickers: None,
            tsd_bytes: tcache + 8 + CACHE_BIN_BYTES * u64::from(bins_max) + WITNESS_BYTES,
            ..self
        }
    }
}

const fn align_8(offset: u64) -> u64 {
    offset.next_multiple_of(8)
}

/// Slots of a thread cache: all small classes and `large` of the others.
fn bins_max(build: Build, large: u64) -> u32 {
    u32::try_from(build.nbins + large).unwrap_or(u32::MAX)
}
