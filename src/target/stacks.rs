//! Where the threads of a target are: captured or read from a file, unwound, named.

use super::captured::identity;
use super::recorded::{ModuleFiles, Recorded};
use super::{Options, Running, Source, Target, TargetError};
use crate::capture::core_file::{Kind, Origin};
use crate::capture::{self, Capture, Limits, LiveMemory};
use crate::memory::Memory;
use crate::module::{Module, OpenImage};
use crate::stacks::{self, schema::Stacks};
use crate::symbolize::{DebugFiles, Symbolizer};
use heaptap_platform::{AddressRange, Mapping, MappingKind, own_kernel_code};

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
            Source::Running(running) => {
                running.stacks(options, ask_network).map_err(|error| running.explain(error))
            }
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
        let read = |address, bytes: &mut [u8]| read_kernel_code(&prepared.live, address, bytes);
        let kernel_module = kernel_module(&prepared.mappings, &read);
        prepared.modules.extend(kernel_module);
        let limits = Limits { pause: options.pause_budget, ..Limits::default() };
        let mut capture = capture::take_stacks(&self.process, &prepared.live, &prepared.mappings, limits)?;
        capture.pauses.splice(0..0, self.process.take_read_pauses());
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
        let mut stacks = moment.stacks(&|tid| file.thread_names.get(&tid).cloned());
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

/// Fills `bytes` with the kernel's code, which is mapped in heaptap itself as well: what the target has not touched of it
/// would become resident there if it were read. What the target has touched must be the same in both.
fn read_kernel_code(live: &LiveMemory, address: u64, bytes: &mut [u8]) -> bool {
    let own = own_kernel_code();
    let Some(own) = own.as_deref().and_then(|own| own.get(..bytes.len())) else { return false };
    let Some(range) = AddressRange::with_len(address, bytes.len() as u64) else { return false };
    let present = live.present(range);
    bytes.copy_from_slice(own);
    let is_same = |part: &AddressRange| {
        let place = usize::try_from(part.start - address).unwrap_or(usize::MAX);
        let mut there = vec![0; usize::try_from(part.len_bytes()).unwrap_or(0)];
        live.read(part.start, &mut there).is_ok()
            && own.get(place..).is_some_and(|rest| rest.starts_with(&there))
    };
    !present.is_empty() && present.iter().all(is_same)
}
