//! An ELF file's headers as a process has them mapped, for targets whose files are elsewhere.

use crate::memory::{Memory, MemoryExt};
use heaptap_platform::AddressRange;
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};

/// Bytes at the start of a file in which headers and notes are looked for.
const HEAD_BYTES_MAX: u64 = 1 << 16;

/// The build id of the file whose first byte is mapped at `start`, hexadecimal, as far as its headers are there.
pub fn build_id(memory: &dyn Memory, start: u64) -> Option<String> {
    let whole = AddressRange { start, end: start.saturating_add(HEAD_BYTES_MAX) };
    let mut end = start;
    for present in memory.present(whole) {
        if present.start != end {
            break;
        }
        end = present.end;
    }
    let bytes = memory.read_vec(start, usize::try_from(end - start).ok()?).ok()?;
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
