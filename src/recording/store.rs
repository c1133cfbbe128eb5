//! Which register an instruction has just stored: x86-64 code before a hit.
//!
//! A hit on a write comes behind the instruction that wrote. It knows the one form that compilers store a pointer by,
//! `mov %reg,(memory)`, and refuses to know any other.

use heaptap_platform::Registers;

/// Longest such instruction: prefix, opcode, two bytes of operand, four of displacement.
pub const STORE_LEN_MAX: usize = 8;
const STORE_LEN_MIN: usize = 3;

/// DWARF numbers of the registers in the order of the machine's own numbers.
const DWARF_BY_MACHINE: [u16; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

/// The DWARF number of the register that the instruction that ends `code` has stored at `address`; `None` where no such
/// instruction ends there.
pub fn stored_register(code: &[u8], registers: &Registers, address: u64) -> Option<u16> {
    (STORE_LEN_MIN..=STORE_LEN_MAX).find_map(|len_bytes| {
        let instruction = code.get(code.len().checked_sub(len_bytes)?..)?;
        decode(instruction, registers).filter(|(_, target)| *target == address).map(|(register, _)| register)
    })
}

/// The stored register and the address of `mov %r64,(memory)` that is exactly `instruction`.
fn decode(instruction: &[u8], registers: &Registers) -> Option<(u16, u64)> {
    let [prefix, 0x89, mod_rm, rest @ ..] = instruction else { return None };
    if prefix & 0xf8 != 0x48 {
        return None;
    }
    let bit = |value: u8, bit: u8| usize::from(value >> bit & 1) << 3;
    let number = |index: usize| DWARF_BY_MACHINE.get(index).copied();
    let (mode, low) = (mod_rm >> 6, usize::from(mod_rm & 7));
    let stored = number(usize::from(mod_rm >> 3 & 7) | bit(*prefix, 2))?;
    let (mut address, rest) = match (mode, low) {
        (3, _) | (0, 5) => return None,
        (_, 4) => {
            let (sib, rest) = rest.split_first()?;
            if mode == 0 && sib & 7 == 5 {
                return None;
            }
            let base = registers.get(number(usize::from(sib & 7) | bit(*prefix, 0))?)?;
            let index = usize::from(sib >> 3 & 7) | bit(*prefix, 1);
            let scaled = if index == 4 { 0 } else { registers.get(number(index)?)? << (sib >> 6) };
            (base.wrapping_add(scaled), rest)
        }
        _ => (registers.get(number(low | bit(*prefix, 0))?)?, rest),
    };
    address = match (mode, rest) {
        (0, []) => address,
        (1, [displacement]) => address.wrapping_add_signed(i64::from(displacement.cast_signed())),
        (2, bytes) => {
            let displacement = i32::from_le_bytes(bytes.try_into().ok()?);
            address.wrapping_add_signed(i64::from(displacement))
        }
        _ => return None,
    };
    Some((stored, address))
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
    fn the_stored_register_is_found_behind_other_code() {
        let registers = registers();
        // mov %rdx,(%rax); rax is word 10, rdx is DWARF register 1.
        assert_eq!(stored_register(&[0x90, 0x90, 0x48, 0x89, 0x10], &registers, 0xa000), Some(1));
        // mov %r9,0x40(%rbx): rbx is word 5.
        assert_eq!(stored_register(&[0x4c, 0x89, 0x4b, 0x40], &registers, 0x5040), Some(9));
        // mov %rsi,0x358(%r13,%rcx,8): r13 is word 2, rcx word 11.
        let code = [0x49, 0x89, 0xb4, 0xcd, 0x58, 0x03, 0, 0];
        assert_eq!(stored_register(&code, &registers, 0x2000 + 8 * 0xb000 + 0x358), Some(4));
    }

    #[test]
    fn stores_elsewhere_and_other_code_are_not() {
        let registers = registers();
        assert_eq!(stored_register(&[0x48, 0x89, 0x10], &registers, 0xb000), None);
        assert_eq!(stored_register(&[0x48, 0x8b, 0x10], &registers, 0xa000), None);
        assert_eq!(stored_register(&[], &registers, 0), None);
    }
}
