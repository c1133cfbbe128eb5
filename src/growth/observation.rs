//! One of the moments to compare, and whether two are of one process.

use super::schema::Moment;
use crate::snapshot::schema::Target;
use crate::snapshot::{Liveness, Snapshot, Summary};

/// A moment under the name that the user knows it by.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// What the user named: a file or a process id.
    pub source: &'a str,
    /// Its totals.
    pub summary: &'a Summary,
    /// Its blocks. Only those of the first and the last moment are looked at.
    pub liveness: Option<&'a [Liveness]>,
}

impl<'a> Observation<'a> {
    /// A moment with all of its blocks.
    pub fn of(source: &'a str, snapshot: &'a Snapshot) -> Self {
        Self { source, summary: &snapshot.summary, liveness: Some(&snapshot.liveness) }
    }

    /// A moment of which only the totals are known, which is enough between the first and the last.
    pub fn totals_only(source: &'a str, summary: &'a Summary) -> Self {
        Self { source, summary, liveness: None }
    }

    /// What is told of it.
    pub(super) fn moment(&self) -> Moment {
        let allocators = &self.summary.allocators;
        let add = u64::saturating_add;
        Moment {
            source: self.source.to_owned(),
            pid: self.summary.target.pid,
            taken_at: self.summary.taken_at,
            pause_ms: self.summary.pause_ms,
            live_bytes: allocators.iter().map(|allocator| allocator.live_bytes).fold(0, add),
            live_blocks: allocators.iter().map(|allocator| allocator.live_blocks).fold(0, add),
        }
    }
}

/// How two moments belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kinship {
    /// One program in one process: places can be compared.
    OneProgram,
    /// One process, and another program in it: nothing of the first heap is in the second.
    Executed,
    /// Two processes, told apart by this.
    TwoProcesses(String),
}

impl Kinship {
    /// How two targets belong together; what only one of them knows does not tell them apart.
    pub(super) fn of(one: &Target, other: &Target) -> Self {
        if one.boot_id.is_some() && other.boot_id.is_some() && one.boot_id != other.boot_id {
            return Self::TwoProcesses(
                "the machine was started anew between them, or they are two".to_owned(),
            );
        }
        if one.pid != other.pid && one.pid != 0 && other.pid != 0 {
            return Self::TwoProcesses(format!("process {} and process {}", one.pid, other.pid));
        }
        if let (Some(start), Some(other_start)) = (one.start_ticks, other.start_ticks)
            && start != other_start
        {
            return Self::TwoProcesses(format!(
                "process {} started {start} and {other_start} clock ticks after boot",
                one.pid
            ));
        }
        if one.os != other.os || one.arch != other.arch {
            let system = |target: &Target| format!("{} on {}", target.os, target.arch);
            return Self::TwoProcesses(format!("{} and {}", system(one), system(other)));
        }
        match (&one.build_id, &other.build_id) {
            (Some(build_id), Some(other_build_id)) if build_id != other_build_id => Self::Executed,
            _ => Self::OneProgram,
        }
    }
}
