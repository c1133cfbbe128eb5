//! A snapshot: the summary of one moment, in memory and as a file.
//!
//! It holds sizes, counts, addresses and one bit a block. It never holds a byte of the target's own data. What
//! it says twice, in the summary and block by block, must agree: [`Snapshot::check`] proves it, also in release
//! builds, before a file is written and before two moments are compared. `docs/snapshot-format.md` describes
//! the file.

pub(crate) mod cells;
mod column;
mod error;
mod format;
pub mod inconsistency;
pub mod liveness;
mod read;
mod replacement;
pub mod schema;
mod sections;
pub mod totals;
mod write;

pub use error::SnapshotError;
pub use inconsistency::Inconsistency;
pub use liveness::{LargeTable, Liveness, RunTable, RunView};
pub use read::{from_bytes, is_snapshot, read, read_summary};
pub use replacement::Overwrite;
pub use schema::Summary;
pub use totals::{Cell, CellTotal, LargeTotal, Totals};
pub use write::{to_bytes, write};

/// The summary of one moment and, per allocator, which blocks were live.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What is printed and what `--json` shows.
    pub summary: Summary,
    /// One element for each of `summary.allocators`, in the same order.
    pub liveness: Vec<Liveness>,
}

impl Snapshot {
    /// A snapshot whose tables are sorted and proved.
    ///
    /// # Errors
    /// What does not agree, as [`Snapshot::check`] finds it.
    pub fn checked(summary: Summary, mut liveness: Vec<Liveness>) -> Result<Self, Inconsistency> {
        liveness.iter_mut().for_each(Liveness::sort);
        let snapshot = Self { summary, liveness };
        snapshot.check()?;
        Ok(snapshot)
    }

    /// Proves that every table is sound ([`Liveness::check`]) and adds up to its summary
    /// ([`Totals::reconcile`]).
    ///
    /// # Errors
    /// The first contradiction, with the allocator that it is in.
    pub fn check(&self) -> Result<(), Inconsistency> {
        prove(&self.summary, &self.liveness).map(drop)
    }
}

/// As [`Snapshot::check`], for a summary and tables that are held apart; the totals of each table.
///
/// # Errors
/// The first contradiction, with the allocator that it is in.
pub fn prove(summary: &Summary, liveness: &[Liveness]) -> Result<Vec<Totals>, Inconsistency> {
    let (summaries, tables) = (summary.allocators.len(), liveness.len());
    if summaries != tables {
        return Err(Inconsistency::Allocators { summaries, tables });
    }
    let proved = summary.allocators.iter().zip(liveness).map(|(allocator, liveness)| {
        let totals = liveness.check().map(|()| liveness.totals());
        let proved = totals.and_then(|totals| totals.reconcile(allocator).map(|()| totals));
        proved
            .map_err(|fault| Inconsistency::In { allocator: allocator.name.clone(), fault: Box::new(fault) })
    });
    proved.collect()
}
