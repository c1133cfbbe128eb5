//! Why two moments cannot be compared.

use crate::snapshot::Inconsistency;

/// Why there is no growth to tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrowthError {
    /// A difference needs two moments.
    #[error("growth is the difference of at least two moments, there are {moments}")]
    TooFewMoments {
        /// How many there are.
        moments: usize,
    },
    /// The moments are of different processes.
    #[error("{from} and {to} are moments of different processes: {difference}")]
    DifferentProcesses {
        /// What the user named first.
        from: String,
        /// What the user named then.
        to: String,
        /// What tells them apart.
        difference: String,
    },
    /// A snapshot contradicts itself.
    #[error("{moment} contradicts itself: {fault}")]
    Inconsistent {
        /// What the user named.
        moment: String,
        /// What is wrong.
        #[source]
        fault: Inconsistency,
    },
    /// The rows do not add up to what the summaries say.
    #[error("{figure}: the summaries differ by {summaries}, the rows add up to {rows}")]
    Unreconciled {
        /// Which figure.
        figure: &'static str,
        /// Last minus first by the summaries.
        summaries: i128,
        /// Sum over all rows.
        rows: i128,
    },
}

impl GrowthError {
    /// The next thing to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::TooFewMoments { .. } => "name two or more snapshots or processes",
            Self::DifferentProcesses { .. } => {
                "name moments of one process, or allow different ones: then only counts are compared, not blocks"
            }
            Self::Inconsistent { fault, .. } => return fault.hint(),
            Self::Unreconciled { .. } => {
                "take the snapshots anew; if it happens again, report it as a defect"
            }
        };
        Some(hint.to_owned())
    }
}
