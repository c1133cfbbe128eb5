//! From call frame information to a rule: the program of a function is run up to an address.

use super::cfi::{CallFrameTable, Fde, Found, Reader};
use super::rule::{Cfa, Expression, ExpressionId, Place, Rule, RuleStore};
use crate::arch::Cpu;
use gimli::{
    CfaRule, Encoding, EndianSlice, LittleEndian, Operation, RegisterRule, UnwindContext, UnwindExpression,
    UnwindSection,
};

/// Expressions are a few bytes long; the longest met, that of a signal frame, has 6.
const EXPRESSION_BYTES_MAX: usize = 4096;

/// One file's call frame information and where it is in the process.
#[derive(Debug)]
pub struct Source<'a, 'm> {
    /// The information.
    pub table: &'a CallFrameTable<'m>,
    /// What has to be added to the file's addresses.
    pub bias: u64,
    /// The CPU of the code.
    pub cpu: &'static Cpu,
}

/// The rule at an address of the process, or `None` where the information says nothing that can be followed.
pub fn rule_at(
    source: &Source<'_, '_>,
    address: u64,
    context: &mut UnwindContext<usize>,
    store: &mut RuleStore,
) -> Option<Rule> {
    let stated = address.wrapping_sub(source.bias);
    match source.table.find(stated)? {
        Found::Eh(section, fde) => translate(source, &section, &fde, stated, context, store),
        Found::Debug(section, fde) => translate(source, &section, &fde, stated, context, store),
    }
}

fn translate<'a, S: UnwindSection<Reader<'a>>>(
    source: &Source<'_, '_>,
    section: &S,
    fde: &Fde<'a>,
    stated: u64,
    context: &mut UnwindContext<usize>,
    store: &mut RuleStore,
) -> Option<Rule> {
    let row = fde.unwind_info_for_address(section, source.table.bases(), context, stated).ok()?;
    let mut keeper = Keeper { section, encoding: fde.cie().encoding(), bias: source.bias, store };
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            Cfa::Register(number(*register)?, i32::try_from(*offset).ok()?)
        }
        CfaRule::Expression(expression) => keeper.cfa(expression)?,
    };
    let return_register = number(fde.cie().return_address_register())?;
    let mut return_address = Place::Same;
    let mut saved = Vec::new();
    for (register, rule) in row.registers() {
        // Registers that are not general ones lead to no caller.
        let Some(register) = number(*register) else { continue };
        let place = keeper.place(rule)?;
        if register == return_register {
            return_address = place;
        }
        if register != source.cpu.program_counter && u64::from(register) < 64 {
            saved.push((register, place));
        }
    }
    saved.sort_unstable_by_key(|(register, _)| *register);
    Some(Rule { cfa, return_address, saved: saved.into(), is_interruption: fde.is_signal_trampoline() })
}

fn number(register: gimli::Register) -> Option<u8> {
    u8::try_from(register.0).ok().filter(|number| usize::from(*number) < crate::arch::REGISTERS_MAX)
}

/// Turns expressions into places: the two shapes that compilers emit most into short ones, others are kept.
struct Keeper<'s, S> {
    section: &'s S,
    encoding: Encoding,
    bias: u64,
    store: &'s mut RuleStore,
}

impl<'a, S: UnwindSection<Reader<'a>>> Keeper<'_, S> {
    fn place(&mut self, rule: &RegisterRule<usize>) -> Option<Place> {
        Some(match rule {
            RegisterRule::SameValue => Place::Same,
            RegisterRule::Offset(offset) => Place::AtCfa(i32::try_from(*offset).ok()?),
            RegisterRule::ValOffset(offset) => Place::IsCfa(i32::try_from(*offset).ok()?),
            RegisterRule::Register(register) => Place::IsRegister(number(*register)?, 0),
            RegisterRule::Expression(expression) => match self.register_sum(expression, false)? {
                Some((register, offset)) => Place::AtRegister(register, offset),
                None => Place::AtExpression(self.keep(expression)?),
            },
            RegisterRule::ValExpression(expression) => match self.register_sum(expression, false)? {
                Some((register, offset)) => Place::IsRegister(register, offset),
                None => Place::IsExpression(self.keep(expression)?),
            },
            // The state of the signature of a return address is no register; the others say nothing.
            _ => Place::Undefined,
        })
    }

    fn cfa(&mut self, expression: &UnwindExpression<usize>) -> Option<Cfa> {
        if let Some((register, offset)) = self.register_sum(expression, true)? {
            return Some(Cfa::AtRegister(register, offset));
        }
        if let Some((register, offset)) = self.register_sum(expression, false)? {
            return Some(Cfa::Register(register, offset));
        }
        self.keep(expression).map(Cfa::Expression)
    }

    /// Register and offset of an expression that is their sum, or with `is_read` the word at their sum.
    ///
    /// `None` where the expression cannot be read at all, `Some(None)` where it is something else.
    #[allow(clippy::option_option, reason = "the outer one fails the rule, the inner one is an answer")]
    fn register_sum(&self, expression: &UnwindExpression<usize>, is_read: bool) -> Option<Option<(u8, i32)>> {
        let mut operations = expression.get(self.section).ok()?.operations(self.encoding);
        let Some(Operation::RegisterOffset { register, offset, base_type }) = operations.next().ok()? else {
            return Some(None);
        };
        if is_read
            && !matches!(
                operations.next().ok()?,
                Some(Operation::Deref { size: 8, space: false, base_type }) if base_type.0 == 0
            )
        {
            return Some(None);
        }
        if operations.next().ok()?.is_some() || base_type.0 != 0 {
            return Some(None);
        }
        let offset = i32::try_from(offset).ok();
        Some(number(register).zip(offset))
    }

    fn keep(&mut self, expression: &UnwindExpression<usize>) -> Option<ExpressionId> {
        let bytes: EndianSlice<'_, LittleEndian> = expression.get(self.section).ok()?.0;
        if bytes.len() > EXPRESSION_BYTES_MAX {
            return None;
        }
        self.store.keep_expression(Expression {
            bytes: bytes.slice().into(),
            bias: self.bias,
            encoding: self.encoding,
        })
    }
}
