//! What an instruction has just written: x86-64 code before a hit.
//!
//! A hit on a write comes behind the instruction that wrote. It knows the forms by which compilers move a pointer or a
//! count, `mov %reg,(memory)`, `mov $n,(memory)`, `add`, `sub`, `inc` and `dec`, and refuses to know any other.

use heaptap_platform::Registers;

/// Longest such instruction: prefix, opcode, two bytes of operand, four of displacement, four of an immediate value.
pub const STORE_LEN_MAX: usize = 12;
const STORE_LEN_MIN: usize = 2;

/// DWARF numbers of the registers in the order of the machine's own numbers.
const DWARF_BY_MACHINE: [u16; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

/// What was done to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// It was given this value.
    Value(u64),
    /// This was added to it.
    Step(i64),
}

/// What the instruction that ends `code` has done to the word of `len_bytes` at `address`; `None` where no such
/// instruction ends there.
pub fn store(code: &[u8], registers: &Registers, address: u64, len_bytes: u64) -> Option<Store> {
    // The longest first: the tail of an instruction may look like another one.
    let done = (STORE_LEN_MIN..=STORE_LEN_MAX).rev().find_map(|count| {
        let instruction = code.get(code.len().checked_sub(count)?..)?;
        decode(instruction, registers).filter(|done| done.target == address)
    });
    done.filter(|done| done.len_bytes == len_bytes).map(|done| done.what)
}

/// What an instruction does to which word.
#[derive(Debug, Clone, Copy)]
struct Done {
    what: Store,
    target: u64,
    len_bytes: u64,
}

/// What `instruction` does, as a whole.
fn decode(instruction: &[u8], registers: &Registers) -> Option<Done> {
    let (prefix, rest) = match instruction {
        [prefix, rest @ ..] if prefix & 0xf0 == 0x40 => (*prefix, rest),
        all => (0x40, all),
    };
    // The operand has 64 bits with this bit of the prefix, 32 without it.
    let len_bytes = if prefix & 8 == 0 { 4 } else { 8 };
    let [opcode, mod_rm, rest @ ..] = rest else { return None };
    let (target, immediate) = operand(prefix, *mod_rm, rest, registers)?;
    let field = mod_rm >> 3 & 7;
    let narrow = |value: u64| if len_bytes == 8 { value } else { value & 0xffff_ffff };
    let what = match (opcode, field, immediate) {
        (0x89, _, []) => {
            let stored = DWARF_BY_MACHINE.get(usize::from(field) | bit(prefix, 2)).copied()?;
            Store::Value(narrow(registers.get(stored)?))
        }
        (0xc7, 0, bytes) => {
            let value = i64::from(i32::from_le_bytes(bytes.try_into().ok()?));
            Store::Value(narrow(value.cast_unsigned()))
        }
        (0xff, 0, []) => Store::Step(1),
        (0xff, 1, []) => Store::Step(-1),
        (0x83, 0, [value]) => Store::Step(i64::from(value.cast_signed())),
        (0x83, 5, [value]) => Store::Step(-i64::from(value.cast_signed())),
        _ => return None,
    };
    Some(Done { what, target, len_bytes })
}

fn bit(value: u8, bit: u8) -> usize {
    usize::from(value >> bit & 1) << 3
}

/// The address of an operand in memory, and what stands behind it in the instruction.
fn operand<'a>(prefix: u8, mod_rm: u8, rest: &'a [u8], registers: &Registers) -> Option<(u64, &'a [u8])> {
    let number = |index: usize| DWARF_BY_MACHINE.get(index).copied();
    let (mode, low) = (mod_rm >> 6, usize::from(mod_rm & 7));
    let (base, rest) = match (mode, low) {
        (3, _) | (0, 5) => return None,
        (_, 4) => {
            let (sib, rest) = rest.split_first()?;
            if mode == 0 && sib & 7 == 5 {
                return None;
            }
            let base = registers.get(number(usize::from(sib & 7) | bit(prefix, 0))?)?;
            let index = usize::from(sib >> 3 & 7) | bit(prefix, 1);
            let scaled = if index == 4 { 0 } else { registers.get(number(index)?)? << (sib >> 6) };
            (base.wrapping_add(scaled), rest)
        }
        _ => (registers.get(number(low | bit(prefix, 0))?)?, rest),
    };
    let (displacement, rest) = match mode {
        0 => (0, rest),
        1 => {
            let (displacement, rest) = rest.split_first()?;
            (i64::from(displacement.cast_signed()), rest)
        }
        _ => {
            let (displacement, rest) = rest.split_at_checked(4)?;
            (i64::from(i32::from_le_bytes(displacement.try_into().ok()?)), rest)
        }
    };
    Some((base.wrapping_add_signed(displacement), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers whose values are 0x1000 times the machine's own word number of `user_regs_struct`.
    fn registers() -> Registers {
        let bytes: Vec<u8> = (0..27_u64).flat_map(|word| (word * 0x1000).to_le_bytes()).collect();
        Registers::from_x86_64_user_regs(&bytes).unwrap()
    }

    #[test]
    fn the_stored_value_is_found_behind_other_code() {
        let registers = registers();
        // mov %rdx,(%rax); rax is word 10, rdx word 12.
        let found = store(&[0x90, 0x90, 0x48, 0x89, 0x10], &registers, 0xa000, 8);
        assert_eq!(found, Some(Store::Value(0xc000)));
        // mov %r9,0x40(%rbx): rbx is word 5, r9 word 8.
        let found = store(&[0x4c, 0x89, 0x4b, 0x40], &registers, 0x5040, 8);
        assert_eq!(found, Some(Store::Value(0x8000)));
        // mov %rsi,0x358(%r13,%rcx,8): r13 is word 2, rcx word 11, rsi word 13.
        let code = [0x49, 0x89, 0xb4, 0xcd, 0x58, 0x03, 0, 0];
        let found = store(&code, &registers, 0x2000 + 8 * 0xb000 + 0x358, 8);
        assert_eq!(found, Some(Store::Value(0xd000)));
        // movq $0,0x80(%rax)
        let code = [0x48, 0xc7, 0x80, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(store(&code, &registers, 0xa080, 8), Some(Store::Value(0)));
    }

    #[test]
    fn counts_are_written_or_stepped() {
        let registers = registers();
        // mov %edx,0x4(%rax)
        assert_eq!(store(&[0x89, 0x50, 0x04], &registers, 0xa004, 4), Some(Store::Value(0xc000)));
        // decl 0x4(%rax); subl $1,0x4(%rax); incl 0x4(%r8): r8 is word 9.
        assert_eq!(store(&[0xff, 0x48, 0x04], &registers, 0xa004, 4), Some(Store::Step(-1)));
        assert_eq!(store(&[0x83, 0x68, 0x04, 0x01], &registers, 0xa004, 4), Some(Store::Step(-1)));
        assert_eq!(store(&[0x41, 0xff, 0x40, 0x04], &registers, 0x9004, 4), Some(Store::Step(1)));
    }

    #[test]
    fn stores_elsewhere_and_of_other_lengths_and_other_code_are_not() {
        let registers = registers();
        assert_eq!(store(&[0x48, 0x89, 0x10], &registers, 0xb000, 8), None);
        assert_eq!(store(&[0x48, 0x89, 0x10], &registers, 0xa000, 4), None);
        assert_eq!(store(&[0x48, 0x8b, 0x10], &registers, 0xa000, 8), None);
        assert_eq!(store(&[], &registers, 0, 8), None);
    }
}
