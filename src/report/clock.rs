//! Wall-clock time as text, in UTC: snapshots travel between machines.

/// `2026-11-23 09:14:05` from seconds since 1970; a dash where the moment is not known.
pub fn date_and_time(since_1970_s: f64) -> String {
    if !(1.0..2.5e11).contains(&since_1970_s) {
        return "-".to_owned();
    }
    let seconds = since_1970_s as u64;
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02} {}", time(since_1970_s))
}

/// `09:14:05` from seconds since 1970.
pub fn time(since_1970_s: f64) -> String {
    let of_day = since_1970_s.max(0.0) as u64 % 86_400;
    format!("{:02}:{:02}:{:02}", of_day / 3_600, of_day % 3_600 / 60, of_day % 60)
}

/// Year, month and day in the Gregorian calendar, counted in years that begin in March, so that the leap day
/// is the last of its year.
const fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_leap_days() {
        let shown: Vec<String> = [86_399.0, 951_782_400.0, 951_868_800.0, 1_709_164_800.0, 4_107_542_399.9]
            .map(date_and_time)
            .to_vec();
        assert_eq!(
            shown,
            [
                "1970-01-01 23:59:59",
                "2000-02-29 00:00:00",
                "2000-03-01 00:00:00",
                "2024-02-29 00:00:00",
                "2100-02-28 23:59:59"
            ]
        );
        assert_eq!(date_and_time(0.0), "-");
        assert_eq!(date_and_time(f64::NAN), "-");
    }
}
