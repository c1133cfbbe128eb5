//! Claims: which address space an allocator holds and what for.

use heaptap_platform::AddressRange;

/// What a range of address space is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// Runs and large blocks that hold at least one live or cached block.
    InUse,
    /// Free, kept, its pages not yet given back.
    Dirty,
    /// Free, kept, its pages given back lazily.
    Muzzy,
    /// Free, kept as address space only.
    Retained,
    /// The allocator's own records.
    Metadata,
}

/// One range and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub range: AddressRange,
    /// What for.
    pub kind: ClaimKind,
}
