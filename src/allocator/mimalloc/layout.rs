//! Layouts: where the few fields that a walk reads lie in one build of mimalloc.
//!
//! Offsets are in bytes, for 64-bit builds without assertions. They were read from the DWARF of builds of the tagged
//! sources (include/mimalloc/types.h: `mi_page_t`, `mi_segment_t`, `mi_heap_t`), and where a page's blocks begin
//! from `_mi_segment_page_start` of src/segment.c. There is one table for each *change* of layout, named by the first
//! release that has it. Version numbers are compared here and in `identify.rs` only.
//!
//! A layout is a claim. Nothing here decides whether it fits the target: `proof.rs` does.

/// Bytes that the two keys of a page take where its lists are encoded.
const KEYS_BYTES: u64 = 16;

/// Where the records of pages are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// Segments of 4 MiB, pages of one size in each (1.x).
    Segments(SegmentFields),
    /// Segments of 32 MiB, pages of any number of slices (2.x).
    Slices(SegmentFields),
    /// A map of all pages by address (3.x).
    Map,
}

/// Fields of a segment's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFields {
    /// Pages in use.
    pub used: u64,
    /// The segment's address mixed with the process's cookie.
    pub cookie: u64,
    /// The whole segment: bytes (1.x), slices (2.x).
    pub size: u64,
    /// What its own record takes: bytes (1.x), slices (2.x).
    pub own_size: u64,
    /// Number of pages (1.x) or of records for slices (2.x).
    pub entries: u64,
    /// Logarithm of a page's bytes (1.x).
    pub page_shift: u64,
    /// What kind of pages it holds (1.x).
    pub kind: u64,
    /// The records of pages.
    pub pages: u64,
}

/// How wide a counter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Two,
    /// 32 bits.
    Four,
    /// 64 bits.
    Eight,
}

/// Where a page's blocks begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// So many bytes into its first slice where blocks have up to 1024 bytes, else with the slice.
    Offset(u64),
    /// Three small blocks or one larger block into the slice.
    Blocks,
    /// Behind the segment's record, at a multiple of the block size.
    Aligned,
    /// The record has the address, at this offset.
    Stored(u64),
    /// The record has the distance from itself in words, at this offset.
    StoredWords(u64),
}

/// Fields of a page's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageFields {
    /// Its bytes, where records lie side by side.
    pub bytes: u64,
    /// Blocks that lists have been made of.
    pub capacity: u64,
    /// Blocks that it has room for.
    pub reserved: u64,
    /// List of free blocks.
    pub free: u64,
    /// Blocks handed out.
    pub used: (u64, Width),
    /// Bytes of a block.
    pub block_bytes: (u64, Width),
    /// List of blocks that the owner freed.
    pub local_free: u64,
    /// List of blocks that other threads freed; its lowest bits are flags.
    pub thread_free: u64,
    /// The keys of its lists.
    pub keys: u64,
    /// The heap that owns it.
    pub heap: u64,
    /// Where its blocks begin.
    pub start: Start,
}

/// Fields of a heap's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapFields {
    /// The queues of pages by size class.
    pub queues: u64,
    /// List of blocks that other threads freed in pages that were full.
    pub delayed: u64,
    /// The cookie; that of the main heap is the process's.
    pub cookie: u64,
    /// The keys of that list.
    pub keys: u64,
    /// How many pages it owns.
    pub page_count: u64,
}

/// Offsets of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Which releases it is the layout of.
    pub table: &'static str,
    /// Where the records of pages are found.
    pub places: Places,
    /// Fields of a page.
    pub page: PageFields,
    /// Fields of a heap; absent where heaps keep no list.
    pub heap: Option<HeapFields>,
    /// Lists are encoded with keys, as builds with `MI_SECURE` do.
    pub encoded: bool,
}

const fn heap_with_queues_first(cookie: u64) -> HeapFields {
    HeapFields { queues: 1040, delayed: 2840, cookie, keys: cookie + 8, page_count: cookie + 160 }
}

const fn heap_with_queues_last(queues: u64) -> HeapFields {
    HeapFields { queues, delayed: 8, cookie: 32, keys: 40, page_count: 192 }
}

const V2_0_PAGE: PageFields = PageFields {
    bytes: 80,
    capacity: 10,
    reserved: 12,
    free: 16,
    used: (24, Width::Four),
    block_bytes: (28, Width::Four),
    local_free: 32,
    thread_free: 40,
    keys: 40,
    heap: 48,
    start: Start::Offset(128),
};

const V2_1_PAGE: PageFields = PageFields {
    bytes: 96,
    local_free: 24,
    used: (32, Width::Two),
    block_bytes: (40, Width::Eight),
    thread_free: 56,
    keys: 56,
    heap: 64,
    start: Start::Stored(48),
    ..V2_0_PAGE
};

const V1_6_PAGE: PageFields = PageFields {
    bytes: 64,
    capacity: 2,
    reserved: 4,
    free: 8,
    used: (16, Width::Four),
    block_bytes: (20, Width::Four),
    local_free: 24,
    thread_free: 32,
    keys: 32,
    heap: 40,
    start: Start::Aligned,
};

const V1_8_PAGE: PageFields = PageFields {
    bytes: 80,
    local_free: 16,
    used: (24, Width::Two),
    block_bytes: (32, Width::Eight),
    thread_free: 48,
    keys: 48,
    heap: 56,
    start: Start::Stored(40),
    ..V1_6_PAGE
};

const V3_0_PAGE: PageFields = PageFields {
    bytes: 128,
    capacity: 18,
    reserved: 20,
    free: 8,
    used: (16, Width::Two),
    block_bytes: (40, Width::Eight),
    local_free: 24,
    thread_free: 32,
    keys: 64,
    heap: 64,
    start: Start::Stored(48),
};

const V2_0_0_SEGMENT: SegmentFields = SegmentFields {
    used: 312,
    cookie: 320,
    size: 328,
    own_size: 336,
    kind: 344,
    entries: 360,
    page_shift: 0,
    pages: 368,
};

const V2_0_9_SEGMENT: SegmentFields = SegmentFields {
    used: 208,
    cookie: 216,
    size: 224,
    own_size: 232,
    kind: 240,
    entries: 248,
    page_shift: 0,
    pages: 264,
};

const V2_1_8_SEGMENT: SegmentFields = SegmentFields {
    used: 216,
    cookie: 224,
    size: 248,
    own_size: 256,
    kind: 264,
    entries: 272,
    page_shift: 0,
    pages: 288,
};

const V1_6_SEGMENT: SegmentFields = SegmentFields {
    used: 56,
    entries: 64,
    size: 72,
    own_size: 80,
    cookie: 88,
    page_shift: 96,
    kind: 112,
    pages: 120,
};

const V1_7_9_SEGMENT: SegmentFields = SegmentFields {
    used: 72,
    entries: 80,
    size: 88,
    own_size: 96,
    cookie: 104,
    page_shift: 112,
    kind: 128,
    pages: 136,
};

const V1_8_2_SEGMENT: SegmentFields = SegmentFields { size: 32, used: 80, entries: 88, ..V1_7_9_SEGMENT };

const V1_8_7_SEGMENT: SegmentFields = SegmentFields { page_shift: 120, ..V1_8_2_SEGMENT };

const V1_8_8_SEGMENT: SegmentFields = SegmentFields {
    size: 32,
    used: 88,
    entries: 96,
    own_size: 104,
    cookie: 112,
    page_shift: 144,
    kind: 152,
    pages: 160,
};

const fn slices(
    table: &'static str,
    segment: SegmentFields,
    page: PageFields,
    start: Start,
    heap: HeapFields,
) -> Layout {
    let page = PageFields { start, ..page };
    Layout { table, places: Places::Slices(segment), page, heap: Some(heap), encoded: false }
}

const fn segments(table: &'static str, segment: SegmentFields, page: PageFields, heap: HeapFields) -> Layout {
    Layout { table, places: Places::Segments(segment), page, heap: Some(heap), encoded: false }
}

const fn mapped(table: &'static str, page: PageFields) -> Layout {
    Layout { table, places: Places::Map, page, heap: None, encoded: false }
}

/// Those with queues of three words.
const WITH_SEGMENTS: [Layout; 13] = [
    slices("2.3", V2_1_8_SEGMENT, V2_1_PAGE, Start::Stored(48), heap_with_queues_last(1288)),
    slices("2.2", V2_1_8_SEGMENT, V2_1_PAGE, Start::Stored(48), heap_with_queues_last(1280)),
    slices("2.1.8", V2_1_8_SEGMENT, V2_1_PAGE, Start::Stored(48), heap_with_queues_last(1264)),
    slices("2.1.4", V2_0_9_SEGMENT, V2_1_PAGE, Start::Stored(48), heap_with_queues_last(1264)),
    slices("2.1", V2_0_9_SEGMENT, V2_0_PAGE, Start::Blocks, heap_with_queues_first(2864)),
    slices("2.0.9", V2_0_9_SEGMENT, V2_0_PAGE, Start::Offset(384), heap_with_queues_first(2864)),
    slices("2.0.7", V2_0_0_SEGMENT, V2_0_PAGE, Start::Offset(128), heap_with_queues_first(2864)),
    slices("2.0", V2_0_0_SEGMENT, V2_0_PAGE, Start::Offset(128), heap_with_queues_first(2856)),
    segments("1.9", V1_8_8_SEGMENT, V1_8_PAGE, heap_with_queues_last(1280)),
    segments("1.8.8", V1_8_8_SEGMENT, V1_8_PAGE, heap_with_queues_last(1264)),
    segments("1.8.7", V1_8_7_SEGMENT, V1_8_PAGE, heap_with_queues_last(1264)),
    segments("1.8", V1_8_2_SEGMENT, V1_6_PAGE, heap_with_queues_first(2864)),
    segments("1.7.9", V1_7_9_SEGMENT, V1_6_PAGE, heap_with_queues_first(2856)),
];

const OLDEST: Layout = segments("1.6", V1_6_SEGMENT, V1_6_PAGE, heap_with_queues_first(2856));

/// Those with queues of four words.
const WITH_MAP: [Layout; 3] = [
    mapped("3.4", PageFields { heap: 56, keys: 56, start: Start::StoredWords(48), ..V3_0_PAGE }),
    mapped("3.2", PageFields { heap: 56, keys: 56, ..V3_0_PAGE }),
    mapped("3.0", V3_0_PAGE),
];

impl Layout {
    /// All that have queues of `queue_bytes` bytes each, the newest first; those without keys before those with.
    pub fn candidates(queue_bytes: u64) -> Vec<Self> {
        let plain: Vec<Self> = if queue_bytes == 24 {
            WITH_SEGMENTS.into_iter().chain([OLDEST]).collect()
        } else {
            WITH_MAP.to_vec()
        };
        let encoded = plain.iter().map(Self::with_keys);
        // A build with padding behind its blocks has one small class more, which stands before the queues.
        let padded = plain.iter().map(|layout| layout.with_keys().with_padding());
        plain.iter().copied().chain(padded).chain(encoded).collect()
    }

    fn with_keys(&self) -> Self {
        let page = PageFields {
            bytes: self.page.bytes + KEYS_BYTES,
            heap: self.page.heap + KEYS_BYTES,
            thread_free: match self.places {
                Places::Map => self.page.thread_free,
                _ => self.page.thread_free + KEYS_BYTES,
            },
            ..self.page
        };
        Self { page, encoded: true, ..*self }
    }

    fn with_padding(&self) -> Self {
        const CLASS_BYTES: u64 = 8;
        let moved = |heap: HeapFields| {
            if heap.delayed < heap.queues {
                return HeapFields { queues: heap.queues + CLASS_BYTES, ..heap };
            }
            HeapFields {
                queues: heap.queues + CLASS_BYTES,
                delayed: heap.delayed + CLASS_BYTES,
                cookie: heap.cookie + CLASS_BYTES,
                keys: heap.keys + CLASS_BYTES,
                page_count: heap.page_count + CLASS_BYTES,
            }
        };
        Self { heap: self.heap.map(moved), ..*self }
    }
}

impl HeapFields {
    /// The part of a heap's record that is read.
    pub fn bytes(&self) -> u64 {
        const QUEUES_BYTES: u64 = 75 * 24;
        (self.queues + QUEUES_BYTES).max(self.page_count + 8)
    }
}
