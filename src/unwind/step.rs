//! One step: the registers of the caller by a rule, or without one.

use super::expression::{self, NoValue};
use super::frame::{End, Trust};
use super::registers::KnownRegisters;
use super::rule::{Cfa, Place, Rule, RuleStore};
use crate::arch::{Cpu, Link};
use crate::memory::{Fault, Memory, MemoryExt};

/// The caller's registers and how they were had.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Its registers, as far as they are known; the stack pointer always is.
    pub registers: KnownRegisters,
    /// Where it goes on.
    pub program_counter: u64,
    /// How this was found out.
    pub trust: Trust,
    /// It called, and was not interrupted.
    pub is_caller: bool,
}

/// What a step starts from.
#[derive(Debug)]
pub struct Stepper<'a, M: ?Sized> {
    /// The CPU.
    pub cpu: &'static Cpu,
    /// Where expressions of rules are.
    pub store: &'a RuleStore,
    /// The stack.
    pub memory: &'a M,
    /// The registers of the frame that is left.
    pub registers: &'a KnownRegisters,
    /// Its program counter.
    pub program_counter: u64,
    /// It is a caller itself.
    pub is_caller: bool,
}

impl<M: Memory + ?Sized> Stepper<'_, M> {
    /// The caller by call frame information.
    ///
    /// # Errors
    /// Why there is none.
    pub fn by_rule(&self, rule: &Rule) -> Result<Caller, End> {
        let cfa = self.cfa(rule.cfa)?;
        if rule.return_address == Place::Undefined {
            return Err(End::ThreadStart);
        }
        let return_address = match (self.value(rule.return_address, cfa, None)?, self.cpu.link) {
            (Some(address), _) => address,
            // Only code that nobody has called from may still have its return address in the register.
            (None, Link::Register(link)) if !self.is_caller => {
                self.registers.get(link).ok_or_else(|| self.bad_rule())?
            }
            (None, _) => return Err(self.bad_rule()),
        };
        let mut next = *self.registers;
        if !rule.is_interruption {
            next.keep_preserved(self.cpu);
        }
        next.set(self.cpu.stack_pointer, cfa);
        for (register, place) in &rule.saved {
            match (self.value(*place, cfa, Some(*register))?, place) {
                (Some(value), _) => next.set(*register, value),
                (None, Place::Undefined) => next.forget(*register),
                (None, _) => {}
            }
        }
        let program_counter = return_address & self.cpu.code_address_mask;
        // Expressions of linkage tables ask for it.
        next.set(self.cpu.program_counter, program_counter);
        Ok(Caller {
            registers: next,
            program_counter,
            trust: Trust::CallFrameInformation,
            is_caller: !rule.is_interruption,
        })
    }

    fn cfa(&self, cfa: Cfa) -> Result<u64, End> {
        match cfa {
            Cfa::Register(register, offset) => self.sum(register, offset),
            Cfa::AtRegister(register, offset) => self.word(self.sum(register, offset)?),
            Cfa::Expression(id) => {
                let expression = self.store.expression(id).ok_or_else(|| self.bad_rule())?;
                self.evaluate(expression, None)
            }
        }
    }

    /// The value at a place; `None` where the place does not give one. `register` is whose value it is.
    #[inline]
    fn value(&self, place: Place, cfa: u64, register: Option<u8>) -> Result<Option<u64>, End> {
        let expression = |id| self.store.expression(id).ok_or_else(|| self.bad_rule());
        match place {
            Place::Undefined => Ok(None),
            // Where the code says so itself, it holds for registers too that functions need not preserve.
            Place::Same => Ok(register.and_then(|register| self.registers.get(register))),
            Place::AtCfa(offset) => self.word(cfa.wrapping_add_signed(offset.into())).map(Some),
            Place::IsCfa(offset) => Ok(Some(cfa.wrapping_add_signed(offset.into()))),
            Place::AtRegister(register, offset) => self.word(self.sum(register, offset)?).map(Some),
            Place::IsRegister(register, offset) => self.sum(register, offset).map(Some),
            Place::AtExpression(id) => self.word(self.evaluate(expression(id)?, Some(cfa))?).map(Some),
            Place::IsExpression(id) => self.evaluate(expression(id)?, Some(cfa)).map(Some),
        }
    }

    #[inline]
    fn sum(&self, register: u8, offset: i32) -> Result<u64, End> {
        let value = self.registers.get(register).ok_or_else(|| self.bad_rule())?;
        Ok(value.wrapping_add_signed(offset.into()))
    }

    #[inline]
    fn word(&self, address: u64) -> Result<u64, End> {
        self.memory.read_u64(address).map_err(End::Fault)
    }

    fn evaluate(&self, expression: &super::rule::Expression, initial: Option<u64>) -> Result<u64, End> {
        expression::evaluate(expression, initial, self.registers, self.memory).map_err(|error| match error {
            NoValue::Fault(fault) => End::Fault(fault),
            NoValue::Senseless => self.bad_rule(),
        })
    }

    const fn bad_rule(&self) -> End {
        End::BadRule { program_counter: self.program_counter }
    }

    const fn no_rule(&self) -> End {
        End::NoRule { program_counter: self.program_counter }
    }

    /// The caller by the frame pointer: it points to the caller's own, with the return address above it, on both
    /// CPUs.
    ///
    /// # Errors
    /// Why there is none.
    pub fn by_frame_pointer(&self) -> Result<Caller, End> {
        let known = self.registers.get(self.cpu.frame_pointer);
        let (Some(frame), Some(stack)) = (known, self.registers.get(self.cpu.stack_pointer)) else {
            return Err(self.no_rule());
        };
        // The first function of a thread is entered with a frame pointer of 0.
        if frame == 0 {
            return Err(End::ThreadStart);
        }
        if frame < stack || frame % 8 != 0 {
            return Err(self.no_rule());
        }
        let saved = self.word(frame)?;
        let return_address = self.word(frame.wrapping_add(8))? & self.cpu.code_address_mask;
        if return_address == 0 && saved == 0 {
            return Err(End::ThreadStart);
        }
        let mut next = *self.registers;
        next.keep_preserved(self.cpu);
        next.set(self.cpu.frame_pointer, saved);
        next.set(self.cpu.stack_pointer, frame.checked_add(16).ok_or(Fault { address: frame })?);
        Ok(Caller {
            registers: next,
            program_counter: return_address,
            trust: Trust::FramePointer,
            is_caller: true,
        })
    }

    /// The caller of a function that has not begun yet: a call to an address without code ends up so.
    ///
    /// # Errors
    /// Why there is none.
    pub fn by_convention(&self) -> Result<Caller, End> {
        let stack = self.registers.get(self.cpu.stack_pointer).ok_or_else(|| self.no_rule())?;
        let mut next = *self.registers;
        next.keep_preserved(self.cpu);
        let return_address = match self.cpu.link {
            Link::Stack => {
                next.set(self.cpu.stack_pointer, stack.wrapping_add(8));
                self.word(stack)?
            }
            Link::Register(link) => {
                next.set(self.cpu.stack_pointer, stack);
                self.registers.get(link).ok_or_else(|| self.no_rule())?
            }
        };
        Ok(Caller {
            registers: next,
            program_counter: return_address & self.cpu.code_address_mask,
            trust: Trust::Convention,
            is_caller: true,
        })
    }
}
