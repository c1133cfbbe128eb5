//! A snapshot: the summary of one moment, in memory and as a file.
//!
//! It holds sizes, counts, addresses and one bit a block. It never holds a byte of the target's own data.

pub mod liveness;
pub mod schema;

pub use liveness::{LargeTable, Liveness, RunTable};
pub use schema::Summary;

/// The summary of one moment and, per allocator, which blocks were live.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What is printed and what `--json` shows.
    pub summary: Summary,
    /// One element for each of `summary.allocators`, in the same order.
    pub liveness: Vec<Liveness>,
}
