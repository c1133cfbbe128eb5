//! Reading a core file: headers, notes, and where the bytes of memory are.

use super::compressed::Compression;
use super::error::CoreFileError;
use super::noted::Notes;
use super::{CoreFile, Kind};
use crate::capture::{Capture, CapturedMemory, Segment, Store};
use heaptap_platform::format::linux_core::MappedPath;
use heaptap_platform::{AddressRange, Architecture, MappedFile, Mapping, MappingKind};
use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Opens the core file at `path`; its memory is the mapped file.
///
/// # Errors
/// The file cannot be opened, or is no core that can be read.
pub fn open(path: &Path) -> Result<CoreFile, CoreFileError> {
    let file = File::open(path).map_err(|source| CoreFileError::io(path, "open", source))?;
    let length = file.metadata().map_err(|source| CoreFileError::io(path, "look at", source))?.len();
    if length == 0 {
        return Err(CoreFileError::NotCore { path: path.to_owned(), found: "it is empty".to_owned() });
    }
    let map = |file: &File| MappedFile::map(file).map_err(|source| CoreFileError::io(path, "map", source));
    let mapped = map(&file)?;
    let Some(compression) = Compression::of(mapped.bytes()) else {
        return read(Store::File(Arc::new(mapped)), path);
    };
    let unpacked = compression.unpack(mapped.bytes(), path)?;
    let mut core = read(Store::File(Arc::new(map(&unpacked.file)?)), path)?;
    core.capture.lacks.extend(unpacked.cut_short);
    Ok(core)
}

/// The core file that `bytes` are; `path` is named in errors.
///
/// # Errors
/// The bytes are no core that can be read.
pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<CoreFile, CoreFileError> {
    read(Store::Copied(bytes), path)
}

fn read(store: Store, path: &Path) -> Result<CoreFile, CoreFileError> {
    let headers = Headers::of(store.bytes(), path)?;
    let mut notes = Notes::default();
    headers.notes(store.bytes(), path, &mut notes)?;
    let (segments, lacks) = headers.memory(store.bytes().len() as u64);
    let architecture = headers.architecture;
    let threads = notes.stopped_threads(architecture);
    let mut capture = Capture { threads, lacks, ..Capture::default() };
    let loads = headers.loads;
    capture.memory = CapturedMemory::of(store, segments);
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
            }
        }
        None => CoreFile {
            kind: Kind::Core,
            origin: notes.origin(architecture),
            capture,
            mappings: if notes.mappings.is_empty() { mappings(&loads, &notes.files) } else { notes.mappings },
            modules: Vec::new(),
            auxiliary_vector: notes.auxiliary_vector,
        },
    })
}

/// The headers of a core.
struct Headers {
    architecture: Architecture,
    loads: Vec<ProgramHeader64<LittleEndian>>,
    notes: Vec<ProgramHeader64<LittleEndian>>,
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
        let all = header.program_headers(LittleEndian, bytes).map_err(|error| {
            let end =
                header.e_phoff(LittleEndian).saturating_add(u64::from(header.e_phnum(LittleEndian)) * 56);
            if end > bytes.len() as u64 {
                let found_bytes = bytes.len() as u64;
                CoreFileError::Truncated { path: path.to_owned(), found_bytes, what: "its program headers" }
            } else {
                CoreFileError::corrupt(path, 0, error.to_string())
            }
        })?;
        let of_kind =
            |kind| all.iter().filter(|header| header.p_type(LittleEndian) == kind).copied().collect();
        Ok(Self { architecture, loads: of_kind(elf::PT_LOAD), notes: of_kind(elf::PT_NOTE) })
    }

    fn notes(&self, bytes: &[u8], path: &Path, notes: &mut Notes) -> Result<(), CoreFileError> {
        for header in &self.notes {
            let offset = header.p_offset(LittleEndian);
            let truncated = || CoreFileError::Truncated {
                path: path.to_owned(),
                found_bytes: bytes.len() as u64,
                what: "its notes",
            };
            let data = header.data(LittleEndian, bytes).map_err(|()| truncated())?;
            let corrupt = |error: object::Error| CoreFileError::corrupt(path, offset, error.to_string());
            let align = header.p_align(LittleEndian);
            let mut iterator = NoteIterator::<FileHeader64<LittleEndian>>::new(
                LittleEndian,
                if align == 8 { 8 } else { 4 },
                data,
            )
            .map_err(corrupt)?;
            while let Some(note) = iterator.next().map_err(corrupt)? {
                notes.take(note.name(), note.n_type(LittleEndian).0, note.desc(), offset, path)?;
            }
        }
        Ok(())
    }

    /// Where the bytes of memory are, and what of them the file has lost.
    fn memory(&self, file_bytes: u64) -> (Vec<Segment>, Vec<String>) {
        let (mut segments, mut lost_bytes) = (Vec::new(), 0);
        for header in &self.loads {
            let start = header.p_vaddr(LittleEndian);
            let offset = header.p_offset(LittleEndian);
            let wanted = header.p_filesz(LittleEndian).min(u64::MAX - start);
            let there = wanted.min(file_bytes.saturating_sub(offset));
            lost_bytes += wanted - there;
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

/// The mappings that a core's segments stand for; which file each maps, the notes tell. Debuggers leave out what
/// was never written to: such a mapping is known from the notes alone.
fn mappings(loads: &[ProgramHeader64<LittleEndian>], files: &[MappedPath]) -> Vec<Mapping> {
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
