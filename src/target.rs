//! What the user named: a live process, a capture or a core. It can be captured and summed up, nothing else.

mod allocators;
mod captured;
mod composition;
mod inspected;
mod profile;
mod recorded;
mod stacks;

pub use captured::{Captured, Contents};
pub use inspected::Inspected;

use crate::allocator::Allocator;
use crate::capture::core_file::{self, CoreFileError, Origin};
use crate::capture::{self, Capture, CaptureError, Extra, Limits, LiveMemory, Spool};
use crate::census::{Residency, ResidencyError, Walked};
use crate::memory::Memory;
use crate::module::{Image, Module, OpenImage};
use crate::snapshot::{Inconsistency, Snapshot};
use allocators::Allocators;
use heaptap_platform::{
    AddressRange, Architecture, MappedFile, Mapping, Pause, Process, ProcessError, ReadError, StopError,
};
use recorded::Recorded;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How often a target that changes too much to be understood is looked at.
const LOOKS_MAX: u64 = 10;

/// What was named, opened.
#[derive(Debug)]
pub struct Target {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Running(Running),
    Recorded(Box<Recorded>),
}

/// A process that runs.
#[derive(Debug)]
struct Running {
    process: Process,
}

/// What a snapshot shall hold and may cost.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest pause of the target.
    pub pause_budget: Duration,
    /// Find out what resident memory is used for; needs no stop, but walks the page table.
    pub residency: bool,
    /// Copy also what a capture file is to hold.
    pub contents: Contents,
    /// Copy also the memory around this address.
    pub at: Option<u64>,
    /// Find out what a part of the blocks of each class is; it is read after the stop.
    pub types: bool,
    /// A target is worth it that has no allocator to be walked, but a heap that is recognised.
    pub known_suffices: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pause_budget: Limits::default().pause,
            residency: true,
            contents: Contents::Records,
            at: None,
            types: false,
            known_suffices: false,
        }
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
    /// The file is no core that can be read, or cannot be written.
    #[error(transparent)]
    CoreFile(#[from] CoreFileError),
    /// heaptap's own sums do not agree with each other.
    #[error("the sums of the walk contradict each other: {0}")]
    Inconsistent(#[from] Inconsistency),
    /// Copying all of its memory would make it grow.
    #[error(
        "process {pid}: its whole memory cannot be copied without making it grow, as this system does not tell which pages it \
         has touched"
    )]
    NoWholeCore {
        /// The process.
        pid: i32,
    },
    /// It has no allocator that can be walked.
    #[error("{}: no supported allocator found{}", process(*.pid), found(.refused, .others))]
    NoAllocator {
        /// The process.
        pid: i32,
        /// Allocators met that cannot be walked, with the reason.
        refused: Vec<String>,
        /// Other heaps recognised.
        others: Vec<String>,
    },
    /// No allocator has sampled anything.
    #[error("process {pid}: {allocators} has sampled no block that is in use")]
    NoProfile {
        /// The process.
        pid: i32,
        /// The allocators that were found.
        allocators: String,
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

/// A core without notes does not tell which process it is of.
fn process(pid: i32) -> String {
    if pid == 0 { "a process without id".to_owned() } else { format!("process {pid}") }
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
            Self::Capture(CaptureError::Spool(_)) => Some(
                "it needs as much room as the process has memory, twice: choose another file system"
                    .to_owned(),
            ),
            Self::CoreFile(error) => error.hint(),
            Self::Inconsistent(_) => Some("report this: it is an error in heaptap".to_owned()),
            Self::Capture(CaptureError::OverBudget { bytes, .. }) => {
                Some(format!("allow it with --pause-budget {}ms", bytes / 2_000_000 + 5))
            }
            Self::Capture(CaptureError::Expired { .. }) => Some(
                "the target runs on; try again, and give heaptap processor time: run it outside the target's container, or when \
                 less else runs"
                    .to_owned(),
            ),
            Self::Capture(CaptureError::Restless { bytes, .. }) => {
                Some(format!("stop it for all of it with --pause-budget {}ms", bytes / 1_000_000 + 5))
            }
            Self::NoWholeCore { pid } => {
                Some(format!("gcore {pid} writes a whole core, which heaptap reads"))
            }
            Self::NoAllocator { .. } => Some(
                "jemalloc 4.0 to 5.3.1 and its development head, glibc's malloc, mimalloc and gperftools tcmalloc are \
                 supported so far; `heaptap info` tells where the memory of other heaps is"
                    .to_owned(),
            ),
            Self::NoProfile { .. } => Some(
                "jemalloc samples where it is started with MALLOC_CONF=prof:true and built with its profiler; without, \
                 `heaptap record PID` samples from outside"
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
            Self::Capture(
                CaptureError::OverBudget { .. }
                | CaptureError::Restless { .. }
                | CaptureError::Expired { .. },
            ) => 7,
            Self::Capture(CaptureError::Stop(error)) => stop_exit_code(error),
            Self::Capture(CaptureError::Read(error)) | Self::Read(error) => read_exit_code(error),
            Self::Residency(ResidencyError::Process(error)) => process_exit_code(error),
            Self::Residency(ResidencyError::Read(error)) => read_exit_code(error),
            Self::NoAllocator { .. } | Self::NoWholeCore { .. } | Self::NoProfile { .. } => 5,
            Self::LayoutContradicted { .. }
            | Self::Inconsistent(_)
            | Self::CoreFile(_)
            | Self::Capture(CaptureError::Spool(_)) => 6,
        }
    }
}

const fn process_exit_code(error: &ProcessError) -> u8 {
    match error {
        ProcessError::NotFound { .. }
        | ProcessError::Gone { .. }
        | ProcessError::Replaced { .. }
        | ProcessError::Zombie { .. } => 3,
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
        ReadError::NotStopped { reason, .. } => stop_exit_code(reason),
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
    /// Opens what the user named: a number is a process, anything else a file.
    ///
    /// # Errors
    /// There is no such process or file, or it cannot be used.
    pub fn open(spec: &str) -> Result<Self, TargetError> {
        let source = match spec.parse() {
            Ok(pid) => Source::Running(Running { process: Process::open(pid)? }),
            Err(_) if Path::new(spec).exists() => {
                Source::Recorded(Box::new(Recorded::open(Path::new(spec))?))
            }
            Err(_) => return Err(TargetError::NotATarget { spec: spec.to_owned() }),
        };
        Ok(Self { source })
    }

    /// A target of a core file's bytes, not compressed; `path` is named in errors.
    ///
    /// # Errors
    /// They are no core that can be read.
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, TargetError> {
        let recorded = Recorded::of(core_file::from_bytes(bytes, path)?);
        Ok(Self { source: Source::Recorded(Box::new(recorded)) })
    }

    /// Looks for the files of a recorded target's modules below `sysroot`; a running one brings its own root.
    #[must_use]
    pub fn below(mut self, sysroot: &Path) -> Self {
        if let Source::Recorded(recorded) = &mut self.source {
            sysroot.clone_into(&mut recorded.sysroot);
        }
        self
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        match &self.source {
            Source::Running(running) => running.process.pid(),
            Source::Recorded(recorded) => recorded.pid(),
        }
    }

    /// Whether it still runs what it ran when it was opened: false once it has ended or executed a program, and
    /// for files.
    pub fn is_current(&self) -> bool {
        match &self.source {
            Source::Running(running) => running.process.check_same().is_ok(),
            Source::Recorded(_) => false,
        }
    }

    /// Stops the target for as short as possible, or reads what was recorded, and sums up its heap.
    ///
    /// # Errors
    /// The target is gone, cannot be stopped or read, or has no heap that can be walked.
    pub fn snapshot(&self, options: &Options) -> Result<Snapshot, TargetError> {
        match &self.source {
            Source::Running(running) => running.snapshot(options).map_err(|error| running.explain(error)),
            Source::Recorded(recorded) => {
                let captured = recorded.captured(Contents::Records, options.known_suffices)?;
                let walked = captured.walk()?;
                let memory = &captured.capture.memory;
                let types =
                    if options.types { composition::types(&captured, &walked, memory) } else { Vec::new() };
                let mut snapshot = captured.snapshot(walked, None)?;
                snapshot.summary.types = types;
                Ok(snapshot)
            }
        }
    }

    /// All that one stop shows, or that was recorded.
    ///
    /// # Errors
    /// As for [`Target::snapshot`].
    pub fn capture(&self, options: &Options) -> Result<Captured, TargetError> {
        match &self.source {
            Source::Running(running) => {
                let walked = running.walk(options, None).map_err(|error| running.explain(error));
                walked.map(|(captured, _)| captured)
            }
            Source::Recorded(recorded) => recorded.captured(options.contents, options.known_suffices),
        }
    }

    /// The same with all private memory, which is kept in a file without a name in `folder`: what the stop has no time
    /// for is read around it.
    ///
    /// # Errors
    /// As for [`Target::snapshot`]; there is no room in `folder`.
    pub fn capture_whole(&self, options: &Options, folder: &Path) -> Result<Captured, TargetError> {
        let Source::Running(running) = &self.source else { return self.capture(options) };
        if !running.process.page_table()?.tells_pages() {
            return Err(TargetError::NoWholeCore { pid: self.pid() });
        }
        let (captured, _) = running.walk(options, Some(folder)).map_err(|error| running.explain(error))?;
        Ok(captured.completed()?)
    }
}

impl Running {
    /// Memory that is gone does not tell whether the process ended or executed another program.
    fn explain(&self, error: TargetError) -> TargetError {
        let is_gone = matches!(
            error,
            TargetError::Read(ReadError::Gone { .. })
                | TargetError::Capture(CaptureError::Read(ReadError::Gone { .. }))
                | TargetError::Residency(ResidencyError::Read(ReadError::Gone { .. }))
        );
        match self.process.check_same() {
            Err(cause) if is_gone => cause.into(),
            _ => error,
        }
    }

    fn snapshot(&self, options: &Options) -> Result<Snapshot, TargetError> {
        let (captured, walked) = self.walk(options, None)?;
        let residency = if options.residency {
            let stacks: Vec<u64> =
                captured.capture.threads.iter().map(|thread| thread.registers.stack_pointer).collect();
            Some(Residency::measure(&self.process, &walked, &captured.known, &stacks)?)
        } else {
            None
        };
        let types = if options.types {
            let live = LiveMemory::new(self.process.memory(), self.process.page_table()?);
            composition::types(&captured, &walked, &live)
        } else {
            Vec::new()
        };
        self.process.check_same()?;
        let mut snapshot = captured.snapshot(walked, residency)?;
        snapshot.summary.types = types;
        Ok(snapshot)
    }

    /// Prepares, captures and walks. What is learnt of a running target, it may change meanwhile: then nothing seems
    /// to fit, or a wrong layout does and the walk tells. In both cases all begins again. With `folder` all private memory is
    /// kept there.
    fn walk(&self, options: &Options, folder: Option<&Path>) -> Result<(Captured, Vec<Walked>), TargetError> {
        let mut earlier: Vec<Pause> = Vec::new();
        let mut looks = 0;
        loop {
            looks += 1;
            let prepared = self.prepare()?;
            // Read before, since what was prepared goes into the capture.
            let mappings = prepared.mappings.clone();
            let mut captured = match self.captured(prepared, options, folder) {
                Err(TargetError::NoAllocator { refused, .. })
                    if looks < LOOKS_MAX && (!refused.is_empty() || self.process.mappings()? != mappings) =>
                {
                    std::thread::sleep(Duration::from_millis(looks));
                    continue;
                }
                other => other?,
            };
            captured.capture.pauses.splice(0..0, earlier);
            match captured.walk() {
                Err(TargetError::LayoutContradicted { .. }) if looks < LOOKS_MAX => {
                    earlier = captured.capture.pauses;
                }
                walked => return Ok((captured, walked?)),
            }
        }
    }

    fn captured(
        &self,
        prepared: Prepared,
        options: &Options,
        folder: Option<&Path>,
    ) -> Result<Captured, TargetError> {
        let limits = Limits { pause: options.pause_budget, ..Limits::default() };
        let mut allocators = self.find(&prepared, options.known_suffices)?;
        if options.contents == Contents::Profile {
            allocators.include_profiles();
        }
        let mut extra = prepared.extra(&allocators, options);
        let read = |folder| Spool::read(&prepared.live, &prepared.mappings, folder);
        let mut spool = folder.map(read).transpose()?;
        extra.wishes = spool.as_ref().map(Spool::wishes).unwrap_or_default();
        let mut capture = self.capture(&prepared, &mut allocators, &extra, limits)?;
        let mut kept = extra.of_capture(&capture);
        if let Some(spool) = &mut spool {
            spool.compare(&prepared.live, &capture.memory)?;
            spool.changed().clone_into(&mut capture.changed);
            capture.notes.extend(spool.notes());
            kept.extend(spool.ranges());
        }
        let origin = self.origin(&prepared, &capture);
        let thread_names = self.thread_names(&capture, options.contents);
        Ok(Captured {
            kind: None,
            origin,
            kept,
            spool,
            thread_names,
            capture,
            mappings: prepared.mappings,
            modules: prepared.modules,
            auxiliary_vector: prepared.auxiliary_vector,
            allocators: allocators.walkable,
            known: allocators.known,
            contents: options.contents,
        })
    }

    /// The threads' names, which only a file needs.
    fn thread_names(&self, capture: &Capture, contents: Contents) -> BTreeMap<i32, String> {
        if contents == Contents::Records {
            return BTreeMap::new();
        }
        let ids = capture.threads.iter().map(|thread| thread.tid);
        ids.filter_map(|tid| Some((tid, self.process.thread_name(tid)?))).collect()
    }

    fn prepare(&self) -> Result<Prepared, TargetError> {
        let mappings = self.process.mappings()?;
        let mut modules = Module::all(&mappings, &self.process);
        let live = LiveMemory::new(self.process.memory(), self.process.page_table()?);
        for module in &mut modules {
            if Allocators::may_be_in(module) {
                module.find_debug(&self.process);
            }
        }
        let auxiliary_vector = self.process.auxiliary_vector()?;
        Ok(Prepared { mappings, modules, auxiliary_vector, live })
    }

    fn find(&self, prepared: &Prepared, known_suffices: bool) -> Result<Allocators, TargetError> {
        let Prepared { modules, mappings, live, .. } = prepared;
        let found = Allocators::find(self.process.pid(), modules, mappings, live, known_suffices);
        match prepared.live.failure() {
            Some(failure) => Err(failure.into()),
            None => found,
        }
    }

    fn capture(
        &self,
        prepared: &Prepared,
        allocators: &mut Allocators,
        extra: &Extra,
        limits: Limits,
    ) -> Result<Capture, TargetError> {
        let mut pauses: Vec<Pause> = Vec::new();
        let mut threads = Vec::new();
        if allocators.need_thread_pointers(&prepared.live) {
            let survey = capture::survey(&self.process, limits)?;
            threads = survey.threads;
            pauses.push(survey.pause);
            allocators.learn_threads(&prepared.live, &threads);
        }
        let borrowed: Vec<&dyn Allocator> = allocators.walkable.iter().map(AsRef::as_ref).collect();
        let mut capture = capture::take(&self.process, &prepared.live, &borrowed, &threads, extra, limits)?;
        pauses.splice(0..0, self.process.take_read_pauses());
        capture.pauses.splice(0..0, pauses);
        capture.lacks.extend(allocators.refused.iter().cloned());
        Ok(capture)
    }

    fn origin(&self, prepared: &Prepared, capture: &Capture) -> Origin {
        let exe = self.process.executable().map(|path| path.display().to_string()).unwrap_or_default();
        let main = prepared.modules.iter().find(|module| module.path.to_string_lossy() == exe);
        let first = capture.threads.first().map(|thread| thread.registers.architecture);
        Origin {
            pid: self.process.pid(),
            name: self.process.name().to_owned(),
            build_id: main.and_then(|module| module.image.as_ref()?.build_id()),
            exe,
            os: heaptap_platform::OPERATING_SYSTEM.to_owned(),
            architecture: first.or(self.process.architecture()).unwrap_or(Architecture::X86_64),
            start_ticks: Some(self.process.start_time_ticks()),
            boot_id: Some(self.process.boot_id().to_owned()),
        }
    }
}

/// What is learnt before the stop.
struct Prepared {
    mappings: Vec<Mapping>,
    modules: Vec<Module>,
    auxiliary_vector: Vec<(u64, u64)>,
    live: LiveMemory,
}

/// What is copied of the memory around an address.
fn around(address: u64) -> AddressRange {
    const AROUND_BYTES: u64 = 16 << 10;
    let (start, end) = (address.saturating_sub(AROUND_BYTES), address.saturating_add(AROUND_BYTES));
    AddressRange { start, end }.page_aligned(4096)
}

impl Prepared {
    fn extra(&self, allocators: &Allocators, options: &Options) -> Extra {
        let Self { mappings, modules, auxiliary_vector, live } = self;
        let mut extra = extra(live, mappings, modules, auxiliary_vector, allocators, options.contents);
        extra.ranges.extend(options.at.map(around));
        extra
    }
}

/// What a capture file is to hold besides the allocators' records.
fn extra(
    memory: &dyn Memory,
    mappings: &[Mapping],
    modules: &[Module],
    auxiliary_vector: &[(u64, u64)],
    allocators: &Allocators,
    contents: Contents,
) -> Extra {
    const STACK_TOP_BYTES: u64 = 64 << 10;
    const STACK_BYTES_MAX: u64 = 8 << 20;
    let mut extra = Extra::default();
    if !matches!(contents, Contents::Records | Contents::Profile) {
        extra.ranges = capture::module_lists(memory, auxiliary_vector);
    }
    if matches!(contents, Contents::Data | Contents::Full) {
        extra.stack_top_bytes = STACK_TOP_BYTES;
        extra.stack_bytes_max = STACK_BYTES_MAX;
        let private = |mapping: &&Mapping| mapping.writable && !mapping.shared;
        extra.writable = mappings.iter().filter(private).map(|mapping| mapping.range).collect();
        extra.ranges.extend(roots_data(modules, allocators));
    }
    extra
}

/// The writable data of the modules that hold allocators' roots.
fn roots_data(modules: &[Module], allocators: &Allocators) -> Vec<AddressRange> {
    let holds_roots = |module: &&Module| {
        let path = module.path.display().to_string();
        allocators.walkable.iter().any(|allocator| allocator.module() == path)
    };
    modules.iter().filter(holds_roots).flat_map(|module| module.writable.iter().copied()).collect()
}
