//! Cores of aarch64 processes, of Linux and of FreeBSD, written here from the documented layouts: what the notes say is
//! read as it was written. Nothing is shared with the reader.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap::capture::core_file::{self, CoreFile};
use heaptap::memory::MemoryExt;
use heaptap_platform::{Architecture, MappingKind};
use std::path::Path;

const EM_AARCH64: u16 = 183;

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `bytes` with `part` at `offset`.
fn put(bytes: &mut [u8], offset: usize, part: &[u8]) {
    bytes[offset..offset + part.len()].copy_from_slice(part);
}

fn note(owner: &str, kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let padded = |part: &[u8]| [part, &vec![0; part.len().next_multiple_of(4) - part.len()]].concat();
    let owner = [owner.as_bytes(), b"\0"].concat();
    let lengths = [owner.len(), descriptor.len()].map(|length| u32::try_from(length).unwrap().to_le_bytes());
    [lengths[0].as_slice(), &lengths[1], &kind.to_le_bytes(), &padded(&owner), &padded(descriptor)].concat()
}

/// A core with one stretch of memory at `0x40_0000`, `rw-`.
fn core(abi: u8, notes: &[u8], memory: &[u8]) -> CoreFile {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, abi, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([4_u16, EM_AARCH64].iter().flat_map(|half| half.to_le_bytes()));
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(words(&[0, 64, 0]));
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 56, 2, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    let start = 64 + 2 * 56;
    let end = start + notes.len() as u64;
    let note_header = [4, start, 0, 0, notes.len() as u64, 0, 4];
    let length = memory.len() as u64;
    bytes.extend(words(&note_header));
    bytes.extend(words(&[(6 << 32) | 1, end, 0x40_0000, 0, length, length, 4096]));
    bytes.extend(notes);
    bytes.extend(memory);
    core_file::from_bytes(bytes, Path::new("made.core")).expect("it is a core")
}

/// x0 to x30 are 0x100 to 0x11e, then the stack pointer, the program counter and the state.
fn registers(stack_pointer: u64, program_counter: u64) -> Vec<u8> {
    let general: Vec<u64> = (0..31).map(|register| 0x100 + register).collect();
    [words(&general), words(&[stack_pointer, program_counter, 0])].concat()
}

#[test]
fn a_core_of_linux() {
    let thread = |tid: i32, pointer: u64| {
        let mut status = vec![0; 392];
        put(&mut status, 32, &tid.to_le_bytes());
        put(&mut status, 112, &registers(0x7000 + pointer, 0x8000 + pointer));
        let own = note("LINUX", 0x401, &words(&[pointer]));
        [note("CORE", 1, &status), own, note("LINUX", 0x404, &(-1_i32).to_le_bytes())].concat()
    };
    let mut process = vec![0; 136];
    put(&mut process, 24, &4121_i32.to_le_bytes());
    put(&mut process, 40, b"adserver");
    let files = [words(&[1, 4096, 0x20_0000, 0x20_3000, 2]), b"/opt/adserver\0".to_vec()].concat();
    let notes = [
        thread(4121, 0x10),
        note("CORE", 3, &process),
        note("CORE", 6, &words(&[9, 0x20_1000, 0, 0])),
        note("CORE", 0x4649_4c45, &files),
        thread(4122, 0x20),
    ];
    let core = core(0, &notes.concat(), &words(&[11, 22]));
    assert_eq!((core.origin.pid, core.origin.name.as_str()), (4121, "adserver"));
    assert_eq!((core.origin.os.as_str(), core.origin.exe.as_str()), ("linux", "/opt/adserver"));
    let found: Vec<[u64; 4]> = core
        .capture
        .threads
        .iter()
        .map(|thread| {
            let registers = thread.registers;
            assert_eq!((registers.architecture, registers.get(30)), (Architecture::Aarch64, Some(0x11e)));
            let (pointer, counter) = (registers.thread_pointer, registers.program_counter);
            [thread.tid as u64, pointer, registers.stack_pointer, counter]
        })
        .collect();
    assert_eq!(found, [[4121, 0x10, 0x7010, 0x8010], [4122, 0x20, 0x7020, 0x8020]]);
    assert_eq!(core.capture.memory.read_u64(0x40_0008), Ok(22));
    let starts: Vec<(u64, u64)> =
        core.mappings.iter().map(|mapping| (mapping.range.start, mapping.file_offset)).collect();
    assert_eq!(
        starts,
        [(0x20_0000, 0x2000), (0x40_0000, 0)],
        "a file that is not in the core is mapped all the same"
    );
}

/// An entry of `NT_PROCSTAT_VMMAP`, cut behind its path as the kernel does it.
fn vm_entry(kind: i32, flags: i32, rights: i32, range: [u64; 2], path: &str) -> Vec<u8> {
    let size = (136 + path.len() + 1).next_multiple_of(8);
    let mut entry = vec![0; size];
    put(&mut entry, 0, &i32::try_from(size).unwrap().to_le_bytes());
    put(&mut entry, 4, &kind.to_le_bytes());
    put(&mut entry, 8, &words(&range));
    put(&mut entry, 32, &77_u64.to_le_bytes());
    put(&mut entry, 44, &flags.to_le_bytes());
    put(&mut entry, 56, &rights.to_le_bytes());
    put(&mut entry, 136, path.as_bytes());
    entry
}

#[test]
fn a_core_of_freebsd() {
    let sized = |size: u32, rest: &[u8]| [size.to_le_bytes().as_slice(), rest].concat();
    let mut status = vec![0; 320];
    put(&mut status, 40, &100_055_i32.to_le_bytes());
    put(&mut status, 48, &registers(0x7000, 0x20_1000));
    let mut process = vec![0; 1088];
    put(&mut process, 72, &39_i32.to_le_bytes());
    put(&mut process, 447, b"work");
    let entries = [
        vm_entry(2, 1, 5, [0x20_0000, 0x20_3000], "/opt/work"),
        vm_entry(1, 0, 3, [0x40_0000, 0x40_1000], ""),
        vm_entry(1, 0x20, 3, [0x80_0000, 0x80_2000], ""),
    ];
    let notes = [
        note("FreeBSD", 1, &status),
        note("FreeBSD", 0x401, &words(&[0x1234])),
        note("FreeBSD", 8, &sized(1088, &process)),
        note("FreeBSD", 10, &sized(1160, &entries.concat())),
        note("FreeBSD", 16, &sized(16, &words(&[9, 0x20_1000, 0, 0]))),
    ];
    let core = core(9, &notes.concat(), &words(&[11, 22]));
    assert_eq!((core.origin.pid, core.origin.name.as_str()), (39, "work"));
    assert_eq!((core.origin.os.as_str(), core.origin.exe.as_str()), ("freebsd", "/opt/work"));
    let thread = core.capture.threads[0];
    assert_eq!((thread.tid, thread.registers.thread_pointer), (100_055, 0x1234));
    assert_eq!((thread.registers.stack_pointer, thread.registers.program_counter), (0x7000, 0x20_1000));
    assert_eq!(thread.registers.get(30), Some(0x11e));
    let kinds: Vec<&MappingKind> = core.mappings.iter().map(|mapping| &mapping.kind).collect();
    assert!(matches!(kinds[0], MappingKind::File { path, .. } if path == Path::new("/opt/work")));
    assert_eq!(kinds[1..], [&MappingKind::Anonymous { name: None }, &MappingKind::Stack]);
    assert!(core.mappings[0].executable && !core.mappings[0].writable && core.mappings[1].writable);
}
