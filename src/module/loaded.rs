//! An ELF file's headers as a process has them mapped, for targets whose files are elsewhere.

use crate::memory::{Memory, MemoryExt};
use heaptap_platform::AddressRange;
use heaptap_platform::format::linux_core::MappedPath;
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use std::path::PathBuf;

/// Bytes at the start of a file in which headers and notes are looked for.
const HEAD_BYTES_MAX: u64 = 1 << 16;

/// The file whose first byte is mapped at `start`, as far as its headers are there: which of its parts are mapped where.
/// Its place stands for its name.
pub fn segments(memory: &dyn Memory, start: u64) -> Vec<MappedPath> {
    const PAGE_BYTES: u64 = 4096;
    let bytes = head(memory, start);
    let Ok(header) = FileHeader64::<LittleEndian>::parse(bytes.as_slice()) else { return Vec::new() };
    let Ok(all) = header.program_headers(LittleEndian, bytes.as_slice()) else { return Vec::new() };
    let loads = || all.iter().filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD);
    let Some(first) = loads().find(|segment| segment.p_offset(LittleEndian) < PAGE_BYTES) else {
        return Vec::new();
    };
    let bias = start.wrapping_sub(first.p_vaddr(LittleEndian) & !(PAGE_BYTES - 1));
    let path = PathBuf::from(format!("module at {start:#x}"));
    loads()
        .filter_map(|segment| {
            let (address, len_bytes) = (segment.p_vaddr(LittleEndian), segment.p_filesz(LittleEndian));
            let range =
                AddressRange::with_len(address.wrapping_add(bias), len_bytes)?.page_aligned(PAGE_BYTES);
            let file_offset = segment.p_offset(LittleEndian) & !(PAGE_BYTES - 1);
            Some(MappedPath { range, file_offset, path: path.clone(), deleted: true })
        })
        .collect()
}

/// The build id of the file whose first byte is mapped at `start`, hexadecimal, as far as its headers are there.
pub fn build_id(memory: &dyn Memory, start: u64) -> Option<String> {
    let bytes = head(memory, start);
    let header = FileHeader64::<LittleEndian>::parse(bytes.as_slice()).ok()?;
    let segments = header.program_headers(LittleEndian, bytes.as_slice()).ok()?;
    segments.iter().filter(|segment| segment.p_type(LittleEndian) == elf::PT_NOTE).find_map(|segment| {
        let data = segment.data(LittleEndian, bytes.as_slice()).ok()?;
        let align = if segment.p_align(LittleEndian) == 8 { 8 } else { 4 };
        let mut notes = NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, align, data).ok()?;
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(LittleEndian).0 == elf::NT_GNU_BUILD_ID.0 {
                return Some(note.desc().iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
        None
    })
}

/// What is there of the first bytes of a file that is mapped at `start`.
fn head(memory: &dyn Memory, start: u64) -> Vec<u8> {
    let whole = AddressRange { start, end: start.saturating_add(HEAD_BYTES_MAX) };
    let mut end = start;
    for present in memory.present(whole) {
        if present.start != end {
            break;
        }
        end = present.end;
    }
    memory.read_vec(start, usize::try_from(end - start).unwrap_or(0)).unwrap_or_default()
}
