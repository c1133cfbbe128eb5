//! Layouts: where the few fields that a walk reads lie in one build of gperftools tcmalloc.
//!
//! Offsets are in bytes, for 64-bit builds, as `src/span.h`, `src/common.h`, `src/central_freelist.h`,
//! `src/thread_cache.h`, `src/page_heap.h` and `src/pagemap.h` of the releases named declare them. From 2.10 to 2.18.1
//! two things have moved: a thread cache lost two fields in 2.16, and the page heap got its lock in 2.11. Version
//! numbers are compared here only.
//!
//! A layout is a claim. Nothing here decides whether it fits the target: `identify.rs` and `proof.rs` do.

/// A release as the library's own text gives it, as 2.10 or 2.18.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major: 2 since 2012.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch; 0 where none is named.
    pub patch: u16,
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(formatter, ".{}", self.patch) } else { Ok(()) }
    }
}

/// Size classes that every table has room for; class 0 is none.
pub const CLASSES_MAX: u64 = 128;
/// The largest size that has a class.
pub const SMALL_BYTES_MAX: u64 = 256 << 10;
/// Bits of an address that the page map takes in.
const ADDRESS_BITS: u32 = 48;

/// Where the tables of size classes lie, from `class_to_size_` on: counts moved at once before it, pages behind it.
pub mod size_map {
    use super::CLASSES_MAX;
    /// Bytes before it of `num_objects_to_move_`.
    pub const MOVES_BEFORE: u64 = CLASSES_MAX * 4;
    /// From `class_to_pages_` to `num_size_classes`: next to it, or behind the smallest span's pages.
    pub const PAGES_TO_COUNT: [u64; 2] = [CLASSES_MAX * 8, CLASSES_MAX * 8 + 8];

    /// Where `class_to_pages_` is: words, while the table of sizes at `address` may begin in the middle of one.
    pub const fn pages(address: u64) -> u64 {
        address.saturating_add(CLASSES_MAX * 4).saturating_add(7) & !7
    }
}

/// A span's record.
pub mod span {
    /// The first page's number.
    pub const START: usize = 0;
    /// Pages.
    pub const LENGTH: usize = 8;
    /// The next span of its list.
    pub const NEXT: usize = 16;
    /// The first free object.
    pub const OBJECTS: usize = 32;
    /// Objects handed out: 16 bits.
    pub const REFERENCES: usize = 40;
    /// The size class: 8 bits.
    pub const CLASS: usize = 42;
    /// Which list it is on: the lowest 2 bits.
    pub const LOCATION: usize = 43;
    /// The whole record.
    pub const BYTES: u64 = 48;
}

/// One size class's central list.
pub mod central {
    /// Its size class, behind the lock.
    pub const CLASS: u64 = 8;
    /// The head of the list of spans without a free object.
    pub const EMPTY: u64 = 16;
    /// The head of the list of the others.
    pub const NONEMPTY: u64 = 64;
    /// Spans on both lists.
    pub const SPANS: u64 = 112;
    /// Free objects in them.
    pub const FREE: u64 = 120;
    /// Chains of the transfer cache: first and last object.
    pub const SLOTS: u64 = 128;
    /// How many chains there may be.
    pub const SLOTS_MAX: u64 = 64;
    /// How many there are: 32 bits.
    pub const SLOTS_USED: u64 = SLOTS + SLOTS_MAX * 16;
    /// From one class to the next: a multiple of a cache line.
    pub const STRIDE: u64 = 1216;
}

/// A list of a thread cache.
pub mod free_list {
    /// Its length: 32 bits, behind the first object.
    pub const LENGTH: u64 = 8;
    /// The size of its objects: 32 bits.
    pub const SIZE: u64 = 24;
    /// From one class to the next.
    pub const STRIDE: u64 = 32;
}

/// Offsets that differ between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The oldest release that has it.
    pub table: &'static str,
    /// In a thread cache: the next cache; the one before follows it.
    pub cache_next: u64,
    /// The page heap begins with the smallest span's pages and its lock.
    pub page_heap_has_lock: bool,
}

impl Layout {
    /// Bytes of a thread cache that are read.
    pub const fn cache_bytes(&self) -> u64 {
        self.cache_next + 16
    }

    /// Layouts that a release may have; all where it is not known.
    pub fn candidates(version: Option<Version>) -> Vec<Self> {
        const V2_10: Layout = Layout { table: "2.10", cache_next: 4144, page_heap_has_lock: false };
        const V2_11: Layout = Layout { table: "2.11", cache_next: 4144, page_heap_has_lock: true };
        const V2_16: Layout = Layout { table: "2.16", cache_next: 4128, page_heap_has_lock: true };
        match version {
            None => vec![V2_16, V2_11, V2_10],
            Some(Version { major, minor, .. }) if (major, minor) >= (2, 16) => vec![V2_16],
            Some(Version { major, minor, .. }) if (major, minor) >= (2, 11) => vec![V2_11],
            Some(Version { major, minor, .. }) if (major, minor) >= (2, 10) => vec![V2_10],
            Some(_) => Vec::new(),
        }
    }
}

/// The page map's shape, which depends on the size of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Binary logarithm of a page's bytes; 13 unless the build says otherwise.
    pub page_shift: u32,
}

impl Geometry {
    /// That of a build whose largest size class takes so many pages: it fills them.
    pub fn of_largest_class(pages: u64) -> Option<Self> {
        let page_bytes = SMALL_BYTES_MAX.checked_div(pages)?;
        let fits = page_bytes.is_power_of_two() && page_bytes * pages == SMALL_BYTES_MAX;
        let page_shift = page_bytes.checked_ilog2()?;
        (fits && (12..=18).contains(&page_shift)).then_some(Self { page_shift })
    }

    /// Bytes of a page.
    pub const fn page_bytes(self) -> u64 {
        1 << self.page_shift
    }

    /// Bits of a page's number that choose within a leaf.
    pub const fn leaf_bits(self) -> u32 {
        (ADDRESS_BITS - self.page_shift).div_ceil(2)
    }

    /// Bytes of a leaf.
    pub const fn leaf_bytes(self) -> u64 {
        8 << self.leaf_bits()
    }

    /// Bytes of the root.
    pub const fn root_bytes(self) -> u64 {
        8 << (ADDRESS_BITS - self.page_shift - self.leaf_bits())
    }

    /// From the root to the page heap's counters: the map's allocator, two sets, and two lists for each short length.
    pub const fn root_to_counters(self) -> u64 {
        const SET_BYTES: u64 = 48;
        let lengths = (1 << 20) >> self.page_shift;
        self.root_bytes() + 8 + 2 * SET_BYTES + lengths * 2 * span::BYTES
    }

    /// From the page heap's lock, where it has one, to the root: a cache of size classes lies between.
    pub const fn lock_to_root(self) -> u64 {
        const CACHE_BYTES: u64 = 8 << 16;
        CACHE_BYTES + 8
    }
}
