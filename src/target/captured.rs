//! One moment of a target, whether it was just stopped or read from a file: all that is left is to think.

use super::TargetError;
use crate::allocator::known::KnownHeap;
use crate::allocator::{Allocator, WalkOutcome};
use crate::capture::core_file::{self, CoreFileError, Kind, ModuleNote, Origin, Recording};
use crate::capture::{AroundStop, Capture, CaptureError, CapturedMemory, Spool};
use crate::census::{self, Residency, Walked};
use crate::module::{Module, loaded};
use crate::snapshot::{Inconsistency, Snapshot, schema};
use heaptap_platform::{AddressRange, Mapping};
use std::collections::BTreeMap;
use std::path::Path;

/// Blocks that a thread moves at once, at most, when it fills or empties its cache.
const MOVED_AT_ONCE_MAX: u64 = 200;

/// What of a target is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// The allocators' records: all that a census needs.
    Records,
    /// Those, and what an allocator's own profiler keeps.
    Profile,
    /// Those and the loader's list of modules, for a file that tells nothing of the target's own data.
    NoData,
    /// Those, the stacks in use and the writable data of the modules that the allocators are in.
    Data,
    /// All private memory.
    Full,
}

/// One moment of a target.
#[derive(Debug)]
pub struct Captured {
    /// Who recorded it; `None` where it was just taken.
    pub(super) kind: Option<Kind>,
    /// The process.
    pub origin: Origin,
    /// Bytes and threads.
    pub capture: Capture,
    /// Mappings in address order.
    pub mappings: Vec<Mapping>,
    /// Modules in address order.
    pub modules: Vec<Module>,
    /// The auxiliary vector.
    pub auxiliary_vector: Vec<(u64, u64)>,
    /// Names of threads by their ids, where they are kept.
    pub(super) thread_names: BTreeMap<i32, String>,
    /// The allocators found, ready to be walked.
    pub allocators: Vec<Box<dyn Allocator>>,
    /// Heaps that are recognised, and never walked.
    pub known: Vec<KnownHeap>,
    /// What was copied besides the allocators' records.
    pub(super) kept: Vec<AddressRange>,
    /// What was asked for.
    pub(super) contents: Contents,
    /// All private memory, where that was asked for.
    pub(super) spool: Option<Spool>,
}

impl Captured {
    /// Walks every allocator.
    ///
    /// # Errors
    /// A layout that was believed is contradicted by what the walk met.
    pub fn walk(&self) -> Result<Vec<Walked>, TargetError> {
        let walked: Vec<Walked> =
            self.allocators.iter().map(|allocator| Walked::of(allocator.as_ref(), &self.capture)).collect();
        match walked.iter().find_map(|walk| self.contradiction(walk)) {
            Some(contradiction) => Err(contradiction),
            None => Ok(walked),
        }
    }

    /// What was read around the stop put to what was read in it.
    pub(super) fn completed(mut self) -> Result<Self, CaptureError> {
        if let Some(spool) = self.spool.take() {
            self.capture.memory = spool.complete(&self.capture.memory)?;
        }
        Ok(self)
    }

    /// Adds up what was walked.
    ///
    /// # Errors
    /// The sums contradict each other.
    pub fn snapshot(
        &self,
        walked: Vec<Walked>,
        residency: Option<Residency>,
    ) -> Result<Snapshot, Inconsistency> {
        let identity = identity(self.kind, &self.origin, self.capture.threads.len());
        census::snapshot(identity, &self.capture, walked, &self.known, residency)
    }

    /// Writes it as an ELF core: see [`core_file::to_file`].
    ///
    /// # Errors
    /// The operating system refused, or the name is taken and `replace` is not set.
    pub fn write(&self, path: &Path, replace: bool) -> Result<(), CoreFileError> {
        core_file::to_file(&self.recording(), path, replace)
    }

    /// What is written to a file.
    pub fn recording(&self) -> Recording<'_> {
        let threads = self.capture.thread_pointers();
        let all = self.allocators.iter().map(AsRef::as_ref);
        let (kept, left_out): (Vec<&dyn Allocator>, Vec<&dyn Allocator>) =
            all.partition(|allocator| self.contents != Contents::NoData || !allocator.records_hold_data());
        let records = kept.iter().flat_map(|allocator| allocator.metadata(&self.capture.memory, &threads));
        let mut holds = vec!["the records of the allocators, the registers of all threads".to_owned()];
        holds.extend(left_out.iter().map(|allocator| {
            format!("not the records of {}: they lie among the program's own data", allocator.name())
        }));
        if self.contents == Contents::Data {
            holds.push("the threads' stacks in use, the writable data of the allocators' modules".to_owned());
        }
        if self.contents == Contents::Full {
            holds.push("all private memory that the process has written".to_owned());
        }
        Recording {
            origin: &self.origin,
            capture: &self.capture,
            mappings: &self.mappings,
            modules: self.modules.iter().map(|module| module_note(module, &self.capture.memory)).collect(),
            thread_names: &self.thread_names,
            auxiliary_vector: &self.auxiliary_vector,
            kept: records.chain(self.kept.iter().copied()).collect(),
            holds,
            page_bytes: heaptap_platform::page_size_bytes(),
        }
    }

    /// Why a walk cannot be believed, if it cannot.
    fn contradiction(&self, walk: &Walked) -> Option<TargetError> {
        let outcome = &walk.outcome;
        if let Some(around) = self.capture.around {
            return self.restlessness(outcome, around);
        }
        // A lock that was held at the stop explains a few slabs in the middle of a change, not more.
        let explained = (outcome.locked_bins + 2).max(outcome.structures_checked / 10_000);
        let sum = walk.liveness.totals().sum();
        let workers = outcome.locked_bins.saturating_add(self.capture.threads.len() as u64);
        let moved_max = (sum.live_blocks + sum.cached_blocks).saturating_add(workers * MOVED_AT_ONCE_MAX);
        let (checked, broken, first) = if outcome.structures_broken > explained {
            let first = outcome.anomalies.first().map(|first| first.what.clone());
            (outcome.structures_checked, outcome.structures_broken, first.unwrap_or_default())
        } else if outcome.blocks_in_motion_max > moved_max {
            let first = "its own counters differ by more blocks than there are".to_owned();
            (outcome.cells_compared, outcome.cells_differing, first)
        } else {
            return None;
        };
        Some(TargetError::LayoutContradicted {
            pid: self.origin.pid,
            module: walk.module.clone(),
            version: walk.version.clone(),
            checked,
            broken,
            first,
        })
    }

    /// What was read around the stop and not verified is told; if it is too much, nothing is worth telling.
    fn restlessness(&self, outcome: &WalkOutcome, around: AroundStop) -> Option<TargetError> {
        const DOUBTFUL_PERCENT_MAX: u64 = 10;
        let (doubtful, blocks) = (outcome.blocks_in_motion_max, outcome.structures_checked);
        if doubtful.saturating_mul(100) <= blocks.saturating_mul(DOUBTFUL_PERCENT_MAX) {
            return None;
        }
        let AroundStop { bytes, budget } = around;
        Some(CaptureError::Restless { pid: self.origin.pid, bytes, budget, doubtful, blocks }.into())
    }
}

/// The target as reports name it.
pub(super) fn identity(kind: Option<Kind>, origin: &Origin, threads: usize) -> schema::Target {
    schema::Target {
        kind: kind.map_or("live", Kind::name).to_owned(),
        pid: origin.pid,
        name: origin.name.clone(),
        exe: origin.exe.clone(),
        os: origin.os.clone(),
        arch: origin.architecture.name().to_owned(),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        start_ticks: origin.start_ticks,
        boot_id: origin.boot_id.clone(),
        build_id: origin.build_id.clone(),
    }
}

/// A module whose file is not here has its build id in memory, if the headers are there.
fn module_note(module: &Module, memory: &CapturedMemory) -> ModuleNote {
    let build_id = match &module.image {
        Some(image) => image.build_id(),
        None => loaded::build_id(memory, module.range.start),
    };
    ModuleNote { path: module.path.clone(), start: module.range.start, build_id }
}
