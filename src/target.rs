//! What the user named: a live process. It can be captured and summed up, nothing else.

use crate::allocator::jemalloc::identify;
use crate::allocator::{AddressSpace, Allocator, glibc};
use crate::capture::{self, Capture, CaptureError, Limits, LiveMemory};
use crate::census::{self, Residency, ResidencyError};
use crate::module::{Image, Module, OpenImage};
use crate::snapshot::schema;
use crate::snapshot::{Inconsistency, Snapshot};
use heaptap_platform::{MappedFile, Mapping, Pause, Process, ProcessError, ReadError, StopError};
use std::path::Path;
use std::time::Duration;

/// How often a target that changes too much to be understood is looked at.
const LOOKS_MAX: u64 = 5;

/// Blocks that a thread moves at once, at most, when it fills or empties its cache.
const MOVED_AT_ONCE_MAX: u64 = 200;

/// A process that runs.
#[derive(Debug)]
pub struct Target {
    process: Process,
}

/// What a snapshot shall hold and may cost.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest pause of the target.
    pub pause_budget: Duration,
    /// Find out what resident memory is used for; needs no stop, but walks the page table.
    pub residency: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { pause_budget: Limits::default().pause, residency: true }
    }
}

/// Why a target could not be opened or summed up.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// What the user typed names no process.
    #[error("`{spec}` is neither a process id nor a file")]
    NotATarget {
        /// What was typed.
        spec: String,
    },
    /// The process cannot be used.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It could not be stopped or copied.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Its memory could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What resident memory is used for could not be found out.
    #[error(transparent)]
    Residency(#[from] ResidencyError),
    /// heaptap's own sums do not agree with each other.
    #[error("the sums of the walk contradict each other: {0}")]
    Inconsistent(#[from] Inconsistency),
    /// It has no allocator that can be walked.
    #[error("process {pid}: no supported allocator found{}", found(.refused, .others))]
    NoAllocator {
        /// The process.
        pid: i32,
        /// Allocators met that cannot be walked, with the reason.
        refused: Vec<String>,
        /// Other allocators recognised by their names.
        others: Vec<String>,
    },
    /// The walk met so many contradictions that no number of it can be believed.
    #[error(
        "process {pid}: {module}: {broken} of {checked} structures contradict the layout of {version}: {first}"
    )]
    LayoutContradicted {
        /// The process.
        pid: i32,
        /// Module of the allocator.
        module: String,
        /// Its version.
        version: String,
        /// Structures looked at.
        checked: u64,
        /// Structures that broke an invariant.
        broken: u64,
        /// The first contradiction.
        first: String,
    },
}

fn found(refused: &[String], others: &[String]) -> String {
    let mut all = refused.to_vec();
    all.extend(others.iter().cloned());
    if all.is_empty() { String::new() } else { format!("; found: {}", all.join("; ")) }
}

impl TargetError {
    /// The next thing to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotATarget { .. } => {
                Some("give the number of a process, as `pgrep NAME` prints it, or a snapshot file".to_owned())
            }
            Self::Process(error) => error.hint(),
            Self::Capture(CaptureError::Stop(error)) => error.hint(),
            Self::Capture(CaptureError::Read(error)) | Self::Read(error) => error.hint().map(str::to_owned),
            Self::Residency(ResidencyError::Process(error)) => error.hint(),
            Self::Residency(ResidencyError::Read(error)) => error.hint().map(str::to_owned),
            Self::Inconsistent(_) => Some("report this: it is an error in heaptap".to_owned()),
            Self::Capture(CaptureError::OverBudget { bytes, .. }) => {
                Some(format!("allow it with --pause-budget {}ms", bytes / 2_000_000 + 5))
            }
            Self::NoAllocator { .. } => Some(
                "jemalloc 5.0 to 5.3.1 and its development head and glibc's malloc are supported so far"
                    .to_owned(),
            ),
            Self::LayoutContradicted { .. } => Some(
                "install the debug symbols of that module, so that the layout can be read from them"
                    .to_owned(),
            ),
        }
    }

    /// The exit code that stands for it: see docs/report-format.md.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotATarget { .. } => 2,
            Self::Process(error) => process_exit_code(error),
            Self::Capture(CaptureError::OverBudget { .. }) => 7,
            Self::Capture(CaptureError::Stop(error)) => stop_exit_code(error),
            Self::Capture(CaptureError::Read(error)) | Self::Read(error) => read_exit_code(error),
            Self::Residency(ResidencyError::Process(error)) => process_exit_code(error),
            Self::Residency(ResidencyError::Read(error)) => read_exit_code(error),
            Self::NoAllocator { .. } => 5,
            Self::LayoutContradicted { .. } | Self::Inconsistent(_) => 6,
        }
    }
}

const fn process_exit_code(error: &ProcessError) -> u8 {
    match error {
        ProcessError::NotFound { .. } | ProcessError::Gone { .. } | ProcessError::Zombie { .. } => 3,
        ProcessError::PermissionDenied { .. } | ProcessError::AlreadyTraced { .. } => 4,
        ProcessError::KernelThread { .. } | ProcessError::ThirtyTwoBit { .. } => 5,
        _ => 2,
    }
}

const fn stop_exit_code(error: &StopError) -> u8 {
    match error {
        StopError::Gone { .. } | StopError::Executed { .. } => 3,
        StopError::AlreadyTraced { .. } | StopError::NotPermitted { .. } => 4,
        _ => 7,
    }
}

const fn read_exit_code(error: &ReadError) -> u8 {
    match error {
        ReadError::Gone { .. } => 3,
        ReadError::NotPermitted { .. } => 4,
        _ => 6,
    }
}

impl OpenImage for Process {
    fn open_module(&self, mapping: &Mapping) -> Option<Image> {
        let file = Self::open_module(self, mapping).ok()?;
        if !file.found_by.is_mapped_file() {
            return None;
        }
        MappedFile::map(&file.file).ok().map(Image::new)
    }

    fn open_in_root(&self, path: &Path) -> Option<Image> {
        let file = Self::open_in_root(self, path).ok()?;
        MappedFile::map(&file).ok().map(Image::new)
    }
}

impl Target {
    /// Opens what the user named.
    pub fn open(spec: &str) -> Result<Self, TargetError> {
        let pid = spec.parse().map_err(|_| TargetError::NotATarget { spec: spec.to_owned() })?;
        Ok(Self { process: Process::open(pid)? })
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Whether it still runs what it ran when it was opened: false once it has ended or executed a program.
    pub fn is_current(&self) -> bool {
        self.process.check_same().is_ok()
    }

    /// Stops the target for as short as possible and sums up its heap.
    pub fn snapshot(&self, options: &Options) -> Result<Snapshot, TargetError> {
        let limits = Limits { pause: options.pause_budget, ..Limits::default() };
        let (prepared, walked, capture) = self.walk(limits)?;
        let residency = if options.residency {
            let stacks: Vec<u64> =
                capture.threads.iter().map(|thread| thread.registers.stack_pointer).collect();
            Some(Residency::measure(&self.process, &walked, &stacks)?)
        } else {
            None
        };
        self.process.check_same()?;
        Ok(census::snapshot(self.identity(&prepared, &capture), &capture, walked, residency)?)
    }

    /// Prepares, captures and walks. What is learnt of a running target, it may change meanwhile: then nothing seems
    /// to fit, or a wrong layout does and the walk tells. In both cases all begins again.
    fn walk(&self, limits: Limits) -> Result<(Prepared, Vec<census::Walked>, Capture), TargetError> {
        let mut earlier: Vec<Pause> = Vec::new();
        let mut looks = 0;
        loop {
            looks += 1;
            let prepared = self.prepare()?;
            let (allocators, mut capture) = match self.capture(&prepared, limits) {
                Err(TargetError::NoAllocator { refused, .. })
                    if looks < LOOKS_MAX && (!refused.is_empty() || self.maps_anew(&prepared)?) =>
                {
                    std::thread::sleep(Duration::from_millis(looks));
                    continue;
                }
                other => other?,
            };
            capture.pauses.splice(0..0, earlier);
            let walked: Vec<census::Walked> =
                allocators.iter().map(|allocator| census::Walked::of(allocator.as_ref(), &capture)).collect();
            match walked.iter().find_map(|walk| self.contradiction(walk, &capture)) {
                None => return Ok((prepared, walked, capture)),
                Some(refused) if looks >= LOOKS_MAX => return Err(refused),
                Some(_) => earlier = capture.pauses,
            }
        }
    }

    /// Whether its mappings have changed since, as they do while a program is being loaded.
    fn maps_anew(&self, prepared: &Prepared) -> Result<bool, TargetError> {
        Ok(self.process.mappings()? != prepared.mappings)
    }

    fn prepare(&self) -> Result<Prepared, TargetError> {
        let mappings = self.process.mappings()?;
        let mut modules = Module::all(&mappings, &self.process);
        let live = LiveMemory::new(self.process.memory(), self.process.page_table()?);
        for module in &mut modules {
            if identify::is_candidate(module) || glibc::identify::is_candidate(module) {
                module.find_debug(&self.process);
            }
        }
        Ok(Prepared { mappings, modules, live })
    }

    fn capture(
        &self,
        prepared: &Prepared,
        limits: Limits,
    ) -> Result<(Vec<Box<dyn Allocator>>, Capture), TargetError> {
        let space = AddressSpace { modules: &prepared.modules, mappings: &prepared.mappings };
        let findings = identify::find(space, &prepared.live);
        let glibc = glibc::identify::find(space, &prepared.live);
        if let Some(failure) = prepared.live.failure() {
            return Err(failure.into());
        }
        let mut allocators: Vec<Box<dyn Allocator>> =
            findings.found.into_iter().map(|found| Box::new(found) as Box<dyn Allocator>).collect();
        allocators.extend(glibc.found.into_iter().map(|found| Box::new(found) as Box<dyn Allocator>));
        let refused: Vec<String> = findings
            .refused
            .iter()
            .map(ToString::to_string)
            .chain(glibc.refused.iter().map(ToString::to_string))
            .collect();
        let others = crate::allocator::known::recognise(&prepared.modules);
        if allocators.is_empty() {
            return Err(TargetError::NoAllocator { pid: self.pid(), refused, others });
        }
        let mut pauses: Vec<Pause> = Vec::new();
        let mut threads = Vec::new();
        if allocators.iter().any(|allocator| allocator.needs_thread_pointers(&prepared.live)) {
            let survey = capture::survey(&self.process, limits)?;
            threads = survey.threads;
            pauses.push(survey.pause);
            for allocator in &mut allocators {
                if allocator.needs_thread_pointers(&prepared.live) {
                    allocator.learn_threads(&prepared.live, &threads);
                }
            }
        }
        let borrowed: Vec<&dyn Allocator> = allocators.iter().map(AsRef::as_ref).collect();
        let mut capture = capture::take(&self.process, &prepared.live, &borrowed, &threads, limits)?;
        capture.pauses.splice(0..0, pauses);
        capture.lacks.extend(refused.into_iter().chain(others));
        Ok((allocators, capture))
    }

    /// Why a walk cannot be believed, if it cannot.
    fn contradiction(&self, walk: &census::Walked, capture: &Capture) -> Option<TargetError> {
        let outcome = &walk.outcome;
        // A lock that was held at the stop explains a few slabs in the middle of a change, not more.
        let explained = (outcome.locked_bins + 2).max(outcome.structures_checked / 10_000);
        let sum = walk.liveness.totals().sum();
        let workers = outcome.locked_bins.saturating_add(capture.threads.len() as u64);
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
            pid: self.pid(),
            module: walk.module.clone(),
            version: walk.version.clone(),
            checked,
            broken,
            first,
        })
    }

    fn identity(&self, prepared: &Prepared, capture: &Capture) -> schema::Target {
        let exe = self.process.executable().map(|path| path.display().to_string()).unwrap_or_default();
        let main = prepared.modules.iter().find(|module| module.path.to_string_lossy() == exe);
        let architecture = capture.threads.first().map(|thread| thread.registers.architecture);
        schema::Target {
            kind: "live".to_owned(),
            pid: self.pid(),
            name: self.process.name().to_owned(),
            exe,
            os: heaptap_platform::OPERATING_SYSTEM.to_owned(),
            arch: architecture.map_or("", |architecture| architecture.name()).to_owned(),
            threads: u32::try_from(capture.threads.len()).unwrap_or(u32::MAX),
            start_ticks: Some(self.process.start_time_ticks()),
            boot_id: Some(self.process.boot_id().to_owned()),
            build_id: main.and_then(|module| module.image.as_ref()?.build_id()),
        }
    }
}

/// What is learnt before the stop.
struct Prepared {
    mappings: Vec<Mapping>,
    modules: Vec<Module>,
    live: LiveMemory,
}
