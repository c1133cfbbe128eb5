//! Unwinding: from a thread's registers and stack to the calls that led there.
//!
//! An [`Unwinder`] knows the modules of a process and what their call frame information says; it reads the stack
//! through [`Memory`] and so cannot tell a live process from a capture or a core. What it learns about an address
//! it keeps as a compact rule, so that the next stack through it costs a look into a table.
//!
//! It refuses to know names: frames are addresses, and [`crate::symbolize`] names them. It is for return
//! addresses, not for variables: registers that no rule needs are not looked for.

mod cache;
mod cfi;
mod code;
mod expression;
mod frame;
mod registers;
mod rule;
mod stack_bytes;
mod step;
mod translate;

pub use frame::{End, Frame, Stack, Trust};

use crate::arch::Cpu;
use crate::memory::Memory;
use crate::module::Module;
use cache::{Known, RuleCache};
use code::CodeMap;
use gimli::UnwindContext;
use heaptap_platform::{AddressRange, Architecture, Registers};
use registers::KnownRegisters;
use rule::{Rule, RuleStore};
use stack_bytes::StackBytes;
use step::{Caller, Stepper};

/// What unwinding of one stack may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames of one stack at most.
    pub frames: usize,
    /// Changes to a stack at a lower address at most: signal handlers and coroutines may have a stack of their
    /// own.
    pub stack_changes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frames: 1 << 16, stack_changes: 16 }
    }
}

/// Unwinds stacks of one process.
#[derive(Debug)]
pub struct Unwinder<'m> {
    cpu: &'static Cpu,
    limits: Limits,
    code: CodeMap<'m>,
    store: RuleStore,
    cache: RuleCache,
    context: UnwindContext<usize>,
}

/// What the rules were learnt from and how often one was known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learnt {
    /// Rules that differ.
    pub rules: usize,
    /// Frames whose rule was known.
    pub hits: u64,
    /// Frames whose rule had to be looked for.
    pub misses: u64,
}

impl<'m> Unwinder<'m> {
    /// An unwinder for code of `modules`, and for other code in `executable`, such as a compiler makes at run
    /// time.
    pub fn new(architecture: Architecture, modules: &'m [Module], executable: &[AddressRange]) -> Self {
        let cpu = Cpu::of(architecture);
        Self {
            cpu,
            limits: Limits::default(),
            code: CodeMap::new(cpu, modules, executable),
            store: RuleStore::default(),
            cache: RuleCache::default(),
            context: UnwindContext::new(),
        }
    }

    /// The same with other limits.
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The frames of a thread.
    pub fn unwind<M: Memory + ?Sized>(&mut self, registers: &Registers, memory: &M) -> Stack {
        let mut frames = Vec::new();
        let end = self.unwind_into(registers, memory, &mut frames);
        Stack { frames, end }
    }

    /// The frames of a thread, in place of what `frames` held; and why there are no more.
    pub fn unwind_into<M: Memory + ?Sized>(
        &mut self,
        registers: &Registers,
        memory: &M,
        frames: &mut Vec<Frame>,
    ) -> End {
        frames.clear();
        let memory = &StackBytes::new(memory);
        let mut known = KnownRegisters::of_thread(registers);
        let mut frame = Frame {
            program_counter: registers.program_counter,
            stack_pointer: registers.stack_pointer,
            trust: Trust::Registers,
            is_caller: false,
        };
        let mut stack_changes = 0;
        loop {
            frames.push(frame);
            if frames.len() >= self.limits.frames {
                return End::TooDeep { limit: self.limits.frames };
            }
            let caller = match self.step(&frame, &known, memory) {
                Ok(caller) => caller,
                Err(end) => return end,
            };
            if !caller.is_caller
                && let Some(last) = frames.last_mut()
            {
                // A handler returns here without having been called from here.
                last.is_caller = false;
            }
            if caller.program_counter == 0 {
                return End::ThreadStart;
            }
            let next = next_frame(&frame, &caller, self.cpu);
            if next.stack_pointer <= frame.stack_pointer {
                stack_changes += u32::from(next.stack_pointer < frame.stack_pointer);
                let stands = next.stack_pointer == frame.stack_pointer && frame.is_caller;
                if stands || stack_changes > self.limits.stack_changes {
                    return End::Circle { program_counter: frame.program_counter };
                }
            }
            known = caller.registers;
            frame = next;
        }
    }

    /// The caller of a frame.
    #[inline]
    fn step<M: Memory + ?Sized>(
        &mut self,
        frame: &Frame,
        registers: &KnownRegisters,
        memory: &M,
    ) -> Result<Caller, End> {
        let known = self.known_at(frame, memory);
        let stepper = Stepper {
            cpu: self.cpu,
            store: &self.store,
            memory,
            registers,
            program_counter: frame.program_counter,
            is_caller: frame.is_caller,
        };
        if let Known::Rule(id) = known
            && let Some(rule) = self.store.rule(id)
        {
            let caller = stepper.by_rule(rule)?;
            // A return address of 0 is the end, and no rule's fault.
            if caller.program_counter != 0 && !caller.is_caller | self.code.is_code(caller.program_counter) {
                return Ok(caller);
            }
            if caller.program_counter == 0 {
                return Err(End::ThreadStart);
            }
            return Err(End::NotCode {
                program_counter: frame.program_counter,
                return_address: caller.program_counter,
            });
        }
        self.without_rule(frame, &stepper)
    }

    /// The caller of code that says nothing of itself.
    fn without_rule<M: Memory + ?Sized>(
        &self,
        frame: &Frame,
        stepper: &Stepper<'_, M>,
    ) -> Result<Caller, End> {
        let caller = if !frame.is_caller && !self.code.is_code(frame.program_counter) {
            stepper.by_convention()?
        } else {
            stepper.by_frame_pointer()?
        };
        if caller.program_counter != 0 && !self.code.is_code(caller.program_counter) {
            return Err(End::NotCode {
                program_counter: frame.program_counter,
                return_address: caller.program_counter,
            });
        }
        Ok(caller)
    }

    /// The rule for a frame, from the table or from the module's call frame information.
    #[inline]
    fn known_at<M: Memory + ?Sized>(&mut self, frame: &Frame, memory: &M) -> Known {
        let address = frame.lookup_address();
        match self.cache.get(address) {
            Some(known) => known,
            None => self.learn(frame, memory),
        }
    }

    #[cold]
    fn learn<M: Memory + ?Sized>(&mut self, frame: &Frame, memory: &M) -> Known {
        if self.store.is_full() {
            self.store = RuleStore::default();
            self.cache.clear();
        }
        let address = frame.lookup_address();
        let rule = self.rule_of(frame, memory);
        let known = rule.and_then(|rule| self.store.keep(rule)).map_or(Known::Nothing, Known::Rule);
        self.cache.put(address, known);
        known
    }

    fn rule_of<M: Memory + ?Sized>(&mut self, frame: &Frame, memory: &M) -> Option<Rule> {
        let address = frame.lookup_address();
        if let Some(rule) = self.code.rule_at(address, &mut self.context, &mut self.store) {
            return Some(rule);
        }
        // A handler returns to the first instruction of the code that leaves it: nothing has called from there.
        self.code
            .signal_return_at(frame.program_counter, memory)
            .or_else(|| if frame.is_caller { None } else { self.code.stub_rule_at(address) })
    }

    /// How much has been learnt.
    pub fn learnt(&self) -> Learnt {
        let (hits, misses) = self.cache.hits_and_misses();
        Learnt { rules: self.store.count(), hits, misses }
    }
}

fn next_frame(frame: &Frame, caller: &Caller, cpu: &Cpu) -> Frame {
    Frame {
        program_counter: caller.program_counter,
        stack_pointer: caller.registers.get(cpu.stack_pointer).unwrap_or(frame.stack_pointer),
        trust: caller.trust.min(frame.trust),
        is_caller: caller.is_caller,
    }
}
