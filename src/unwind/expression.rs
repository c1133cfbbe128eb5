//! Evaluates the expressions of call frame information that are no plain sums: those of linkage tables, mostly.

use super::registers::KnownRegisters;
use super::rule::Expression;
use crate::memory::{Fault, Memory};
use gimli::{EndianSlice, EvaluationResult, LittleEndian, Value};

/// Operations of one evaluation at most.
const OPERATIONS_MAX: u32 = 1000;
/// Reads and other questions in one evaluation at most.
const QUESTIONS_MAX: usize = 100;

/// Why an expression has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoValue {
    /// It reads memory that is not there.
    Fault(Fault),
    /// It makes no sense, or asks for what a call frame cannot tell.
    Senseless,
}

/// The value of an expression; `initial` lies on its stack in the beginning.
pub fn evaluate<M: Memory + ?Sized>(
    expression: &Expression,
    initial: Option<u64>,
    registers: &KnownRegisters,
    memory: &M,
) -> Result<u64, NoValue> {
    let senseless = |_| NoValue::Senseless;
    let bytes = EndianSlice::new(&expression.bytes, LittleEndian);
    let mut evaluation = gimli::Expression(bytes).evaluation(expression.encoding);
    evaluation.set_max_iterations(OPERATIONS_MAX);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate().map_err(senseless)?;
    for _ in 0..QUESTIONS_MAX {
        result = match result {
            EvaluationResult::Complete => {
                return match evaluation.value_result() {
                    Some(Value::Generic(value)) => Ok(value),
                    _ => Err(NoValue::Senseless),
                };
            }
            EvaluationResult::RequiresRegister { register, base_type } if base_type.0 == 0 => {
                let number = u8::try_from(register.0).map_err(|_| NoValue::Senseless)?;
                let value = registers.get(number).ok_or(NoValue::Senseless)?;
                evaluation.resume_with_register(Value::Generic(value)).map_err(senseless)?
            }
            EvaluationResult::RequiresMemory { address, size, space: None, base_type }
                if base_type.0 == 0 =>
            {
                let value = Value::Generic(read(memory, address, size)?);
                evaluation.resume_with_memory(value).map_err(senseless)?
            }
            EvaluationResult::RequiresRelocatedAddress(address) => {
                let address = address.wrapping_add(expression.bias);
                evaluation.resume_with_relocated_address(address).map_err(senseless)?
            }
            _ => return Err(NoValue::Senseless),
        };
    }
    Err(NoValue::Senseless)
}

fn read<M: Memory + ?Sized>(memory: &M, address: u64, len_bytes: u8) -> Result<u64, NoValue> {
    let mut bytes = [0; 8];
    let wanted = bytes.get_mut(..usize::from(len_bytes)).ok_or(NoValue::Senseless)?;
    memory.read(address, wanted).map_err(NoValue::Fault)?;
    Ok(u64::from_le_bytes(bytes))
}
