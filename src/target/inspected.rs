//! A target opened for a look at its memory: what its stop showed, its memory as it is now, its modules with their symbols.

use super::recorded::ModuleFiles;
use super::{Captured, Contents, Options, Source, Target, TargetError};
use crate::capture::LiveMemory;
use crate::census::Walked;
use crate::content::{ModuleBytes, Sources};
use crate::growth::{self, GrowthError};
use crate::inspection::Subject;
use crate::inspection::schema::{Inspection, SCHEMA};
use crate::memory::Memory;
use crate::snapshot::{Snapshot, schema};
use crate::symbolize::DebugFiles;
use std::collections::BTreeMap;

/// A target that can be looked into.
#[derive(Debug)]
pub struct Inspected {
    captured: Captured,
    walked: Vec<Walked>,
    /// Of a running process: its memory as it is now.
    live: Option<LiveMemory>,
    files: Vec<DebugFiles>,
    names: BTreeMap<i32, String>,
}

impl Target {
    /// Stops the target for as short as possible, or reads what was recorded, and finds all blocks.
    ///
    /// # Errors
    /// As for [`Target::snapshot`].
    pub fn inspect(&self, options: &Options) -> Result<Inspected, TargetError> {
        match &self.source {
            Source::Running(running) => {
                let (captured, walked) =
                    running.walk(options, None).map_err(|error| running.explain(error))?;
                let process = &running.process;
                process.check_same()?;
                let live = LiveMemory::new(process.memory(), process.page_table()?);
                let files = captured.modules.iter().map(|module| DebugFiles::find(module, process, false));
                let tids = captured.capture.threads.iter().map(|thread| thread.tid);
                let names = tids.filter_map(|tid| Some((tid, process.thread_name(tid)?))).collect();
                Ok(Inspected { files: files.collect(), names, live: Some(live), captured, walked })
            }
            Source::Recorded(recorded) => {
                let captured = recorded.captured(Contents::Records, false)?;
                let walked = captured.walk()?;
                let open = ModuleFiles::new(recorded);
                let files = captured.modules.iter().map(|module| DebugFiles::find(module, &open, false));
                Ok(Inspected { files: files.collect(), names: BTreeMap::new(), live: None, captured, walked })
            }
        }
    }
}

impl Inspected {
    /// Lets `ask` look, and completes what it found by whose moment it is.
    pub fn look<T>(&self, ask: impl FnOnce(&Subject<'_>) -> T) -> T {
        let modules = ModuleBytes::new(&self.captured.modules);
        let mut sources: Vec<&dyn Memory> = vec![&self.captured.capture.memory];
        sources.extend(self.live.as_ref().map(|live| live as &dyn Memory));
        let writable_only = Sources(sources.clone());
        sources.push(&modules);
        let memory = Present { bytes: Sources(sources), present: writable_only };
        ask(&Subject {
            memory: &memory,
            mappings: &self.captured.mappings,
            modules: &self.captured.modules,
            files: &self.files,
            threads: &self.captured.capture.threads,
            walked: &self.walked,
            name_of: &|tid| self.names.get(&tid).cloned(),
        })
    }

    /// Refuses a snapshot of another process.
    ///
    /// # Errors
    /// It is of another.
    pub fn check_since(&self, before: &Snapshot, name: &str) -> Result<(), GrowthError> {
        let now = self.identity();
        growth::check_same_process((name, &before.summary.target), ("the target", &now))
    }

    fn identity(&self) -> schema::Target {
        let Captured { kind, origin, capture, .. } = &self.captured;
        super::captured::identity(*kind, origin, capture.threads.len())
    }

    /// The inspection with whose moment it is of, what the stop cost and what was missing in it.
    #[must_use]
    pub fn completed(&self, inspection: Inspection) -> Inspection {
        let capture = &self.captured.capture;
        let pauses_ms = capture.pauses.iter().map(|pause| pause.stopped_us as f64 / 1e3);
        let missing = capture.lacks.iter().cloned().chain(inspection.missing);
        Inspection {
            schema: SCHEMA.to_owned(),
            target: self.identity(),
            pause_ms: pauses_ms.fold(0.0, f64::max),
            stops: u32::try_from(capture.pauses.len()).unwrap_or(u32::MAX),
            taken_at: capture.taken_at,
            missing: missing.collect(),
            ..inspection
        }
    }
}

/// Bytes also of the modules' files; present is only what is in memory.
struct Present<'a> {
    bytes: Sources<'a>,
    present: Sources<'a>,
}

impl Memory for Present<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), crate::memory::Fault> {
        self.bytes.read(address, bytes)
    }

    fn present(&self, range: heaptap_platform::AddressRange) -> Vec<heaptap_platform::AddressRange> {
        self.present.present(range)
    }
}
