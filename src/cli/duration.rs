//! Spans of time as they are typed: `50ms`, `10s`, `1m30s`, `2h`.

use std::time::Duration;

/// Longest span that can be typed.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why a text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number where one belongs.
    #[error("a number is missing; write it like 50ms, 10s, 1m30s or 2h")]
    Number,
    /// A number without a unit, or with another one.
    #[error("`{0}` needs one of the units ms, s, m, h, d")]
    Unit(String),
    /// Zero, or more than a year.
    #[error("it must be more than 0 and at most a year")]
    Range,
}

/// Reads a span of time.
///
/// # Errors
/// What is wrong with the text, as a clause that follows it.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(digits_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        if digits.is_empty() {
            return Err(DurationError::Number);
        }
        let number: u64 = digits.parse().map_err(|_| DurationError::Range)?;
        let millis = number.checked_mul(unit_millis(unit, digits)?).ok_or(DurationError::Range)?;
        sum = sum.checked_add(Duration::from_millis(millis)).ok_or(DurationError::Range)?;
        rest = next;
    }
    match sum {
        Duration::ZERO if text.trim().is_empty() => Err(DurationError::Number),
        sum if sum.is_zero() || sum > DURATION_MAX => Err(DurationError::Range),
        sum => Ok(sum),
    }
}

fn unit_millis(unit: &str, digits: &str) -> Result<u64, DurationError> {
    match unit.trim() {
        "ms" => Ok(1),
        "s" => Ok(1_000),
        "m" | "min" => Ok(60_000),
        "h" => Ok(3_600_000),
        "d" => Ok(86_400_000),
        other => Err(DurationError::Unit(format!("{digits}{other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_typed() {
        let millis =
            ["50ms", "10s", "1m30s", "2h", "1d", " 3min "].map(|text| parse(text).unwrap().as_millis());
        assert_eq!(millis, [50, 10_000, 90_000, 7_200_000, 86_400_000, 180_000]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse("90"), Err(DurationError::Unit("90".to_owned())));
        assert_eq!(parse("5y"), Err(DurationError::Unit("5y".to_owned())));
        assert_eq!(parse("1m30"), Err(DurationError::Unit("30".to_owned())));
        assert_eq!(parse("s"), Err(DurationError::Number));
        assert_eq!(parse("-1s"), Err(DurationError::Number));
        assert_eq!(parse(""), Err(DurationError::Number));
        assert_eq!(parse("0s"), Err(DurationError::Range));
        assert_eq!(parse("400d"), Err(DurationError::Range));
        assert_eq!(parse("99999999999999999999s"), Err(DurationError::Range));
    }
}
