//! Sparklines: a series of figures in as many characters.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The series between its own extremes, its last `width` points; a flat series stays at the bottom.
pub fn sparkline(series: &[u64], width: usize) -> String {
    let shown = series.get(series.len().saturating_sub(width)..).unwrap_or_default();
    let lowest = shown.iter().copied().min().unwrap_or(0);
    let range = shown.iter().copied().max().unwrap_or(0) - lowest;
    shown
        .iter()
        .map(|value| {
            let level = (u128::from(value - lowest) * 7).checked_div(u128::from(range)).unwrap_or(0);
            LEVELS.get(level as usize).copied().unwrap_or('█')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_the_extremes_of_what_is_shown() {
        assert_eq!(sparkline(&[0, 1, 2, 3, 4, 5, 6, 7], 8), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[1_000_000, 0, 10], 2), "▁█");
        assert_eq!(sparkline(&[5, 5, 5], 8), "▁▁▁");
        assert_eq!(sparkline(&[0, u64::MAX], 8), "▁█");
        assert_eq!(sparkline(&[], 8), "");
    }
}
