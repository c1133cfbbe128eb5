//! Reading a core file: headers, notes, and where the bytes of memory are.

use super::compressed::Compression;
use super::error::CoreFileError;
use super::kept_name::KeptName;
use super::noted::Notes;
use super::{CoreFile, Kind};
use crate::capture::{Capture, CapturedMemory, Segment, Store};
use crate::module::loaded;
use heaptap_platform::format::linux_core::MappedPath;
use heaptap_platform::{AddressRange, Architecture, MappedFile, Mapping, MappingKind};
use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::pod::slice_from_bytes;
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Opens the core file at `path`; its memory is the mapped file.
///
/// # Errors
/// The file cannot be opened, or is no core that can be read.
pub fn open(path: &Path) -> Result<CoreFile, CoreFileError> {
    let file = File::open(path).map_err(|source| CoreFileError::io(path, "open", source))?;
    let metadata = file.metadata().map_err(|source| CoreFileError::io(path, "look at", source))?;
    if metadata.len() == 0 {
        return Err(CoreFileError::NotCore { path: path.to_owned(), found: "it is empty".to_owned() });
    }
    let map = |file: &File| MappedFile::map(file).map_err(|source| CoreFileError::io(path, "map", source));
    let mapped = map(&file)?;
    let mut core = match Compression::of(mapped.bytes()) {
        None => read(Store::File(Arc::new(mapped)), path)?,
        Some(compression) => {
            let unpacked = compression.unpack(mapped.bytes(), path)?;
            let mut core = read(Store::File(Arc::new(map(&unpacked.file)?)), path)?;
            core.capture.lacks.extend(unpacked.cut_short);
            core
        }
    };
    if core.kind == Kind::Core {
        name_and_date(&mut core, path, &metadata);
    }
    Ok(core)
}

/// What a core does not say of itself, its name and its date may. Cores are written when they are taken.
fn name_and_date(core: &mut CoreFile, path: &Path, metadata: &Metadata) {
    let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    core.capture.taken_at = written.map_or(0.0, |since| since.as_secs_f64());
    if let Some(kept) = KeptName::of(path) {
        core.capture.taken_at = kept.taken_at;
        core.origin.pid = kept.pid;
        core.origin.boot_id = Some(kept.boot_id);
    }
}

/// The core file that `bytes` are, not compressed; `path` is named in errors.
///
/// # Errors
/// The bytes are no core that can be read.
pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<CoreFile, CoreFileError> {
    read(Store::Shared(Arc::new(bytes)), path)
}

fn read(store: Store, path: &Path) -> Result<CoreFile, CoreFileError> {
    let headers = Headers::of(store.bytes(), path)?;
    let mut notes = Notes::default();
    let mut lacks: Vec<String> = headers.lacks.clone().into_iter().collect();
    lacks.extend(headers.notes(store.bytes(), path, &mut notes)?);
    let (segments, lost) = headers.memory(store.bytes().len() as u64);
    lacks.extend(lost);
    let architecture = headers.architecture;
    let threads = notes.stopped_threads(architecture);
    let mut capture = Capture { threads, lacks, ..Capture::default() };
    capture.memory = CapturedMemory::of(store, segments);
    let loads = headers.loads;
    Ok(match notes.capture.take() {
        Some(own) => {
            own.complete(&mut capture);
            CoreFile {
                kind: Kind::Capture,
                origin: own.origin(architecture),
                capture,
                mappings: notes.mappings,
                modules: own.modules,
                auxiliary_vector: notes.auxiliary_vector,
                thread_names: own.thread_names.into_iter().collect(),
            }
        }
        None => {
            if notes.files.is_empty() && notes.mappings.is_empty() {
                notes.files = found_files(&capture.memory, &loads);
            }
            capture.notes.extend(left_out(&loads));
            CoreFile {
                kind: Kind::Core,
                origin: notes.origin(architecture),
                capture,
                thread_names: notes.thread_names(),
                mappings: notes.mappings(&loads),
                modules: Vec::new(),
                auxiliary_vector: notes.auxiliary_vector,
            }
        }
    })
}

/// That writable memory is not in the core, although nothing was cut off: its writer's choice.
fn left_out(loads: &[ProgramHeader64<LittleEndian>]) -> Option<String> {
    let bytes_of = |load: &ProgramHeader64<LittleEndian>| {
        let is_writable = load.p_flags(LittleEndian).0 & elf::PF_W.0 != 0;
        let absent = load.p_memsz(LittleEndian).saturating_sub(load.p_filesz(LittleEndian));
        if is_writable { absent } else { 0 }
    };
    let bytes = loads.iter().map(bytes_of).fold(0, u64::saturating_add);
    let count = loads.iter().filter(|load| bytes_of(load) > 0).count();
    (bytes > 0).then(|| {
        format!(
            "{bytes} bytes of {count} writable mappings are not in the core: its writer left them out, as coredump_filter \
             tells Linux to"
        )
    })
}

/// The headers of a core.
struct Headers {
    architecture: Architecture,
    loads: Vec<ProgramHeader64<LittleEndian>>,
    notes: Vec<ProgramHeader64<LittleEndian>>,
    /// That some of them are cut off.
    lacks: Option<String>,
}

impl Headers {
    fn of(bytes: &[u8], path: &Path) -> Result<Self, CoreFileError> {
        let header = elf_header(bytes, path)?;
        let architecture = match header.e_machine(LittleEndian) {
            elf::EM_X86_64 => Architecture::X86_64,
            elf::EM_AARCH64 => Architecture::Aarch64,
            other => {
                let what = format!("machine {}", other.0);
                return Err(CoreFileError::Unsupported { path: path.to_owned(), what });
            }
        };
        let (all, lacks) = program_headers(header, bytes, path)?;
        let of_kind =
            |kind| all.iter().filter(|header| header.p_type(LittleEndian) == kind).copied().collect();
        Ok(Self { architecture, loads: of_kind(elf::PT_LOAD), notes: of_kind(elf::PT_NOTE), lacks })
    }

    /// Takes in the notes as far as they go; where they break off, that is told.
    fn notes(&self, bytes: &[u8], path: &Path, notes: &mut Notes) -> Result<Vec<String>, CoreFileError> {
        let mut lacks = Vec::new();
        for header in &self.notes {
            let start = header.p_offset(LittleEndian);
            let wanted = start.saturating_add(header.p_filesz(LittleEndian));
            let data = part(bytes, start, wanted);
            let align = if header.p_align(LittleEndian) == 8 { 8 } else { 4 };
            let mut place = start;
            let iterator = NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, align, data);
            let mut iterator = iterator
                .map_err(|error: object::Error| CoreFileError::corrupt(path, start, error.to_string()))?;
            let broken = loop {
                match iterator.next() {
                    Ok(Some(note)) => {
                        notes.take(note.name(), note.n_type(LittleEndian).0, note.desc(), place, path)?;
                        let padded = |part: &[u8]| part.len().next_multiple_of(align as usize) as u64;
                        place += 12 + padded(note.name_bytes()) + padded(note.desc());
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let end = bytes.len() as u64;
            if wanted > end {
                lacks.push(format!(
                    "the file ends at byte {end}: its notes from byte {} on are cut off, and with them threads, names \
                     of mapped files or both",
                    place.min(end)
                ));
            } else if let Some(error) = broken {
                lacks.push(format!(
                    "its notes are corrupt at byte {place}: {error}; what follows is not read"
                ));
            }
        }
        if self.notes.is_empty() {
            lacks.push("it has no notes: neither threads nor names of mapped files".to_owned());
        }
        Ok(lacks)
    }

    /// Where the bytes of memory are, and what of them the file has lost.
    fn memory(&self, file_bytes: u64) -> (Vec<Segment>, Vec<String>) {
        let (mut segments, mut lost_bytes) = (Vec::new(), 0_u64);
        for header in &self.loads {
            let start = header.p_vaddr(LittleEndian);
            let offset = header.p_offset(LittleEndian);
            let wanted = header.p_filesz(LittleEndian).min(u64::MAX - start);
            let there = wanted.min(file_bytes.saturating_sub(offset));
            lost_bytes = u64::saturating_add(lost_bytes, wanted - there);
            if let (Ok(offset), Ok(len_bytes)) = (usize::try_from(offset), usize::try_from(there))
                && len_bytes > 0
            {
                segments.push(Segment { start, len_bytes, offset });
            }
        }
        let lacks = if lost_bytes > 0 {
            vec![format!("the file ends at byte {file_bytes}: {lost_bytes} bytes of memory are cut off")]
        } else {
            Vec::new()
        };
        (segments, lacks)
    }
}

/// The bytes of a file from `start` to `end`, as far as they are there.
fn part(bytes: &[u8], start: u64, end: u64) -> &[u8] {
    let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(place(start)..place(end)).unwrap_or_default()
}

/// The program headers as far as they go, and what of them is cut off.
fn program_headers<'a>(
    header: &FileHeader64<LittleEndian>,
    bytes: &'a [u8],
    path: &Path,
) -> Result<(&'a [ProgramHeader64<LittleEndian>], Option<String>), CoreFileError> {
    const HEADER_BYTES: u64 = size_of::<ProgramHeader64<LittleEndian>>() as u64;
    let start = header.e_phoff(LittleEndian);
    let file_bytes = bytes.len() as u64;
    if u64::from(header.e_phentsize(LittleEndian)) != HEADER_BYTES || start == 0 {
        return Err(CoreFileError::corrupt(path, 32, "no program headers of the usual size"));
    }
    let there = file_bytes.saturating_sub(start) / HEADER_BYTES;
    let (all, _) = slice_from_bytes::<ProgramHeader64<LittleEndian>>(
        part(bytes, start, file_bytes),
        usize::try_from(there).unwrap_or(0),
    )
    .map_err(|()| CoreFileError::corrupt(path, start, "program headers at an odd place"))?;
    // A count that is too large for the header stands in the first section header, which Linux writes last.
    let count = header.phnum(LittleEndian, bytes).map_or_else(
        |_| {
            let behind = all.first().map_or(0, |first| first.p_offset(LittleEndian));
            behind.saturating_sub(start) / HEADER_BYTES
        },
        |count| count as u64,
    );
    if count > 0 && there == 0 {
        return Err(CoreFileError::Truncated {
            path: path.to_owned(),
            found_bytes: file_bytes,
            what: "its program headers",
        });
    }
    let lacks = (there < count)
        .then(|| format!("the file ends at byte {file_bytes}: {there} of {count} program headers are there"));
    let kept = usize::try_from(count.min(there)).unwrap_or(0);
    Ok((all.get(..kept).unwrap_or_default(), lacks))
}

fn elf_header<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a FileHeader64<LittleEndian>, CoreFileError> {
    let not_core = |found: &str| CoreFileError::NotCore { path: path.to_owned(), found: found.to_owned() };
    let unsupported =
        |what: &str| CoreFileError::Unsupported { path: path.to_owned(), what: what.to_owned() };
    match bytes {
        [0x7f, b'E', b'L', b'F', 2, 1, ..] => {}
        [0x7f, b'E', b'L', b'F', 1, ..] => return Err(unsupported("32 bits")),
        [0x7f, b'E', b'L', b'F', 2, 2, ..] => return Err(unsupported("big endian")),
        [0x7f, b'E', b'L', b'F', ..] => return Err(CoreFileError::corrupt(path, 4, "no known ELF class")),
        _ => return Err(not_core("it does not begin as an ELF file")),
    }
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| CoreFileError::Truncated {
        path: path.to_owned(),
        found_bytes: bytes.len() as u64,
        what: "its ELF header",
    })?;
    if header.e_type(LittleEndian) == elf::ET_CORE {
        Ok(header)
    } else {
        Err(not_core("it is an ELF file, but a program or a library"))
    }
}

/// The files that are mapped, by the ELF headers that are in the memory: for cores whose notes do not tell. They have
/// no names, so their places name them.
fn found_files(memory: &CapturedMemory, loads: &[ProgramHeader64<LittleEndian>]) -> Vec<MappedPath> {
    let starts = loads.iter().map(|load| load.p_vaddr(LittleEndian));
    starts.flat_map(|start| loaded::segments(memory, start)).collect()
}

/// The mappings that a core's segments stand for; which file each maps, the notes tell. Debuggers leave out what
/// was never written to: such a mapping is known from the notes alone.
pub(super) fn mappings(loads: &[ProgramHeader64<LittleEndian>], files: &[MappedPath]) -> Vec<Mapping> {
    let mut files: Vec<&MappedPath> = files.iter().collect();
    files.sort_by_key(|file| file.range);
    let numbers = numbers(&files);
    let mut mappings: Vec<Mapping> = Vec::with_capacity(loads.len());
    for load in loads {
        let start = load.p_vaddr(LittleEndian);
        let range = AddressRange { start, end: start.saturating_add(load.p_memsz(LittleEndian)) };
        let index = files.partition_point(|file| file.range.end <= start);
        let file = files.get(index).filter(|file| file.range.contains(start));
        let right = |flag: elf::ProgramFlags| load.p_flags(LittleEndian).0 & flag.0 != 0;
        let rights = [right(elf::PF_R), right(elf::PF_W), right(elf::PF_X)];
        mappings.push(mapping(range, rights, file.copied(), &numbers));
    }
    mappings.sort_by_key(|mapping| mapping.range);
    let is_known = |file: &&&MappedPath| {
        let index = mappings.partition_point(|mapping| mapping.range.end <= file.range.start);
        mappings.get(index).is_some_and(|mapping| mapping.range.start < file.range.end)
    };
    let unknown: Vec<&MappedPath> = files.iter().filter(|file| !is_known(file)).copied().collect();
    mappings.extend(
        unknown.into_iter().map(|file| mapping(file.range, [true, false, true], Some(file), &numbers)),
    );
    mappings.sort_by_key(|mapping| mapping.range);
    mappings
}

/// A number for each path: cores keep neither inode nor device.
fn numbers<'a>(files: &[&'a MappedPath]) -> HashMap<&'a Path, u64> {
    let mut numbers = HashMap::new();
    for file in files {
        let next = numbers.len() as u64 + 1;
        numbers.entry(file.path.as_path()).or_insert(next);
    }
    numbers
}

fn mapping(
    range: AddressRange,
    [readable, writable, executable]: [bool; 3],
    file: Option<&MappedPath>,
    numbers: &HashMap<&Path, u64>,
) -> Mapping {
    let kind = match file {
        Some(file) => MappingKind::File { path: file.path.clone(), deleted: file.deleted },
        None => MappingKind::Anonymous { name: None },
    };
    Mapping {
        range,
        readable,
        writable,
        executable,
        shared: false,
        file_offset: file.map_or(0, |file| file.file_offset.saturating_add(range.start - file.range.start)),
        device: (0, 0),
        inode: file.and_then(|file| numbers.get(file.path.as_path()).copied()).unwrap_or(0),
        kind,
    }
}
