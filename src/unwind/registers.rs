//! The registers of one call frame, as far as they are known.

use crate::arch::{Cpu, REGISTERS_MAX};
use heaptap_platform::Registers;

/// Values of registers by DWARF number. A register that a called function was free to change is not known.
#[derive(Debug, Clone, Copy)]
pub struct KnownRegisters {
    values: [u64; REGISTERS_MAX],
    known: u64,
}

impl KnownRegisters {
    /// All registers of a thread.
    pub fn of_thread(registers: &Registers) -> Self {
        let mut all = Self { values: [0; REGISTERS_MAX], known: 0 };
        for (number, value) in registers.general().iter().enumerate().take(REGISTERS_MAX) {
            all.set(u8::try_from(number).unwrap_or(u8::MAX), *value);
        }
        all
    }

    /// The value of a register, or `None` where it is not known or there is no such register.
    #[inline]
    pub fn get(&self, register: u8) -> Option<u64> {
        let value = self.values.get(usize::from(register))?;
        if self.known & (1 << register) != 0 { Some(*value) } else { None }
    }

    /// Gives a register a value; registers that have no place are left out.
    #[inline]
    pub fn set(&mut self, register: u8, value: u64) {
        if let Some(place) = self.values.get_mut(usize::from(register)) {
            *place = value;
            self.known |= 1 << register;
        }
    }

    /// Makes a register unknown.
    #[inline]
    pub const fn forget(&mut self, register: u8) {
        if (register as usize) < REGISTERS_MAX {
            self.known &= !(1 << register);
        }
    }

    /// Forgets what a called function need not preserve.
    #[inline]
    pub const fn keep_preserved(&mut self, cpu: &Cpu) {
        self.known &= cpu.preserved;
    }
}
