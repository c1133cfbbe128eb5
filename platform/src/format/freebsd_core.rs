//! Notes of FreeBSD core files, of FreeBSD 10 to 15 on amd64 and arm64.
//!
//! Layouts: `prstatus_t`, `prpsinfo_t` and `thrmisc_t` (FreeBSD, `sys/sys/procfs.h`), `struct reg` (`sys/*/include/reg.h`),
//! `struct kinfo_proc` and `struct kinfo_vmentry` (`sys/sys/user.h`), note types (`sys/sys/elf_common.h`).

use super::freebsd_kinfo::parse_vm_entries;
use super::linux_core::{i32_at, text_of, u64_at};
use crate::{Architecture, Mapping, Registers};

/// The owner of all notes.
pub const OWNER: &[u8] = b"FreeBSD";
/// The ELF header's mark of the system.
pub const ELFOSABI_FREEBSD: u8 = 9;
/// A thread's registers.
pub const NT_PRSTATUS: u32 = 1;
/// The process: its name.
pub const NT_PRPSINFO: u32 = 3;
/// A thread's name.
pub const NT_THRMISC: u32 = 7;
/// The process as the kernel lists it.
pub const NT_PROCSTAT_PROC: u32 = 8;
/// Mappings.
pub const NT_PROCSTAT_VMMAP: u32 = 10;
/// The auxiliary vector.
pub const NT_PROCSTAT_AUXV: u32 = 16;
/// Bases of the segments `fs` and `gs` on amd64: the first is the thread pointer.
pub const NT_X86_SEGBASES: u32 = 0x200;
/// The thread pointer of arm64.
pub const NT_ARM_TLS: u32 = 0x401;

const STATUS_TID: usize = 40;
const STATUS_REGISTERS: usize = 48;

/// Words of `struct reg` of amd64 in the order of Linux `struct user_regs_struct`; `None` where it has no such word.
const AMD64_WORDS: [Option<usize>; 27] = [
    Some(0),  // r15
    Some(1),  // r14
    Some(2),  // r13
    Some(3),  // r12
    Some(10), // rbp
    Some(11), // rbx
    Some(4),  // r11
    Some(5),  // r10
    Some(6),  // r9
    Some(7),  // r8
    Some(14), // rax
    Some(13), // rcx
    Some(12), // rdx
    Some(9),  // rsi
    Some(8),  // rdi
    None,     // orig_rax
    Some(17), // rip
    Some(18), // cs
    Some(19), // rflags
    Some(20), // rsp
    Some(21), // ss
    None,     // fs_base
    None,     // gs_base
    None,     // ds
    None,     // es
    None,     // fs
    None,     // gs
];
const ORIG_RAX: usize = 15;
const FS_BASE: usize = 21;

/// A thread, as `NT_PRSTATUS` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadStatus<'a> {
    /// Its id.
    pub tid: i32,
    /// `struct reg` as the kernel laid it out.
    pub registers: &'a [u8],
}

/// Reads the descriptor of `NT_PRSTATUS`.
pub fn parse_thread(descriptor: &[u8]) -> Option<ThreadStatus<'_>> {
    Some(ThreadStatus {
        tid: i32_at(descriptor, STATUS_TID)?,
        registers: descriptor.get(STATUS_REGISTERS..)?,
    })
}

/// Registers from the bytes of `struct reg` and from the thread pointer, which has a note of its own.
pub fn registers(architecture: Architecture, bytes: &[u8], thread_pointer: u64) -> Option<Registers> {
    match architecture {
        Architecture::X86_64 => {
            let mut words = [0_u64; 27];
            for (place, source) in words.iter_mut().zip(AMD64_WORDS) {
                if let Some(source) = source {
                    *place = u64_at(bytes, source * 8)?;
                }
            }
            // Threads do not tell whether they are in a system call.
            *words.get_mut(ORIG_RAX)? = u64::MAX;
            *words.get_mut(FS_BASE)? = thread_pointer;
            let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
            Registers::from_x86_64_user_regs(&bytes)
        }
        // x0 to x29, lr, sp, elr, spsr: the order of Linux `struct user_pt_regs`.
        Architecture::Aarch64 => Registers::from_aarch64_user_regs(bytes, thread_pointer, None),
    }
}

/// The process's id and its name, from `NT_PROCSTAT_PROC`: its first thread's entry.
pub fn parse_process(descriptor: &[u8]) -> Option<(i32, String)> {
    // ki_pid and ki_comm behind the size of the structure.
    Some((i32_at(descriptor, 4 + 72)?, text_of(descriptor.get(4 + 447..4 + 467)?)))
}

/// The name in `NT_THRMISC`; `None` where it is empty.
pub fn parse_thread_name(descriptor: &[u8]) -> Option<String> {
    descriptor.get(..20).map(text_of).filter(|name| !name.is_empty())
}

/// The name in `NT_PRPSINFO`.
pub fn parse_name(descriptor: &[u8]) -> Option<String> {
    descriptor.get(16..33).map(text_of)
}

/// The auxiliary vector's bytes in `NT_PROCSTAT_AUXV`.
pub fn auxiliary_vector(descriptor: &[u8]) -> &[u8] {
    descriptor.get(4..).unwrap_or_default()
}

/// The mappings in `NT_PROCSTAT_VMMAP`, as far as they go.
pub fn parse_mappings(descriptor: &[u8]) -> Vec<Mapping> {
    let entries = parse_vm_entries(descriptor.get(4..).unwrap_or_default());
    // Releases keep the device's number at different places; the file's number is enough to tell modules apart.
    entries.into_iter().map(|entry| Mapping { device: (0, 0), ..entry.mapping }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words 0, 1, 2, ... so that each register shows where it was taken from.
    fn numbered(words: u64) -> Vec<u8> {
        (0..words).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn amd64_registers_come_from_their_words() {
        let registers = registers(Architecture::X86_64, &numbered(22), 99).unwrap();
        assert_eq!(
            (registers.program_counter, registers.stack_pointer, registers.thread_pointer),
            (17, 20, 99),
            "r_rip at 136, r_rsp at 160"
        );
        let by_dwarf: Vec<u64> = registers.general()[..16].to_vec();
        // rax rdx rcx rbx rsi rdi rbp rsp r8..r15: r_rax at 112, r_rdx at 96, r_rcx at 104 ...
        assert_eq!(by_dwarf, [14, 12, 13, 11, 9, 8, 10, 20, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert!(!registers.in_system_call);
    }

    #[test]
    fn arm64_registers_come_from_their_words() {
        let registers = registers(Architecture::Aarch64, &numbered(34), 99).unwrap();
        assert_eq!(
            (registers.get(30), registers.stack_pointer, registers.program_counter),
            (Some(30), 31, 32)
        );
    }

    proptest! {
        #[test]
        fn no_note_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
            let _ = (parse_thread(&bytes), parse_process(&bytes), parse_name(&bytes), parse_mappings(&bytes));
            let _ = registers(Architecture::X86_64, &bytes, 0);
        }
    }
}
