//! Where the threads of a target are: captured or read from a file, unwound, named.

use super::captured::identity;
use super::recorded::{ModuleFiles, Recorded};
use super::{Options, Running, Source, Target, TargetError};
use crate::capture::core_file::{Kind, Origin};
use crate::capture::{self, Capture, Limits};
use crate::memory::Memory;
use crate::module::{Module, OpenImage};
use crate::stacks::{self, schema::Stacks};
use crate::symbolize::{DebugFiles, Symbolizer};
use heaptap_platform::{AddressRange, Mapping, MappingKind};

/// The kernel's code has two or four pages; this is far more.
const KERNEL_CODE_BYTES_MAX: usize = 1 << 20;

impl Target {
    /// Stops the target for as short as possible, or reads what was recorded, and tells where all threads are. Debug
    /// files are looked for below the target's root, and over the network only with `ask_network`.
    ///
    /// # Errors
    /// The target is gone, or cannot be stopped or read.
    pub fn stacks(&self, options: &Options, ask_network: bool) -> Result<Stacks, TargetError> {
        match &self.source {
            Source::Running(running) => running.stacks(options, ask_network),
            Source::Recorded(recorded) => Ok(recorded.stacks(ask_network)),
        }
    }
}

/// What stacks are made from.
struct Moment<'a> {
    kind: Option<Kind>,
    origin: &'a Origin,
    capture: Capture,
    mappings: &'a [Mapping],
    modules: &'a [Module],
    open: &'a dyn OpenImage,
    ask_network: bool,
}

impl Moment<'_> {
    fn stacks(self, name_of: &dyn Fn(i32) -> Option<String>) -> Stacks {
        let code = self.mappings.iter().filter(|mapping| mapping.executable);
        let executable: Vec<AddressRange> = code.map(|mapping| mapping.range).collect();
        let capture = &self.capture;
        let stacks = stacks::unwind_all(&capture.threads, &capture.memory, self.modules, &executable);
        let find = |module| DebugFiles::find(module, self.open, self.ask_network);
        let files: Vec<DebugFiles> = self.modules.iter().map(find).collect();
        let symbolizer = Symbolizer::new(self.modules, &files);
        Stacks {
            schema: stacks::schema::SCHEMA.to_owned(),
            target: identity(self.kind, self.origin, capture.threads.len()),
            pause_ms: capture.pauses.iter().map(|pause| pause.stopped_us).max().unwrap_or(0) as f64 / 1e3,
            taken_at: capture.taken_at,
            groups: stacks::group(capture, &stacks, name_of, &symbolizer),
            missing: self.capture.lacks,
        }
    }
}

impl Running {
    fn stacks(&self, options: &Options, ask_network: bool) -> Result<Stacks, TargetError> {
        let mut prepared = self.prepare()?;
        // These pages are the kernel's own: reading them brings in nothing.
        let memory = self.process.memory();
        let read = |address, bytes: &mut [u8]| memory.read(address, bytes).is_ok();
        prepared.modules.extend(kernel_module(&prepared.mappings, &read));
        let limits = Limits { pause: options.pause_budget, ..Limits::default() };
        let capture = capture::take_stacks(&self.process, &prepared.live, &prepared.mappings, limits)?;
        self.process.check_same()?;
        let origin = self.origin(&prepared, &capture);
        let moment = Moment {
            kind: None,
            origin: &origin,
            capture,
            mappings: &prepared.mappings,
            modules: &prepared.modules,
            open: &self.process,
            ask_network,
        };
        Ok(moment.stacks(&|tid| self.process.thread_name(tid)))
    }
}

impl Recorded {
    fn stacks(&self, ask_network: bool) -> Stacks {
        let file = &self.file;
        let open = ModuleFiles::new(self);
        let mut modules = Module::all(&file.mappings, &open);
        let read = |address, bytes: &mut [u8]| file.capture.memory.read(address, bytes).is_ok();
        modules.extend(kernel_module(&file.mappings, &read));
        let moment = Moment {
            kind: Some(file.kind),
            origin: &file.origin,
            capture: file.capture.clone(),
            mappings: &file.mappings,
            modules: &modules,
            open: &open,
            ask_network,
        };
        let mut stacks = moment.stacks(&|_| None);
        stacks.missing.extend(open.into_remarks());
        stacks
    }
}

/// The kernel's code as `read` shows it; whether the bytes could be had is what that returns.
fn kernel_module(mappings: &[Mapping], read: &dyn Fn(u64, &mut [u8]) -> bool) -> Option<Module> {
    let mapping = mappings.iter().find(|mapping| mapping.kind == MappingKind::Vdso)?;
    let len_bytes = usize::try_from(mapping.range.len_bytes()).ok()?;
    let mut bytes = vec![0; len_bytes.min(KERNEL_CODE_BYTES_MAX)];
    if read(mapping.range.start, &mut bytes) { Module::of_kernel(mapping, bytes) } else { None }
}
