//! A thread's registers, in the numbering that debugging information uses.

/// The instruction set of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// x86-64 (AMD64) in 64-bit mode.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// Its usual name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// Bytes of Linux `struct user_regs_struct` on x86-64 (`arch/x86/include/uapi/asm/ptrace.h`).
pub const X86_64_USER_REGS_LEN_BYTES: usize = 27 * 8;
/// Bytes of Linux `struct user_pt_regs` on aarch64 (`arch/arm64/include/uapi/asm/ptrace.h`).
pub const AARCH64_USER_REGS_LEN_BYTES: usize = 34 * 8;

const GENERAL_COUNT_MAX: usize = 33;

/// The integer registers of one thread at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The instruction set that gives the numbers their meaning.
    pub architecture: Architecture,
    /// Address of the next instruction.
    pub program_counter: u64,
    /// Address of the top of the stack.
    pub stack_pointer: u64,
    /// Base of the thread's local storage: `fs_base` on x86-64, `TPIDR_EL0` on aarch64. 0 where it is not known.
    pub thread_pointer: u64,
    /// The thread was inside a system call, so its program counter stands behind the instruction that made it.
    pub in_system_call: bool,
    general: [u64; GENERAL_COUNT_MAX],
    raw: [u8; AARCH64_USER_REGS_LEN_BYTES],
}

/// For each DWARF register of x86-64 (System V psABI, figure 3.36) its word in `user_regs_struct`.
const X86_64_WORD_BY_DWARF: [usize; 17] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];
const X86_64_WORD_ORIG_RAX: usize = 15;
const X86_64_WORD_FS_BASE: usize = 21;

impl Registers {
    /// Registers from the bytes of `user_regs_struct`, as `PTRACE_GETREGSET` and `NT_PRSTATUS` notes give them. `None`
    /// where there are fewer than [`X86_64_USER_REGS_LEN_BYTES`].
    pub fn from_x86_64_user_regs(bytes: &[u8]) -> Option<Self> {
        let raw = bytes.get(..X86_64_USER_REGS_LEN_BYTES)?;
        let mut general = [0; GENERAL_COUNT_MAX];
        for (register, &word) in general.iter_mut().zip(&X86_64_WORD_BY_DWARF) {
            *register = word_at(raw, word)?;
        }
        Some(Self {
            architecture: Architecture::X86_64,
            program_counter: word_at(raw, 16)?,
            stack_pointer: word_at(raw, 19)?,
            thread_pointer: word_at(raw, X86_64_WORD_FS_BASE)?,
            in_system_call: word_at(raw, X86_64_WORD_ORIG_RAX)? != u64::MAX,
            general,
            raw: padded(raw),
        })
    }

    /// Registers from the bytes of `user_pt_regs`. The thread pointer and the number of the system call (-1 for none)
    /// come from notes of their own (`NT_ARM_TLS`, `NT_ARM_SYSTEM_CALL`). `None` where there are fewer than
    /// [`AARCH64_USER_REGS_LEN_BYTES`].
    pub fn from_aarch64_user_regs(
        bytes: &[u8],
        thread_pointer: u64,
        system_call: Option<i32>,
    ) -> Option<Self> {
        let raw = bytes.get(..AARCH64_USER_REGS_LEN_BYTES)?;
        let mut general = [0; GENERAL_COUNT_MAX];
        for (word, register) in general.iter_mut().enumerate() {
            *register = word_at(raw, word)?;
        }
        Some(Self {
            architecture: Architecture::Aarch64,
            program_counter: word_at(raw, 32)?,
            stack_pointer: word_at(raw, 31)?,
            thread_pointer,
            in_system_call: system_call.is_some_and(|number| number >= 0),
            general,
            raw: padded(raw),
        })
    }

    /// The registers by DWARF number. x86-64: 0 to 15 and the return address column 16, which holds the program
    /// counter. aarch64: x0 to x30, the stack pointer as 31, the program counter as 32.
    pub fn general(&self) -> &[u64] {
        let count = match self.architecture {
            Architecture::X86_64 => X86_64_WORD_BY_DWARF.len(),
            Architecture::Aarch64 => GENERAL_COUNT_MAX,
        };
        self.general.get(..count).unwrap_or(&self.general)
    }

    /// The value of the register with this DWARF number, or `None` where there is no such register.
    pub fn get(&self, dwarf_number: u16) -> Option<u64> {
        self.general().get(usize::from(dwarf_number)).copied()
    }

    /// The bytes as the kernel laid them out, for a core file's `NT_PRSTATUS`.
    pub fn raw(&self) -> &[u8] {
        let len_bytes = match self.architecture {
            Architecture::X86_64 => X86_64_USER_REGS_LEN_BYTES,
            Architecture::Aarch64 => AARCH64_USER_REGS_LEN_BYTES,
        };
        self.raw.get(..len_bytes).unwrap_or(&self.raw)
    }
}

fn word_at(bytes: &[u8], word: usize) -> Option<u64> {
    let start = word.checked_mul(8)?;
    bytes.get(start..start + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn padded(raw: &[u8]) -> [u8; AARCH64_USER_REGS_LEN_BYTES] {
    let mut whole = [0; AARCH64_USER_REGS_LEN_BYTES];
    for (place, &byte) in whole.iter_mut().zip(raw) {
        *place = byte;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words 0, 1, 2, ... so that each register shows where it was taken from.
    fn numbered(words: usize) -> Vec<u8> {
        (0..words as u64).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn x86_64_registers_come_from_their_words() {
        let bytes = numbered(27);
        let registers = Registers::from_x86_64_user_regs(&bytes).unwrap();
        assert_eq!(registers.general().len(), 17);
        assert_eq!((registers.get(7), registers.get(16), registers.get(17)), (Some(19), Some(16), None));
        assert_eq!(
            (registers.program_counter, registers.stack_pointer, registers.thread_pointer),
            (16, 19, 21)
        );
        assert!(registers.in_system_call);
        assert_eq!(registers.raw(), bytes);
        assert_eq!(Registers::from_x86_64_user_regs(&bytes[..215]), None);
    }

    #[test]
    fn aarch64_registers_come_from_their_words() {
        let bytes = numbered(34);
        let registers = Registers::from_aarch64_user_regs(&bytes, 99, Some(-1)).unwrap();
        assert_eq!((registers.get(30), registers.get(31), registers.get(32)), (Some(30), Some(31), Some(32)));
        assert_eq!((registers.thread_pointer, registers.in_system_call), (99, false));
        assert_eq!(registers.raw(), bytes);
    }
}
