//! Layouts: where the few fields that a walk reads lie in one build of the GNU C library's malloc.
//!
//! Offsets are in bytes, for 64-bit builds, as `malloc/malloc.c` and `malloc/arena.c` of the releases named declare
//! them (`malloc_state`, `malloc_par`, `heap_info`, `tcache_perthread_struct`). There is one table for each *change*
//! of layout. Version numbers are compared here and in `identify.rs` only.
//!
//! A layout is a claim. Nothing here decides whether it fits the target: `identify.rs` and `tcache.rs` do.

/// A release as its banner gives it, as 2.36.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major: always 2 so far.
    pub major: u16,
    /// Minor.
    pub minor: u16,
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Pointers of all bins: 127 pairs of first and last.
pub const BIN_WORDS: u64 = 254;
/// From the first bin to the field `next`: all bins and the map of those that are not empty.
pub const BINS_TO_NEXT_BYTES: u64 = BIN_WORDS * 8 + 16;
/// Fastbins of an arena, where there are any.
pub const FASTBINS: u64 = 10;
/// Bins of a thread cache that hold chunks of one size each.
pub const TCACHE_SMALL_BINS: u64 = 64;
/// The smallest chunk.
pub const CHUNK_BYTES_MIN: u64 = 32;

/// The words of a thread cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcacheLayout {
    /// Bytes of one counter.
    pub count_bytes: u64,
    /// Number of bins.
    pub bins: u64,
    /// The counter tells how many more blocks the bin takes (2.42 on), not how many it has.
    pub counts_down: bool,
}

impl TcacheLayout {
    /// Offset of the first list head.
    pub const fn entries(&self) -> u64 {
        self.count_bytes * self.bins
    }

    /// Bytes of the whole structure.
    pub const fn struct_bytes(&self) -> u64 {
        self.entries() + 8 * self.bins
    }

    /// The chunk that is asked for to hold it; it may be given one 16 bytes larger.
    pub const fn chunk_bytes(&self) -> u64 {
        (self.struct_bytes() + 8 + 15) & !15
    }

    /// Whether a chunk of this size may hold one.
    pub const fn fits(&self, chunk_bytes: u64) -> bool {
        chunk_bytes == self.chunk_bytes() || chunk_bytes == self.chunk_bytes() + 16
    }
}

/// How the size word of a chunk with a mapping of its own is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmappedSize {
    /// Up to 2.42: size and the bytes before the chunk are the mapping; the program may use all but 16 bytes.
    WithHeader,
    /// From 2.43 on: the header of 16 bytes is not part of the size; the program may use all but 8 bytes of it.
    WithoutHeader,
}

/// Offsets of the allocator's parameters (`mp_`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterLayout {
    /// Number of chunks with a mapping of their own, 32 bits.
    pub n_mmaps: u64,
    /// Its limit, 32 bits.
    pub n_mmaps_max: u64,
    /// Bytes of those mappings.
    pub mmapped_bytes: u64,
    /// Where the heap of the main arena begins.
    pub sbrk_base: u64,
}

/// Offset of the 64-bit field `arena_test`, the same in every release.
pub const ARENA_TEST: u64 = 24;

/// One layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Releases that it is the layout of.
    pub table: &'static str,
    /// First and last minor version of release 2.
    pub minors: (u16, u16),
    /// In an arena: the first fastbin.
    pub fastbins: Option<u64>,
    /// In an arena: the top chunk.
    pub top: u64,
    /// In an arena: the first bin.
    pub bins: u64,
    /// Bytes of a heap's own header.
    pub heap_header_bytes: u64,
    /// The parameters.
    pub parameters: ParameterLayout,
    /// The thread cache.
    pub tcache: Option<TcacheLayout>,
    /// Links of thread caches and fastbins are mangled with their own address.
    pub safe_linking: bool,
    /// The word behind the link of a cached block marks it as such.
    pub has_key: bool,
    /// Size word of chunks with a mapping of their own.
    pub mmapped_size: MmappedSize,
}

const PARAMETERS_2_17: ParameterLayout =
    ParameterLayout { n_mmaps: 40, n_mmaps_max: 44, mmapped_bytes: 56, sbrk_base: 80 };
const PARAMETERS_2_24: ParameterLayout = ParameterLayout { sbrk_base: 72, ..PARAMETERS_2_17 };
const PARAMETERS_2_35: ParameterLayout =
    ParameterLayout { n_mmaps: 60, n_mmaps_max: 64, mmapped_bytes: 80, sbrk_base: 96 };
const PARAMETERS_2_43: ParameterLayout =
    ParameterLayout { n_mmaps: 68, n_mmaps_max: 72, mmapped_bytes: 88, sbrk_base: 104 };

const TCACHE_2_26: TcacheLayout = TcacheLayout { count_bytes: 1, bins: 64, counts_down: false };
const TCACHE_2_30: TcacheLayout = TcacheLayout { count_bytes: 2, bins: 64, counts_down: false };
const TCACHE_2_42: TcacheLayout = TcacheLayout { count_bytes: 2, bins: 76, counts_down: true };

const V2_17: Layout = Layout {
    table: "2.17 to 2.23",
    minors: (0, 23),
    fastbins: Some(8),
    top: 88,
    bins: 104,
    heap_header_bytes: 0x20,
    parameters: PARAMETERS_2_17,
    tcache: None,
    safe_linking: false,
    has_key: false,
    mmapped_size: MmappedSize::WithHeader,
};
const V2_24: Layout =
    Layout { table: "2.24 and 2.25", minors: (24, 25), parameters: PARAMETERS_2_24, ..V2_17 };
const V2_26: Layout = Layout { table: "2.26", minors: (26, 26), tcache: Some(TCACHE_2_26), ..V2_24 };
const V2_27: Layout =
    Layout { table: "2.27 and 2.28", minors: (27, 28), fastbins: Some(16), top: 96, bins: 112, ..V2_26 };
const V2_29: Layout = Layout { table: "2.29", minors: (29, 29), has_key: true, ..V2_27 };
const V2_30: Layout = Layout { table: "2.30 and 2.31", minors: (30, 31), tcache: Some(TCACHE_2_30), ..V2_29 };
const V2_32: Layout = Layout { table: "2.32 to 2.34", minors: (32, 34), safe_linking: true, ..V2_30 };
const V2_35: Layout = Layout {
    table: "2.35 to 2.41",
    minors: (35, 41),
    heap_header_bytes: 0x30,
    parameters: PARAMETERS_2_35,
    ..V2_32
};
const V2_42: Layout = Layout { table: "2.42", minors: (42, 42), tcache: Some(TCACHE_2_42), ..V2_35 };
const V2_43: Layout = Layout {
    table: "2.43",
    minors: (43, u16::MAX),
    fastbins: None,
    top: 8,
    bins: 24,
    parameters: PARAMETERS_2_43,
    mmapped_size: MmappedSize::WithoutHeader,
    ..V2_42
};

/// All layouts, newest first.
const ALL: [Layout; 10] = [V2_43, V2_42, V2_35, V2_32, V2_30, V2_29, V2_27, V2_26, V2_24, V2_17];

impl Layout {
    /// All layouts in the order in which they are to be tried: that of `version` first, then the others from the
    /// newest on, as the builder of a package may have taken a change over early.
    pub fn candidates(version: Option<Version>) -> Vec<Self> {
        let is_named = |layout: &Self| {
            version.is_some_and(|version| {
                version.major == 2 && (layout.minors.0..=layout.minors.1).contains(&version.minor)
            })
        };
        let mut layouts = ALL.to_vec();
        layouts.sort_by_key(|layout| !is_named(layout));
        layouts
    }

    /// In an arena: the next arena of the circle of all.
    pub const fn next(&self) -> u64 {
        self.bins + BINS_TO_NEXT_BYTES
    }

    /// Bytes of an arena's record as far as it is read; whether `attached_threads` is in it does not show here.
    pub const fn arena_bytes(&self) -> u64 {
        self.next() + 40
    }

    /// Bytes of an arena's record, with or without the count of its threads (2.23 on).
    pub const fn arena_record_bytes(&self, has_attached_threads: bool) -> u64 {
        self.next() + if has_attached_threads { 40 } else { 32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_caches_have_the_sizes_that_their_chunks_show() {
        let sizes: Vec<u64> = [TCACHE_2_26, TCACHE_2_30, TCACHE_2_42].map(|t| t.chunk_bytes()).to_vec();
        assert_eq!(sizes, [0x250, 0x290, 0x300]);
    }

    #[test]
    fn every_release_has_one_layout_and_it_is_tried_first() {
        for minor in 17..=60 {
            let version = Version { major: 2, minor };
            let named = ALL.iter().filter(|l| (l.minors.0..=l.minors.1).contains(&minor)).count();
            assert_eq!(named, 1, "{version}");
            let first = Layout::candidates(Some(version))[0];
            assert!((first.minors.0..=first.minors.1).contains(&minor), "{version}: {}", first.table);
        }
        assert_eq!(Layout::candidates(None).len(), ALL.len());
    }

    #[test]
    fn an_arena_is_as_long_as_the_debug_information_of_2_36_says() {
        assert_eq!(V2_35.arena_record_bytes(true), 2200);
        assert_eq!(V2_35.next(), 2160);
    }
}
