//! Growth: the difference of two or more snapshots, exact per size class, arena and large block.
//!
//! It knows places and counts and refuses to know which allocator they are of, except as a label. What it says
//! adds up: the rows to the difference of the summaries, born minus died to the delta, stayed plus died to
//! what was there first; [`between`] fails rather than tell anything else.

mod comparison;
mod counts;
pub mod error;
mod notes;
pub mod observation;
pub mod order;
mod places;
pub mod schema;
mod track;
pub mod trend;
mod types;

pub use comparison::between;
pub use error::GrowthError;
pub use observation::Observation;
pub use order::{SortBy, sort_rows};
pub use schema::{Growth, Moment, Row};

/// What blocks have in common that are counted in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Group {
    /// Allocator, shard and size class.
    #[default]
    ShardAndClass,
    /// Allocator and size class.
    Class,
    /// Allocator and shard; the rows' `size_bytes` is 0.
    Shard,
}

/// Refuses two targets that are not one process.
///
/// # Errors
/// They are two, named as given.
pub fn check_same_process(
    (from, one): (&str, &crate::snapshot::schema::Target),
    (to, other): (&str, &crate::snapshot::schema::Target),
) -> Result<(), GrowthError> {
    match observation::Kinship::of(one, other) {
        observation::Kinship::TwoProcesses(difference) => {
            Err(GrowthError::DifferentProcesses { from: from.to_owned(), to: to.to_owned(), difference })
        }
        observation::Kinship::Executed => {
            let difference = "it has executed another program in between".to_owned();
            Err(GrowthError::DifferentProcesses { from: from.to_owned(), to: to.to_owned(), difference })
        }
        observation::Kinship::OneProgram => Ok(()),
    }
}

/// How moments are compared and what is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrowthOptions {
    /// What makes a row.
    pub group: Group,
    /// The order of rows and of large blocks.
    pub sort: SortBy,
    /// Most large blocks that are listed one by one, those of most growth; how many more there are is noted.
    pub large_blocks_max: usize,
    /// Compare the counts of different processes instead of refusing.
    pub allow_different: bool,
}

impl Default for GrowthOptions {
    fn default() -> Self {
        Self {
            group: Group::default(),
            sort: SortBy::default(),
            large_blocks_max: 20,
            allow_different: false,
        }
    }
}
