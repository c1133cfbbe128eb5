//! Rules: how the registers of a caller are had from those of the code that it called, in a few bytes.
//!
//! Call frame information says it by a small program for each function. It is run once, and what it says for one
//! address is kept as a [`Rule`]. Few rules are different: many thousand addresses share a few dozen.

use std::collections::HashMap;

/// Number of an expression in a [`RuleStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExpressionId(u32);

/// The canonical frame address: the stack pointer of the caller before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// `register + offset`
    Register(u8, i32),
    /// `*(register + offset)`
    AtRegister(u8, i32),
    /// What the expression says.
    Expression(ExpressionId),
}

/// Where a register of the caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nowhere: its value is lost. Of a return address: there is no caller.
    Undefined,
    /// Where it was: it was not changed.
    Same,
    /// `*(CFA + offset)`
    AtCfa(i32),
    /// `CFA + offset`
    IsCfa(i32),
    /// `*(register + offset)`
    AtRegister(u8, i32),
    /// `register + offset`
    IsRegister(u8, i32),
    /// In memory, where the expression says.
    AtExpression(ExpressionId),
    /// What the expression says.
    IsExpression(ExpressionId),
}

/// How the registers of a caller are had.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The caller's stack pointer, unless `saved` says otherwise.
    pub cfa: Cfa,
    /// The address that is returned to.
    pub return_address: Place,
    /// The other registers. Those that are not named are unchanged, if functions preserve them, else lost.
    pub saved: Box<[(u8, Place)]>,
    /// The caller did not call: a signal interrupted it. It goes on where it was, with all of its registers.
    pub is_interruption: bool,
}

/// An expression of call frame information.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression {
    /// Its operations.
    pub bytes: Box<[u8]>,
    /// What has to be added to addresses in it.
    pub bias: u64,
    /// Format of the section that it stands in.
    pub encoding: gimli::Encoding,
}

/// Number of a rule in a [`RuleStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(u32);

/// Rules and their expressions, each kept once.
#[derive(Debug, Default)]
pub struct RuleStore {
    rules: Vec<Rule>,
    rule_ids: HashMap<Rule, RuleId>,
    expressions: Vec<Expression>,
    expression_ids: HashMap<Expression, ExpressionId>,
}

/// Rules kept at most, and expressions: real programs have some hundred.
const RULES_MAX: usize = 1 << 16;

impl RuleStore {
    /// Keeps a rule, or finds it where it is kept already. `None` when the store is full.
    pub fn keep(&mut self, rule: Rule) -> Option<RuleId> {
        if let Some(id) = self.rule_ids.get(&rule) {
            return Some(*id);
        }
        let id = RuleId(u32::try_from(self.rules.len()).ok().filter(|_| self.rules.len() < RULES_MAX)?);
        self.rules.push(rule.clone());
        self.rule_ids.insert(rule, id);
        Some(id)
    }

    /// Keeps an expression, or finds it where it is kept already. `None` when the store is full.
    pub fn keep_expression(&mut self, expression: Expression) -> Option<ExpressionId> {
        if let Some(id) = self.expression_ids.get(&expression) {
            return Some(*id);
        }
        let count = self.expressions.len();
        let id = ExpressionId(u32::try_from(count).ok().filter(|_| count < RULES_MAX)?);
        self.expressions.push(expression.clone());
        self.expression_ids.insert(expression, id);
        Some(id)
    }

    /// The rule of this number.
    #[inline]
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id.0 as usize)
    }

    /// The expression of this number.
    pub fn expression(&self, id: ExpressionId) -> Option<&Expression> {
        self.expressions.get(id.0 as usize)
    }

    /// Whether nothing more can be kept.
    pub fn is_full(&self) -> bool {
        self.rules.len() >= RULES_MAX || self.expressions.len() >= RULES_MAX
    }

    /// Rules that differ.
    pub fn count(&self) -> usize {
        self.rules.len()
    }
}
