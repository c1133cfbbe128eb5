//! Records that the kernel's performance events write into their ring, as far as a breakpoint makes them.
//!
//! Layout: Linux 6.1, `enum perf_event_type` in `include/uapi/linux/perf_event.h`; registers of a sample are those of
//! `arch/*/include/uapi/asm/perf_regs.h`.

use crate::registers::{AARCH64_USER_REGS_LEN_BYTES, X86_64_USER_REGS_LEN_BYTES};
use crate::{Architecture, Registers};

/// `PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR | PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER`: what
/// [`Hit::parse`] expects.
pub const SAMPLE_TYPE: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 13;

const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;
const HEADER_LEN_BYTES: usize = 8;

/// For each register of a sample on x86-64, bits 0 to 11 and 16 to 23, its word in `user_regs_struct`.
const X86_64_WORDS: [usize; 20] = [10, 5, 11, 12, 13, 14, 4, 19, 16, 18, 17, 20, 9, 8, 7, 6, 3, 2, 1, 0];
/// Without the segments that hold nothing in 64-bit mode.
const X86_64_MASK: u64 = 0xff_0fff;
const X86_64_WORD_ORIG_RAX: usize = 15;
/// x0 to x30, the stack pointer, the program counter.
const AARCH64_MASK: u64 = (1 << 33) - 1;

/// The registers to ask for: `perf_event_attr.sample_regs_user`.
pub const fn register_mask(architecture: Architecture) -> u64 {
    match architecture {
        Architecture::X86_64 => X86_64_MASK,
        Architecture::Aarch64 => AARCH64_MASK,
    }
}

/// A thread at the moment when it ran into a breakpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The thread.
    pub tid: i32,
    /// Nanoseconds of the clock that the event was opened with.
    pub time_ns: u64,
    /// The address that it was about: of the breakpoint, or of the byte that had no page.
    pub address: u64,
    /// Its registers, without the thread pointer. Behind the instruction, where it wrote the watched word.
    pub registers: Registers,
    /// The bytes from its stack pointer on.
    pub stack: Vec<u8>,
}

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A hit.
    Hit(Box<Hit>),
    /// So many records found no room in the ring.
    Lost(u64),
    /// Something else, or a hit that makes no sense.
    Other,
}

impl Record {
    /// The first record of `bytes`, and its length; `None` where there is no whole one.
    pub fn parse(architecture: Architecture, bytes: &[u8]) -> Option<(Self, usize)> {
        let kind = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let len_bytes = usize::from(u16::from_le_bytes(bytes.get(6..8)?.try_into().ok()?));
        let body = bytes.get(HEADER_LEN_BYTES..len_bytes)?;
        let record = match kind {
            RECORD_SAMPLE => {
                Hit::parse(architecture, body).map_or(Self::Other, |hit| Self::Hit(Box::new(hit)))
            }
            RECORD_LOST => word(body, 1).map_or(Self::Other, Self::Lost),
            _ => Self::Other,
        };
        Some((record, len_bytes))
    }
}

impl Hit {
    fn parse(architecture: Architecture, body: &[u8]) -> Option<Self> {
        const FIRST_REGISTER: usize = 4;
        let tid = i32::try_from(word(body, 0)? >> 32).ok()?;
        // The kind of the registers: 2 stands for 64 bits; 0, without any, for a thread of the kernel.
        if word(body, 3)? != 2 {
            return None;
        }
        let count = register_mask(architecture).count_ones() as usize;
        let registers =
            (0..count).map(|index| word(body, FIRST_REGISTER + index)).collect::<Option<Vec<u64>>>()?;
        let size_at = FIRST_REGISTER + count;
        let size = usize::try_from(word(body, size_at)?).ok()?;
        let start = (size_at + 1) * 8;
        let stack = body.get(start..start.checked_add(size)?)?;
        // How much of it the kernel could copy stands behind it.
        let filled = if size == 0 { 0 } else { word(body, size_at + 1 + size / 8)? };
        let stack = stack.get(..usize::try_from(filled).ok()?)?;
        Some(Self {
            tid,
            time_ns: word(body, 1)?,
            address: word(body, 2)?,
            registers: registers_of(architecture, &registers)?,
            stack: stack.to_vec(),
        })
    }
}

fn registers_of(architecture: Architecture, sampled: &[u64]) -> Option<Registers> {
    match architecture {
        Architecture::X86_64 => {
            let mut words = [0; X86_64_USER_REGS_LEN_BYTES / 8];
            for (&value, &place) in sampled.iter().zip(&X86_64_WORDS) {
                *words.get_mut(place)? = value;
            }
            // It ran its own code, and was in no system call.
            *words.get_mut(X86_64_WORD_ORIG_RAX)? = u64::MAX;
            Registers::from_x86_64_user_regs(&bytes_of(&words))
        }
        Architecture::Aarch64 => {
            let mut words = [0; AARCH64_USER_REGS_LEN_BYTES / 8];
            for (place, &value) in words.iter_mut().zip(sampled) {
                *place = value;
            }
            Registers::from_aarch64_user_regs(&bytes_of(&words), 0, None)
        }
    }
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn word(bytes: &[u8], index: usize) -> Option<u64> {
    let start = index.checked_mul(8)?;
    bytes.get(start..start.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(filled: u64) -> Vec<u8> {
        let mut body = vec![7_u64 << 32 | 6, 99, 0x5000, 2];
        body.extend(100..120);
        body.extend([16, 0x1111, 0x2222, filled]);
        let mut bytes = RECORD_SAMPLE.to_le_bytes().to_vec();
        bytes.extend([2, 0]);
        bytes.extend(u16::try_from(HEADER_LEN_BYTES + body.len() * 8).unwrap().to_le_bytes());
        bytes.extend(bytes_of(&body));
        bytes
    }

    #[test]
    fn a_sample_has_registers_and_the_part_of_the_stack_that_was_copied() {
        let bytes = sample(8);
        let (record, len_bytes) = Record::parse(Architecture::X86_64, &bytes).unwrap();
        assert_eq!(len_bytes, bytes.len());
        let Record::Hit(hit) = record else { panic!("{record:?}") };
        assert_eq!((hit.tid, hit.time_ns, hit.address), (7, 99, 0x5000));
        assert_eq!(hit.stack, 0x1111_u64.to_le_bytes());
        assert_eq!((hit.registers.stack_pointer, hit.registers.program_counter), (107, 108));
        // By DWARF number: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 and on.
        let expected = [100, 103, 102, 101, 104, 105, 106, 107, 112, 113, 114, 115, 116, 117, 118, 119, 108];
        assert_eq!(hit.registers.general(), expected);
        assert!(!hit.registers.in_system_call);
    }

    #[test]
    fn what_makes_no_sense_is_passed_over_and_what_is_cut_short_is_not_read() {
        assert_eq!(Record::parse(Architecture::X86_64, &sample(24)).unwrap().0, Record::Other);
        let whole = sample(8);
        for len_bytes in 0..whole.len() {
            assert_eq!(Record::parse(Architecture::X86_64, &whole[..len_bytes]), None);
        }
    }

    #[test]
    fn lost_records_are_counted() {
        let mut bytes = RECORD_LOST.to_le_bytes().to_vec();
        bytes.extend([0, 0, 24, 0]);
        bytes.extend(bytes_of(&[1, 5]));
        assert_eq!(Record::parse(Architecture::X86_64, &bytes), Some((Record::Lost(5), 24)));
    }
}
