//! What the notes of a core say: threads, process, mappings, auxiliary vector.

use super::Origin;
use super::error::CoreFileError;
use super::own_note::{self, CaptureNote};
use super::read;
use heaptap_platform::format::auxiliary_vector::parse_auxiliary_vector;
use heaptap_platform::format::freebsd_core;
use heaptap_platform::format::linux_core::{self, MappedPath, ProcessStatus};
use heaptap_platform::format::maps::parse_maps;
use heaptap_platform::{Architecture, Mapping, MappingKind, Registers, StoppedThread};
use object::LittleEndian;
use object::elf::ProgramHeader64;
use std::collections::BTreeMap;
use std::path::Path;

/// Most threads that a core is believed to have.
const THREADS_MAX: usize = 1 << 20;

/// The key of the program's entry point in the auxiliary vector.
const AT_ENTRY: u64 = 9;
/// That of bytes which the kernel puts on the first stack, on Linux.
const AT_RANDOM: u64 = 25;
/// That of the code which the kernel offers, on Linux.
const AT_SYSINFO_EHDR: u64 = 33;

/// What the notes say.
#[derive(Debug, Default)]
pub(super) struct Notes {
    threads: Vec<Thread>,
    process: Option<ProcessStatus>,
    pub(super) files: Vec<MappedPath>,
    pub(super) auxiliary_vector: Vec<(u64, u64)>,
    pub(super) capture: Option<CaptureNote>,
    pub(super) mappings: Vec<Mapping>,
    /// They are those of a FreeBSD core.
    is_freebsd: bool,
}

#[derive(Debug, Default)]
struct Thread {
    tid: i32,
    registers: Vec<u8>,
    thread_pointer: u64,
    system_call: Option<i32>,
    name: Option<String>,
}

impl Notes {
    /// Takes in one note of the file at `path`.
    pub(super) fn take(
        &mut self,
        owner: &[u8],
        kind: u32,
        descriptor: &[u8],
        offset: u64,
        path: &Path,
    ) -> Result<(), CoreFileError> {
        match (owner, kind) {
            (linux_core::OWNER, linux_core::NT_PRSTATUS) if self.threads.len() < THREADS_MAX => {
                let status = linux_core::parse_thread(descriptor)
                    .ok_or_else(|| CoreFileError::corrupt(path, offset, "a thread's note is too short"))?;
                let registers = status.registers.to_vec();
                self.threads.push(Thread { tid: status.tid, registers, ..Thread::default() });
            }
            (linux_core::OWNER, linux_core::NT_PRPSINFO) => {
                self.process = linux_core::parse_process(descriptor);
            }
            (linux_core::OWNER, linux_core::NT_AUXV) => {
                self.auxiliary_vector = parse_auxiliary_vector(descriptor);
            }
            (linux_core::OWNER, linux_core::NT_FILE) => {
                self.files = linux_core::parse_files(descriptor).unwrap_or_default();
            }
            (linux_core::OWNER_LINUX, linux_core::NT_ARM_TLS) => {
                let pointer = crate::memory::u64_at(descriptor, 0);
                if let (Some(thread), Some(pointer)) = (self.threads.last_mut(), pointer) {
                    thread.thread_pointer = pointer;
                }
            }
            (linux_core::OWNER_LINUX, linux_core::NT_ARM_SYSTEM_CALL) => {
                let number = crate::memory::u32_at(descriptor, 0);
                if let Some(thread) = self.threads.last_mut() {
                    thread.system_call = number.map(u32::cast_signed);
                }
            }
            (own_note::OWNER, own_note::NT_CAPTURE) => {
                let note: CaptureNote = serde_json::from_slice(descriptor).map_err(|error| {
                    CoreFileError::corrupt(path, offset, format!("heaptap's own note: {error}"))
                })?;
                if note.schema != own_note::SCHEMA {
                    return Err(CoreFileError::Newer { path: path.to_owned(), schema: note.schema });
                }
                self.capture = Some(note);
            }
            (own_note::OWNER, own_note::NT_MAPPINGS) => {
                let (mut mappings, _) = parse_maps(descriptor);
                mappings.sort_by_key(|mapping| mapping.range);
                self.mappings = mappings;
            }
            (freebsd_core::OWNER, _) => self.take_freebsd(kind, descriptor),
            _ => {}
        }
        Ok(())
    }

    fn take_freebsd(&mut self, kind: u32, descriptor: &[u8]) {
        self.is_freebsd = true;
        match kind {
            freebsd_core::NT_PRSTATUS if self.threads.len() < THREADS_MAX => {
                if let Some(status) = freebsd_core::parse_thread(descriptor) {
                    let registers = status.registers.to_vec();
                    self.threads.push(Thread { tid: status.tid, registers, ..Thread::default() });
                }
            }
            freebsd_core::NT_X86_SEGBASES | freebsd_core::NT_ARM_TLS => {
                let pointer = crate::memory::u64_at(descriptor, 0);
                if let (Some(thread), Some(pointer)) = (self.threads.last_mut(), pointer) {
                    thread.thread_pointer = pointer;
                }
            }
            freebsd_core::NT_THRMISC => {
                if let Some(thread) = self.threads.last_mut() {
                    thread.name = freebsd_core::parse_thread_name(descriptor);
                }
            }
            freebsd_core::NT_PRPSINFO => {
                let name = freebsd_core::parse_name(descriptor).unwrap_or_default();
                self.process.get_or_insert_default().name = name;
            }
            freebsd_core::NT_PROCSTAT_PROC => {
                if let Some((pid, name)) = freebsd_core::parse_process(descriptor) {
                    self.process = Some(ProcessStatus { pid, name, arguments: String::new() });
                }
            }
            freebsd_core::NT_PROCSTAT_VMMAP => {
                self.mappings = freebsd_core::parse_mappings(descriptor);
                self.mappings.sort_by_key(|mapping| mapping.range);
            }
            freebsd_core::NT_PROCSTAT_AUXV => {
                self.auxiliary_vector = parse_auxiliary_vector(freebsd_core::auxiliary_vector(descriptor));
            }
            _ => {}
        }
    }

    /// The threads whose registers are whole.
    pub(super) fn stopped_threads(&self, architecture: Architecture) -> Vec<StoppedThread> {
        let registers = |thread: &Thread| -> Option<Registers> {
            let Thread { registers, thread_pointer, system_call, .. } = thread;
            if self.is_freebsd {
                freebsd_core::registers(architecture, registers, *thread_pointer)
            } else {
                linux_core::registers(architecture, registers, *thread_pointer, *system_call)
            }
        };
        self.threads
            .iter()
            .filter_map(|thread| Some(StoppedThread { tid: thread.tid, registers: registers(thread)? }))
            .collect()
    }

    /// The names of the threads, where the system notes them.
    pub(super) fn thread_names(&self) -> BTreeMap<i32, String> {
        self.threads.iter().filter_map(|thread| Some((thread.tid, thread.name.clone()?))).collect()
    }

    /// The mappings in address order: as the notes list them, else those that the segments stand for.
    pub(super) fn mappings(&mut self, loads: &[ProgramHeader64<LittleEndian>]) -> Vec<Mapping> {
        if !self.mappings.is_empty() {
            return std::mem::take(&mut self.mappings);
        }
        let mut mappings = read::mappings(loads, &self.files);
        let value = |wanted: u64| {
            let found = self.auxiliary_vector.iter().find(|(key, _)| *key == wanted);
            found.map(|(_, value)| *value)
        };
        for (key, kind) in [(AT_SYSINFO_EHDR, MappingKind::Vdso), (AT_RANDOM, MappingKind::Stack)] {
            let Some(address) = value(key) else { continue };
            let is_meant = |mapping: &&mut Mapping| {
                mapping.range.contains(address) && matches!(mapping.kind, MappingKind::Anonymous { .. })
            };
            if let Some(mapping) = mappings.iter_mut().find(is_meant) {
                mapping.kind = kind;
            }
        }
        mappings
    }

    /// The process, as far as a core names it.
    pub(super) fn origin(&self, architecture: Architecture) -> Origin {
        let entry = self.auxiliary_vector.iter().find(|(key, _)| *key == AT_ENTRY).map(|(_, value)| *value);
        let listed = self.files.iter().map(|file| (file.range, file.path.as_path()));
        let mapped = self.mappings.iter().filter_map(|mapping| Some((mapping.range, mapping.path()?)));
        let program = entry.and_then(|entry| listed.chain(mapped).find(|(range, _)| range.contains(entry)));
        let name = self.process.as_ref().map(|process| process.name.clone()).unwrap_or_default();
        Origin {
            pid: self.process.as_ref().map_or(0, |process| process.pid),
            exe: program.map_or_else(|| name.clone(), |(_, path)| path.display().to_string()),
            name,
            os: if self.is_freebsd { "freebsd" } else { "linux" }.to_owned(),
            architecture,
            start_ticks: None,
            boot_id: None,
            build_id: None,
        }
    }
}
