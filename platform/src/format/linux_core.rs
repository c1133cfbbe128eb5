//! Notes of Linux core files, both ways.
//!
//! Layouts: `struct elf_prstatus` and `struct elf_prpsinfo` of 64-bit systems (Linux, `include/linux/elfcore.h` and
//! `include/linux/elfcore-compat.h`), `NT_FILE` (`fill_files_note` in `fs/binfmt_elf.c`).

use super::maps::path_from_bytes;
use crate::{AddressRange, Architecture, Mapping, MappingKind, Registers};
use std::path::PathBuf;

/// The owner of the notes of most types.
pub const OWNER: &[u8] = b"CORE";
/// The owner of the notes of an architecture.
pub const OWNER_LINUX: &[u8] = b"LINUX";
/// A thread's registers.
pub const NT_PRSTATUS: u32 = 1;
/// The process: its id and its name.
pub const NT_PRPSINFO: u32 = 3;
/// The auxiliary vector.
pub const NT_AUXV: u32 = 6;
/// Mapped files.
pub const NT_FILE: u32 = 0x4649_4c45;
/// The thread pointer of aarch64.
pub const NT_ARM_TLS: u32 = 0x401;
/// The number of the system call that a thread of aarch64 is in.
pub const NT_ARM_SYSTEM_CALL: u32 = 0x404;

const STATUS_TID: usize = 32;
const STATUS_REGISTERS: usize = 112;
/// What follows the registers: whether floating-point registers are there, and padding.
const STATUS_TAIL_BYTES: usize = 8;

const PROCESS_BYTES: usize = 136;
const PROCESS_PID: usize = 24;
const PROCESS_NAME: usize = 40;
const PROCESS_NAME_BYTES: usize = 16;
const PROCESS_ARGUMENTS: usize = 56;
const PROCESS_ARGUMENTS_BYTES: usize = 80;

/// Most files that a note is believed to list.
const FILES_MAX: u64 = 1 << 22;

/// A thread, as `NT_PRSTATUS` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadStatus<'a> {
    /// Its id.
    pub tid: i32,
    /// Its general registers as the kernel laid them out.
    pub registers: &'a [u8],
}

/// A process, as `NT_PRPSINFO` gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Its id.
    pub pid: i32,
    /// Name of the executable, cut at 15 bytes.
    pub name: String,
    /// Its arguments, cut at 79 bytes.
    pub arguments: String,
}

/// A mapped file, as `NT_FILE` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedPath {
    /// Where it is mapped.
    pub range: AddressRange,
    /// Where in the file the mapping starts, in bytes.
    pub file_offset: u64,
    /// Its path, without the mark for deleted files.
    pub path: PathBuf,
    /// The name was removed, or replaced by another file.
    pub deleted: bool,
}

/// Reads the descriptor of `NT_PRSTATUS`.
pub fn parse_thread(descriptor: &[u8]) -> Option<ThreadStatus<'_>> {
    let end = descriptor.len().checked_sub(STATUS_TAIL_BYTES)?;
    Some(ThreadStatus {
        tid: i32_at(descriptor, STATUS_TID)?,
        registers: descriptor.get(STATUS_REGISTERS..end)?,
    })
}

/// Writes the descriptor of `NT_PRSTATUS`.
pub fn thread(tid: i32, registers: &Registers) -> Vec<u8> {
    let raw = registers.raw();
    let mut bytes = vec![0; STATUS_REGISTERS + raw.len() + STATUS_TAIL_BYTES];
    put(&mut bytes, STATUS_TID, &tid.to_le_bytes());
    put(&mut bytes, STATUS_REGISTERS, raw);
    bytes
}

/// Reads the descriptor of `NT_PRPSINFO`.
pub fn parse_process(descriptor: &[u8]) -> Option<ProcessStatus> {
    let text = |start: usize, len_bytes: usize| Some(text_of(descriptor.get(start..start + len_bytes)?));
    Some(ProcessStatus {
        pid: i32_at(descriptor, PROCESS_PID)?,
        name: text(PROCESS_NAME, PROCESS_NAME_BYTES)?,
        arguments: text(PROCESS_ARGUMENTS, PROCESS_ARGUMENTS_BYTES)?,
    })
}

/// Writes the descriptor of `NT_PRPSINFO`.
pub fn process(status: &ProcessStatus) -> Vec<u8> {
    let mut bytes = vec![0; PROCESS_BYTES];
    put(&mut bytes, PROCESS_PID, &status.pid.to_le_bytes());
    put(&mut bytes, PROCESS_NAME, cut(&status.name, PROCESS_NAME_BYTES - 1));
    put(&mut bytes, PROCESS_ARGUMENTS, cut(&status.arguments, PROCESS_ARGUMENTS_BYTES - 1));
    bytes
}

/// Reads the descriptor of `NT_FILE`, as far as it goes; `None` where not even its head is there.
pub fn parse_files(descriptor: &[u8]) -> Option<Vec<MappedPath>> {
    let count = u64_at(descriptor, 0)?.min(FILES_MAX);
    let page_bytes = u64_at(descriptor, 8)?;
    let entries = descriptor.get(16..)?;
    let table_bytes = usize::try_from(count.checked_mul(24)?).ok()?;
    let names = entries.get(table_bytes..)?.split(|byte| *byte == 0);
    let entries = entries.get(..table_bytes)?.chunks_exact(24);
    let file = |(entry, name): (&[u8], &[u8])| {
        let range = AddressRange::new(u64_at(entry, 0)?, u64_at(entry, 8)?)?;
        let file_offset = u64_at(entry, 16)?.checked_mul(page_bytes)?;
        let (name, deleted) = match name.strip_suffix(b" (deleted)") {
            Some(stripped) => (stripped, true),
            None => (name, false),
        };
        Some(MappedPath { range, file_offset, path: path_from_bytes(name.to_vec()), deleted })
    };
    Some(entries.zip(names).filter_map(file).collect())
}

/// Writes the descriptor of `NT_FILE` for those of `mappings` that map files.
pub fn files(mappings: &[Mapping], page_bytes: u64) -> Vec<u8> {
    let mut table = Vec::new();
    let mut names = Vec::new();
    let mut count = 0_u64;
    for mapping in mappings {
        let MappingKind::File { path, deleted } = &mapping.kind else { continue };
        count += 1;
        let pages = mapping.file_offset.checked_div(page_bytes).unwrap_or(0);
        for word in [mapping.range.start, mapping.range.end, pages] {
            table.extend(word.to_le_bytes());
        }
        names.extend(path.as_os_str().as_encoded_bytes());
        names.extend(if *deleted { &b" (deleted)\0"[..] } else { &b"\0"[..] });
    }
    [count.to_le_bytes().as_slice(), &page_bytes.to_le_bytes(), &table, &names].concat()
}

/// Registers from the bytes of a thread's `NT_PRSTATUS`; on aarch64 its thread pointer and system call come from
/// notes of their own.
pub fn registers(
    architecture: Architecture,
    bytes: &[u8],
    thread_pointer: u64,
    system_call: Option<i32>,
) -> Option<Registers> {
    match architecture {
        Architecture::X86_64 => Registers::from_x86_64_user_regs(bytes),
        Architecture::Aarch64 => Registers::from_aarch64_user_regs(bytes, thread_pointer, system_call),
    }
}

fn cut(text: &str, len_bytes: usize) -> &[u8] {
    text.as_bytes().get(..len_bytes).unwrap_or(text.as_bytes())
}

fn put(bytes: &mut [u8], start: usize, part: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(start).zip(part) {
        *place = *byte;
    }
}

/// Text up to its closing zero.
pub(super) fn text_of(bytes: &[u8]) -> String {
    let len_bytes = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..len_bytes).unwrap_or_default()).into_owned()
}

pub(super) fn u64_at(bytes: &[u8], start: usize) -> Option<u64> {
    bytes.get(start..start.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

pub(super) fn i32_at(bytes: &[u8], start: usize) -> Option<i32> {
    bytes.get(start..start.checked_add(4)?)?.try_into().ok().map(i32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::maps::parse_line;
    use proptest::prelude::*;

    #[test]
    fn a_thread_is_read_back_from_the_length_that_the_kernel_gives_it() {
        let words: Vec<u8> = (0..27_u64).flat_map(u64::to_le_bytes).collect();
        let registers = Registers::from_x86_64_user_regs(&words).unwrap();
        let descriptor = thread(4121, &registers);
        assert_eq!(descriptor.len(), 336, "sizeof(struct elf_prstatus) on x86-64");
        let status = parse_thread(&descriptor).unwrap();
        assert_eq!((status.tid, status.registers), (4121, words.as_slice()));
        assert_eq!(parse_thread(&descriptor[..100]), None);
    }

    #[test]
    fn names_that_are_too_long_are_cut() {
        let status = ProcessStatus { pid: 7, name: "a".repeat(40), arguments: "b".repeat(400) };
        let descriptor = process(&status);
        assert_eq!(descriptor.len(), 136, "sizeof(struct elf_prpsinfo) on 64-bit systems");
        let status = parse_process(&descriptor).unwrap();
        assert_eq!((status.pid, status.name.len(), status.arguments.len()), (7, 15, 79));
    }

    #[test]
    fn mapped_files_come_back() {
        let lines = [
            "1000-3000 r-xp 00002000 08:01 131 /opt/a b",
            "3000-4000 rw-p 00000000 00:00 0",
            "5000-6000 rw-p 00004000 08:01 131 /opt/a b (deleted)",
        ];
        let mappings: Vec<Mapping> = lines.iter().map(|line| parse_line(line.as_bytes()).unwrap()).collect();
        let descriptor = files(&mappings, 4096);
        let found = parse_files(&descriptor).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].range, found[0].file_offset), (mappings[0].range, 0x2000));
        assert_eq!(found[0].path.to_str(), Some("/opt/a b"));
        assert_eq!((found[0].deleted, found[1].deleted), (false, true));
        assert_eq!(parse_files(&descriptor[..30]), None);
    }

    proptest! {
        #[test]
        fn no_note_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = (parse_thread(&bytes), parse_process(&bytes), parse_files(&bytes));
        }
    }
}
