//! Where code is, and what the module that it belongs to says of its frames.

use super::cfi::CallFrameTable;
use super::rule::{Cfa, Place, Rule, RuleStore};
use super::translate::{self, Source};
use crate::arch::{Cpu, Link, SignalReturn};
use crate::memory::{Memory, MemoryExt};
use crate::module::{Image, Module};
use gimli::UnwindContext;
use heaptap_platform::{AddressRange, merge_ranges};
use std::cell::OnceCell;

/// All code of a process, in address order.
#[derive(Debug)]
pub struct CodeMap<'m> {
    cpu: &'static Cpu,
    modules: Vec<CodeModule<'m>>,
    executable: Vec<AddressRange>,
}

/// A module with its tables, which are opened when they are first asked for.
#[derive(Debug)]
struct CodeModule<'m> {
    range: AddressRange,
    bias: u64,
    image: Option<&'m Image>,
    debug: Option<&'m Image>,
    own: OnceCell<CallFrameTable<'m>>,
    /// Of the separate file with debug information.
    apart: OnceCell<CallFrameTable<'m>>,
    stubs: OnceCell<Vec<AddressRange>>,
}

impl<'m> CodeMap<'m> {
    /// The code of `modules` and what else can be executed.
    pub fn new(cpu: &'static Cpu, modules: &'m [Module], executable: &[AddressRange]) -> Self {
        let mut all: Vec<CodeModule<'m>> = modules.iter().map(CodeModule::of).collect();
        all.sort_unstable_by_key(|module| module.range.start);
        let mut executable = executable.to_vec();
        for module in &all {
            let code = module.image.map(Image::code).unwrap_or_default();
            executable.extend(code.iter().map(|range| AddressRange {
                start: range.start.wrapping_add(module.bias),
                end: range.end.wrapping_add(module.bias),
            }));
        }
        executable.retain(|range| range.start < range.end);
        Self { cpu, modules: all, executable: merge_ranges(executable, 0) }
    }

    /// Whether an address can be executed.
    #[inline]
    pub fn is_code(&self, address: u64) -> bool {
        let after = self.executable.partition_point(|range| range.start <= address);
        let range = after.checked_sub(1).and_then(|index| self.executable.get(index));
        range.is_some_and(|range| address < range.end)
    }

    fn module_at(&self, address: u64) -> Option<&CodeModule<'m>> {
        let after = self.modules.partition_point(|module| module.range.start <= address);
        let module = self.modules.get(after.checked_sub(1)?)?;
        if address < module.range.end { Some(module) } else { None }
    }

    /// The rule that call frame information gives for an address.
    pub fn rule_at(
        &self,
        address: u64,
        context: &mut UnwindContext<usize>,
        store: &mut RuleStore,
    ) -> Option<Rule> {
        let module = self.module_at(address)?;
        let mut rule_of = |table| {
            let source = Source { table, bias: module.bias, cpu: self.cpu };
            translate::rule_at(&source, address, context, store)
        };
        if let Some(image) = module.image
            && let Some(rule) = rule_of(module.own.get_or_init(|| CallFrameTable::of(image, self.cpu)))
        {
            return Some(rule);
        }
        rule_of(module.apart.get_or_init(|| CallFrameTable::of_debug_file(module.debug, self.cpu)))
    }

    /// The rule for code that leaves a signal handler, recognised by its instructions: not every C library
    /// describes it.
    pub fn signal_return_at<M: Memory + ?Sized>(&self, address: u64, memory: &M) -> Option<Rule> {
        let module = self.module_at(address);
        let in_file = module.and_then(|module| module.image?.loaded_from(address.wrapping_sub(module.bias)));
        let is_there = |known: &&SignalReturn| match in_file {
            Some(code) => code.starts_with(known.code),
            None => memory.read_vec(address, known.code.len()).is_ok_and(|code| code == known.code),
        };
        let found = self.cpu.signal_returns.iter().find(is_there)?;
        let stack_pointer = self.cpu.stack_pointer;
        let place = |(register, offset): &(u8, i32)| (*register, Place::AtRegister(stack_pointer, *offset));
        let places: Vec<(u8, Place)> = found.saved.iter().map(place).collect();
        let (counters, saved): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|(register, _)| *register == self.cpu.program_counter);
        let (_, return_address) = counters.first()?;
        Some(Rule {
            cfa: Cfa::Register(stack_pointer, 0),
            return_address: *return_address,
            saved: saved.into(),
            is_interruption: true,
        })
    }

    /// The rule for a stub of a linkage table, whose linker has not described it.
    pub fn stub_rule_at(&self, address: u64) -> Option<Rule> {
        let module = self.module_at(address)?;
        let stated = address.wrapping_sub(module.bias);
        let stubs = module.stubs.get_or_init(|| module.image.map(Image::linkage_stubs).unwrap_or_default());
        let table = stubs.iter().find(|range| range.contains(stated))?;
        let (entry_bytes, pushed_from) = (self.cpu.stub.entry_bytes, self.cpu.stub.pushed_from);
        let is_pushed = (stated - table.start).checked_rem(entry_bytes)? >= pushed_from;
        let (cfa_offset, return_address) = match self.cpu.link {
            Link::Stack => (if is_pushed { 16 } else { 8 }, Place::AtCfa(-8)),
            Link::Register(_) => (0, Place::Same),
        };
        Some(Rule {
            cfa: Cfa::Register(self.cpu.stack_pointer, cfa_offset),
            return_address,
            saved: Box::default(),
            is_interruption: false,
        })
    }
}

impl<'m> CodeModule<'m> {
    fn of(module: &'m Module) -> Self {
        Self {
            range: module.range,
            bias: module.bias,
            image: module.image.as_deref(),
            debug: module.debug.as_deref(),
            own: OnceCell::new(),
            apart: OnceCell::new(),
            stubs: OnceCell::new(),
        }
    }
}
