//! Quantities as text: bytes, counts, rates, shares, spans of time.

/// How byte quantities are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sizes {
    /// Three digits and a binary unit: `1.21 GiB`.
    #[default]
    Human,
    /// Every digit: `1,299,227,607`.
    Exact,
}

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes.
pub fn bytes(value_bytes: u64, sizes: Sizes) -> String {
    match sizes {
        Sizes::Human => human(value_bytes as f64),
        Sizes::Exact => count(value_bytes),
    }
}

/// A number of bytes that may be owed: no sign where there is nothing owed.
pub fn signed_bytes(value_bytes: i64, sizes: Sizes) -> String {
    let sign = if value_bytes < 0 { "-" } else { "" };
    format!("{sign}{}", bytes(value_bytes.unsigned_abs(), sizes))
}

/// A change of a number of bytes, with its sign; no change is `0`.
pub fn delta_bytes(value_bytes: i64, sizes: Sizes) -> String {
    signed(value_bytes, bytes(value_bytes.unsigned_abs(), sizes))
}

/// A number of things, thousands set apart.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A change of a number of things, with its sign; no change is `0`.
pub fn delta_count(value: i64) -> String {
    signed(value, count(value.unsigned_abs()))
}

/// A size class: the shortest spelling that is exact, in either spelling of sizes.
pub fn size_class(size_bytes: u64, sizes: Sizes) -> String {
    if sizes == Sizes::Exact {
        return count(size_bytes);
    }
    let mut unit = 0_u32;
    while unit < 6 && size_bytes >> (10 * unit) >= 1024 && is_short(size_bytes, unit + 1) {
        unit += 1;
    }
    let divisor = 1_u64 << (10 * unit);
    let name = UNITS.get(unit as usize).copied().unwrap_or_default();
    let hundredths = (size_bytes % divisor) * 100 / divisor;
    let whole = size_bytes / divisor;
    match (hundredths, hundredths % 10) {
        (0, _) => format!("{whole} {name}"),
        (_, 0) => format!("{whole}.{} {name}", hundredths / 10),
        _ => format!("{whole}.{hundredths:02} {name}"),
    }
}

/// Whether two decimals are enough for the exact size in this unit.
fn is_short(size_bytes: u64, unit: u32) -> bool {
    let divisor = 1_u128 << (10 * unit);
    (u128::from(size_bytes) * 100).is_multiple_of(divisor)
}

/// A rate with the half width of its interval, both in one unit: `+370 ±12 KiB/s`.
pub fn rate(bytes_per_s: f64, error_bytes_per_s: Option<f64>, sizes: Sizes) -> String {
    let error = error_bytes_per_s.filter(|error| error.is_finite());
    let largest = bytes_per_s.abs().max(error.unwrap_or(0.0));
    let (divisor, unit) = match sizes {
        Sizes::Human => scale(largest),
        Sizes::Exact => (1.0, "B"),
    };
    let decimals = if divisor > 1.0 { decimals_of(largest / divisor) } else { 0 };
    let shown = |value: f64| match sizes {
        Sizes::Human => format!("{:.decimals$}", value.abs() / divisor),
        Sizes::Exact => count(value.abs().round() as u64),
    };
    let digits = shown(bytes_per_s);
    let is_zero = digits.chars().all(|c| matches!(c, '0' | '.'));
    let sign = match (is_zero, bytes_per_s < 0.0) {
        (true, _) => "",
        (false, true) => "-",
        (false, false) => "+",
    };
    match (error_bytes_per_s, error) {
        (_, Some(error)) => format!("{sign}{digits} ±{} {unit}/s", shown(error)),
        (Some(_), None) => format!("{sign}{digits} ±? {unit}/s"),
        (None, None) => format!("{sign}{digits} {unit}/s"),
    }
}

/// A share of a whole, in percent; of nothing, a dash.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

/// A span in milliseconds, three digits.
pub fn millis(value_ms: f64) -> String {
    format!("{value_ms:.*} ms", decimals_of(value_ms))
}

/// A span in the two largest units: `2m 05s`.
pub fn span(value_s: f64) -> String {
    if value_s < 0.05 {
        return "0s".to_owned();
    }
    if value_s < 9.95 {
        return format!("{value_s:.1}s");
    }
    let seconds = value_s.round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn signed(value: i64, magnitude: String) -> String {
    match value {
        0 => "0".to_owned(),
        1.. => format!("+{magnitude}"),
        _ => format!("-{magnitude}"),
    }
}

fn human(value_bytes: f64) -> String {
    let (divisor, unit) = scale(value_bytes);
    let scaled = value_bytes / divisor;
    let decimals = if divisor > 1.0 { decimals_of(scaled) } else { 0 };
    format!("{scaled:.decimals$} {unit}")
}

/// The unit in which a value has at most four digits before the point, and its size.
fn scale(value: f64) -> (f64, &'static str) {
    let mut divisor = 1.0;
    let mut name = "B";
    for unit in UNITS {
        name = unit;
        if (value / divisor).round() < 1024.0 {
            break;
        }
        if unit != "EiB" {
            divisor *= 1024.0;
        }
    }
    (divisor, name)
}

/// Decimals that leave three significant digits after rounding.
fn decimals_of(value: f64) -> usize {
    match value.abs() {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_at_every_boundary() {
        let shown: Vec<String> =
            [0, 1, 1023, 1024, 10_234, 10_239, 102_400, 1_048_575, 1_048_576, 1_299_227_607, u64::MAX]
                .map(|value| bytes(value, Sizes::Human))
                .to_vec();
        assert_eq!(
            shown,
            [
                "0 B", "1 B", "1023 B", "1.00 KiB", "9.99 KiB", "10.0 KiB", "100 KiB", "1.00 MiB",
                "1.00 MiB", "1.21 GiB", "16.0 EiB"
            ]
        );
        assert_eq!(bytes(1_299_227_607, Sizes::Exact), "1,299,227,607");
    }

    #[test]
    fn changes_carry_their_sign() {
        assert_eq!(delta_bytes(0, Sizes::Human), "0");
        assert_eq!(delta_bytes(-3072, Sizes::Human), "-3.00 KiB");
        assert_eq!(delta_bytes(i64::MIN, Sizes::Exact), "-9,223,372,036,854,775,808");
        assert_eq!(delta_count(1_000), "+1,000");
        assert_eq!(count(999), "999");
    }

    #[test]
    fn size_classes_are_never_rounded() {
        let shown: Vec<String> =
            [8, 640, 1024, 1280, 1792, 3584, 14_336, 16_384, 917_504, 1_310_720, 67_112_960]
                .map(|value| size_class(value, Sizes::Human))
                .to_vec();
        assert_eq!(
            shown,
            [
                "8 B",
                "640 B",
                "1 KiB",
                "1.25 KiB",
                "1.75 KiB",
                "3.5 KiB",
                "14 KiB",
                "16 KiB",
                "896 KiB",
                "1.25 MiB",
                "65540 KiB"
            ]
        );
        assert_eq!(size_class(1281, Sizes::Human), "1281 B");
        assert_eq!(size_class(u64::MAX, Sizes::Human), "18446744073709551615 B");
    }

    #[test]
    fn rates_share_a_unit_with_their_error() {
        assert_eq!(rate(378_880.0, Some(12_288.0), Sizes::Human), "+370 ±12 KiB/s");
        assert_eq!(rate(-430.0, Some(1400.0), Sizes::Human), "-0.42 ±1.37 KiB/s");
        assert_eq!(rate(0.0, None, Sizes::Human), "0 B/s");
        assert_eq!(rate(12.4, Some(f64::NAN), Sizes::Human), "+12 ±? B/s");
        assert_eq!(rate(378_880.2, Some(12_288.0), Sizes::Exact), "+378,880 ±12,288 B/s");
    }

    #[test]
    fn spans_have_two_units() {
        let shown: Vec<String> = [0.04, 0.06, 9.96, 59.0, 125.0, 7_260.0, 180_000.0].map(span).to_vec();
        assert_eq!(shown, ["0s", "0.1s", "10s", "59s", "2m 05s", "2h 01m", "2d 02h"]);
        assert_eq!(millis(15.62), "15.6 ms");
        assert_eq!(millis(0.271), "0.27 ms");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(0, 0), "-");
    }
}
