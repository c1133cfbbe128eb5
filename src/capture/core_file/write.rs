//! Writing a capture as a sparse ELF core.
//!
//! One segment for each captured stretch and one without bytes for each stretch between, so that the segments of
//! a mapping cover it. Format: System V ABI, "Object Files"; notes as Linux writes them (`fs/binfmt_elf.c`).

use super::own_note::{self, CaptureNote};
use super::sparse_file::SparseFile;
use super::{CoreFileError, ModuleNote, Origin, notes};
use crate::capture::Capture;
use crate::memory::MemoryExt;
use heaptap_platform::format::{linux_core, maps};
use heaptap_platform::{AddressRange, Architecture, Mapping, merge_ranges};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const ELF_HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SECTION_HEADER_BYTES: u64 = 64;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// In the header's count of segments: the count is in the first section header.
const PN_XNUM: u16 = 0xffff;

/// Captured stretches begin and end at multiples of this.
const GRAIN_BYTES: u64 = 8;
/// Where the first of them begins in the file.
const DATA_ALIGN_BYTES: u64 = 8;
/// Bytes that are copied in one piece.
const PIECE_BYTES: u64 = 1 << 20;
/// Compresses a page of zeros and counters to a tenth; higher levels take several times as long.
const ZSTD_LEVEL: i32 = 3;

/// Everything that goes into a file.
#[derive(Debug)]
pub struct Recording<'a> {
    /// The process.
    pub origin: &'a Origin,
    /// Bytes and threads.
    pub capture: &'a Capture,
    /// Its mappings, in address order.
    pub mappings: &'a [Mapping],
    /// Its modules.
    pub modules: Vec<ModuleNote>,
    /// Its auxiliary vector.
    pub auxiliary_vector: &'a [(u64, u64)],
    /// Names of its threads by their ids.
    pub thread_names: &'a BTreeMap<i32, String>,
    /// What of the captured bytes is written; the capture may hold more by chance.
    pub kept: Vec<AddressRange>,
    /// What that is, as sentences.
    pub holds: Vec<String>,
    /// Bytes of a page.
    pub page_bytes: u64,
}

/// One program header.
#[derive(Debug, Clone, Copy)]
struct Segment {
    range: AddressRange,
    /// Read 4, write 2, execute 1.
    rights: u32,
    captured: bool,
}

/// Writes `recording` under a new name, for this user alone; compressed where the name ends in `.zst`.
///
/// # Errors
/// The operating system refused, or the name is taken and `replace` is not set. No file is left behind then.
pub fn to_file(recording: &Recording<'_>, path: &Path, replace: bool) -> Result<(), CoreFileError> {
    if !replace && path.exists() {
        return Err(CoreFileError::io(path, "write", io::ErrorKind::AlreadyExists.into()));
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = write_partial(recording, &partial, path);
    if written.is_err() {
        // The error that led here is the one to report.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_partial(recording: &Recording<'_>, partial: &Path, path: &Path) -> Result<(), CoreFileError> {
    let error = |source| CoreFileError::io(path, "write", source);
    let file = heaptap_platform::create_private(partial).map_err(error)?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let mut encoder = zstd::Encoder::new(&mut out, ZSTD_LEVEL).map_err(error)?;
        write(recording, &mut encoder, path)?;
        encoder.finish().and_then(|out| out.flush()).map_err(error)?;
    } else {
        let mut out = BufWriter::with_capacity(1 << 16, SparseFile::new(file));
        write(recording, &mut out, path)?;
        let sparse = out.into_inner().map_err(|unwritten| error(unwritten.into_error()))?;
        sparse.finish().map_err(error)?;
    }
    fs::rename(partial, path).map_err(error)
}

/// Writes `recording` to `out`; `path` is named in errors.
///
/// # Errors
/// Those of `out`.
pub fn write(recording: &Recording<'_>, out: &mut dyn Write, path: &Path) -> Result<(), CoreFileError> {
    let segments = recording.segments();
    let notes = recording.notes();
    let layout = FileLayout::of(&segments, notes.len() as u64, path)?;
    let error = |source| CoreFileError::io(path, "write", source);
    out.write_all(&layout.headers(recording.origin.architecture, &segments)).map_err(error)?;
    out.write_all(&notes).map_err(error)?;
    let padding = [0; DATA_ALIGN_BYTES as usize];
    let padding_bytes = usize::try_from(layout.data_start() - layout.notes_end()).unwrap_or(0);
    out.write_all(padding.get(..padding_bytes).unwrap_or_default()).map_err(error)?;
    for segment in segments.iter().filter(|segment| segment.captured) {
        recording.copy(segment.range, out).map_err(error)?;
    }
    Ok(())
}

impl Recording<'_> {
    /// Captured stretches that are to be kept, in address order.
    fn stretches(&self) -> Vec<AddressRange> {
        let grain = |range: &AddressRange| range.page_aligned(GRAIN_BYTES);
        let kept = merge_ranges(self.kept.iter().map(grain).collect(), 0);
        let mut captured = self.capture.memory.ranges().into_iter().peekable();
        let mut stretches = Vec::new();
        for range in kept {
            while captured.next_if(|have| have.end <= range.start).is_some() {}
            let mut rest = captured.clone();
            while let Some(have) = rest.next_if(|have| have.start < range.end) {
                stretches.extend(have.intersection(&range));
            }
        }
        stretches
    }

    /// All segments in address order: those of each mapping, and what was captured outside of every mapping.
    fn segments(&self) -> Vec<Segment> {
        let mut stretches = self.stretches().into_iter().peekable();
        let mut segments = Vec::new();
        let mut end = 0;
        let mut push = |start: u64, end: u64, rights, captured| {
            let range = AddressRange { start, end };
            if !range.is_empty() {
                segments.push(Segment { range, rights, captured });
            }
        };
        let whole = AddressRange { start: u64::MAX, end: u64::MAX };
        let mappings = self.mappings.iter().map(|mapping| (mapping.range, rights(mapping)));
        for (mapping, rights) in mappings.chain(std::iter::once((whole, 0))) {
            while let Some(stretch) = stretches.peek_mut().filter(|stretch| stretch.start < mapping.start) {
                let before = stretch.end.min(mapping.start);
                push(stretch.start.max(end), before, 6, true);
                stretch.start = before;
                if stretch.is_empty() {
                    stretches.next();
                } else {
                    break;
                }
            }
            end = mapping.start;
            while let Some(stretch) = stretches.peek_mut().filter(|stretch| stretch.start < mapping.end) {
                let inside = stretch.end.min(mapping.end);
                push(end, stretch.start, rights, false);
                push(stretch.start, inside, rights, true);
                end = inside;
                stretch.start = inside;
                if !stretch.is_empty() {
                    break;
                }
                stretches.next();
            }
            push(end, mapping.end, rights, false);
            end = mapping.end;
        }
        segments
    }

    fn notes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let push = |bytes: &mut Vec<u8>, owner, kind, descriptor: &[u8]| {
            notes::push(bytes, owner, kind, descriptor);
        };
        let process = linux_core::ProcessStatus {
            pid: self.origin.pid,
            name: self.origin.name.clone(),
            arguments: self.origin.exe.clone(),
        };
        push(&mut bytes, linux_core::OWNER, linux_core::NT_PRPSINFO, &linux_core::process(&process));
        for thread in &self.capture.threads {
            let status = linux_core::thread(thread.tid, &thread.registers);
            push(&mut bytes, linux_core::OWNER, linux_core::NT_PRSTATUS, &status);
            if thread.registers.architecture == Architecture::Aarch64 {
                let pointer = thread.registers.thread_pointer.to_le_bytes();
                push(&mut bytes, linux_core::OWNER_LINUX, linux_core::NT_ARM_TLS, &pointer);
            }
        }
        let vector = self.auxiliary_vector.iter().chain(std::iter::once(&(0, 0)));
        let vector: Vec<u8> =
            vector.flat_map(|(key, value)| [key.to_le_bytes(), value.to_le_bytes()].concat()).collect();
        push(&mut bytes, linux_core::OWNER, linux_core::NT_AUXV, &vector);
        let files = linux_core::files(self.mappings, self.page_bytes);
        push(&mut bytes, linux_core::OWNER, linux_core::NT_FILE, &files);
        let note = CaptureNote {
            page_bytes: self.page_bytes,
            holds: self.holds.clone(),
            modules: self.modules.clone(),
            thread_names: self.thread_names.iter().map(|(tid, name)| (*tid, name.clone())).collect(),
            ..CaptureNote::of(self.origin, self.capture)
        };
        let note = serde_json::to_vec(&note).unwrap_or_default();
        push(&mut bytes, own_note::OWNER, own_note::NT_CAPTURE, &note);
        push(&mut bytes, own_note::OWNER, own_note::NT_MAPPINGS, &maps::format_maps(self.mappings));
        bytes
    }

    fn copy(&self, range: AddressRange, out: &mut dyn Write) -> io::Result<()> {
        let mut start = range.start;
        while start < range.end {
            let len_bytes = usize::try_from((range.end - start).min(PIECE_BYTES)).unwrap_or(0);
            // A stretch may span several of the capture's own.
            let piece = self.capture.memory.read_vec(start, len_bytes).map_err(io::Error::other)?;
            out.write_all(&piece)?;
            start += len_bytes as u64;
        }
        Ok(())
    }
}

const fn rights(mapping: &Mapping) -> u32 {
    (mapping.readable as u32) << 2 | (mapping.writable as u32) << 1 | mapping.executable as u32
}

/// Where the parts of a file lie.
#[derive(Debug, Clone, Copy)]
struct FileLayout {
    /// Segments of memory and the one of notes.
    headers: u64,
    /// The count does not fit into the header.
    extended: bool,
    notes_start: u64,
    notes_bytes: u64,
}

impl FileLayout {
    fn of(segments: &[Segment], notes_bytes: u64, path: &Path) -> Result<Self, CoreFileError> {
        let headers = segments.len() as u64 + 1;
        if u32::try_from(headers).is_err() {
            return Err(CoreFileError::TooManySegments { path: path.to_owned(), segments: segments.len() });
        }
        let extended = headers >= u64::from(PN_XNUM);
        let table = ELF_HEADER_BYTES + headers * PROGRAM_HEADER_BYTES;
        let notes_start = table + if extended { SECTION_HEADER_BYTES } else { 0 };
        Ok(Self { headers, extended, notes_start, notes_bytes })
    }

    const fn notes_end(&self) -> u64 {
        self.notes_start + self.notes_bytes
    }

    const fn data_start(&self) -> u64 {
        self.notes_end().next_multiple_of(DATA_ALIGN_BYTES)
    }

    fn headers(&self, architecture: Architecture, segments: &[Segment]) -> Vec<u8> {
        let mut bytes = self.elf_header(architecture);
        program_header(&mut bytes, PT_NOTE, 4, self.notes_start, 0, self.notes_bytes, 0, 4);
        let mut offset = self.data_start();
        for segment in segments {
            let len_bytes = segment.range.len_bytes();
            let in_file = if segment.captured { len_bytes } else { 0 };
            let start = segment.range.start;
            program_header(&mut bytes, PT_LOAD, segment.rights, offset, start, in_file, len_bytes, 1);
            offset += in_file;
        }
        if self.extended {
            let mut section = vec![0; 64];
            let count = u32::try_from(self.headers).unwrap_or(u32::MAX).to_le_bytes();
            for (place, byte) in section.iter_mut().skip(44).zip(count) {
                *place = byte;
            }
            bytes.extend(section);
        }
        bytes
    }

    fn elf_header(&self, architecture: Architecture) -> Vec<u8> {
        let machine = match architecture {
            Architecture::X86_64 => EM_X86_64,
            Architecture::Aarch64 => EM_AARCH64,
        };
        let sections_start = if self.extended { self.notes_start - SECTION_HEADER_BYTES } else { 0 };
        let headers = if self.extended { PN_XNUM } else { u16::try_from(self.headers).unwrap_or(PN_XNUM) };
        // 64 bits, little endian, version 1.
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(ET_CORE.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        for word in [0, ELF_HEADER_BYTES, sections_start] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0_u32.to_le_bytes());
        let section = if self.extended { [64, 1] } else { [0, 0] };
        for half in [64, 56, headers, section[0], section[1], 0] {
            bytes.extend(half.to_le_bytes());
        }
        bytes
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of a program header, each once")]
fn program_header(
    bytes: &mut Vec<u8>,
    kind: u32,
    rights: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend(rights.to_le_bytes());
    for word in [offset, address, 0, file_bytes, memory_bytes, align] {
        bytes.extend(word.to_le_bytes());
    }
}
