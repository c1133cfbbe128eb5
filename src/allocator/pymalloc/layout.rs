//! Layouts: how large arenas and pools are, and what sizes blocks have.
//!
//! Read from `CPython`'s sources (Objects/obmalloc.c up to 3.11, `Include/internal/pycore_obmalloc.h` since): `ARENA_SIZE`,
//! `POOL_SIZE`, `ALIGNMENT`, `struct arena_object`, `struct pool_header`. The records themselves have not changed since
//! 3.6 on 64-bit systems. Version numbers stand here and in `identify.rs` only.
//!
//! A layout is a claim. Nothing here decides whether it fits the target: `identify.rs` does.

/// Bytes of an arena's record.
pub const ARENA_RECORD_BYTES: u64 = 48;
/// Bytes of a pool's header, which begins the pool.
pub const POOL_HEADER_BYTES: u64 = 48;
/// Largest block.
pub const BLOCK_BYTES_MAX: u64 = 512;

/// Sizes of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The first release that has them.
    pub table: &'static str,
    /// Bytes of an arena.
    pub arena_bytes: u64,
    /// Bytes of a pool; pools lie at multiples of it.
    pub pool_bytes: u64,
    /// Distance between two size classes.
    pub step_bytes: u64,
}

/// All that are known, the newest first.
pub const LAYOUTS: [Layout; 3] = [
    Layout { table: "3.10", arena_bytes: 1 << 20, pool_bytes: 16 << 10, step_bytes: 16 },
    Layout { table: "3.7", arena_bytes: 256 << 10, pool_bytes: 4 << 10, step_bytes: 16 },
    Layout { table: "3.6", arena_bytes: 256 << 10, pool_bytes: 4 << 10, step_bytes: 8 },
];

impl Layout {
    /// Bytes of a block of the class with this number; `None` where there is no such class.
    pub fn block_bytes(&self, class: u32) -> Option<u64> {
        let bytes = (u64::from(class) + 1).checked_mul(self.step_bytes)?;
        (bytes <= BLOCK_BYTES_MAX).then_some(bytes)
    }
}
