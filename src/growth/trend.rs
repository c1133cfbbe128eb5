//! Whether a row grows steadily over three or more moments, or only wobbles.
//!
//! It knows times and numbers and refuses to know what they count. Why the rule is as it is:
//! `docs/decisions/0005-what-steady-growth-is.md`.

/// Fewest moments that a trend is made of.
pub const MOMENTS_MIN: usize = 3;

/// The last part of the time must show at least this share of the overall slope.
const TAIL_SLOPE_SHARE_MIN: f64 = 0.5;
/// Residuals below this share of the values are rounding: their correlation means nothing.
const ROUNDING_SHARE: f64 = 1e-9;

/// Two-sided 95 % quantiles of Student's t, by degrees of freedom.
const STUDENT_T_95: [(f64, f64); 12] = [
    (1.0, 12.7062),
    (2.0, 4.3027),
    (3.0, 3.1824),
    (4.0, 2.7764),
    (5.0, 2.5706),
    (6.0, 2.4469),
    (8.0, 2.3060),
    (10.0, 2.2281),
    (15.0, 2.1314),
    (30.0, 2.0423),
    (60.0, 2.0003),
    (f64::INFINITY, 1.9600),
];

/// A straight line through a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Least-squares slope, in units of the values a second.
    pub slope_per_s: f64,
    /// Half width of its 95 % interval; `None` where the series does not determine one.
    pub error_per_s: Option<f64>,
    /// Growth that is beyond doubt, goes on to the end, and is not one step.
    pub steady: bool,
}

/// The trend of `values` at `times_s`, or `None` with fewer than [`MOMENTS_MIN`] moments, or times that do not
/// ascend.
pub fn trend(times_s: &[f64], values: &[f64]) -> Option<Trend> {
    let ascending =
        times_s.is_sorted_by(|one, next| one < next) && times_s.iter().all(|time| time.is_finite());
    if times_s.len() < MOMENTS_MIN || times_s.len() != values.len() || !ascending {
        return None;
    }
    let line = Line::through(times_s, values);
    let error_per_s = match (line.error_per_s(), drift_error_per_s(times_s, values)) {
        (Some(line), Some(drift)) => Some(line.min(drift)),
        (line, drift) => line.or(drift),
    };
    let steady = error_per_s.is_some_and(|error| line.slope - error > 0.0)
        && goes_on(times_s, values, line.slope)
        && !is_one_step(values, &line);
    Some(Trend { slope_per_s: line.slope, error_per_s, steady })
}

/// A least-squares line and how far the values are from it.
#[derive(Debug)]
struct Line {
    slope: f64,
    /// The size of the numbers that were calculated with.
    extent: f64,
    /// Sum of squared distances of the times from their mean.
    spread: f64,
    residuals: Vec<f64>,
}

impl Line {
    fn through(times_s: &[f64], values: &[f64]) -> Self {
        let count = times_s.len() as f64;
        let mean_time = times_s.iter().sum::<f64>() / count;
        let mean = values.iter().sum::<f64>() / count;
        let points = || times_s.iter().zip(values).map(|(time, value)| (time - mean_time, value - mean));
        let spread: f64 = points().map(|(time, _)| time * time).sum();
        let slope = points().map(|(time, value)| time * value).sum::<f64>() / spread;
        let extent = points().map(|(_, value)| value.abs()).fold(mean.abs(), f64::max);
        Self {
            slope,
            extent,
            spread,
            residuals: points().map(|(time, value)| value - slope * time).collect(),
        }
    }

    /// Half width of the 95 % interval of the slope.
    ///
    /// Heaps are correlated in time, and a series of n such values tells less than n values: by the lag-1
    /// correlation r of the residuals, as much as n (1 - r) / (1 + r) of them.
    fn error_per_s(&self) -> Option<f64> {
        let rounding = self.extent * ROUNDING_SHARE;
        if self.residuals.iter().all(|residual| residual.abs() <= rounding) {
            return Some(0.0);
        }
        let squares: f64 = self.residuals.iter().map(|residual| residual * residual).sum();
        let neighbours = self.residuals.iter().zip(self.residuals.iter().skip(1));
        let correlation = (neighbours.map(|(one, next)| one * next).sum::<f64>() / squares).max(0.0);
        let count = self.residuals.len() as f64 * (1.0 - correlation) / (1.0 + correlation);
        let freedom = count - 2.0;
        Some(student_t_95(freedom)? * (squares / freedom / self.spread).sqrt())
    }
}

/// Half width of the 95 % interval of the mean growth, where values wander and each interval adds its own error.
///
/// It is the narrower of the two where growth is not straight: a line leaves long arcs of residuals then.
fn drift_error_per_s(times_s: &[f64], values: &[f64]) -> Option<f64> {
    let steps = || {
        let times = times_s.iter().zip(times_s.iter().skip(1)).map(|(one, next)| next - one);
        times.zip(values.iter().zip(values.iter().skip(1)).map(|(one, next)| next - one))
    };
    let (time, growth) = steps().fold((0.0, 0.0), |(time, growth), step| (time + step.0, growth + step.1));
    let drift = growth / time;
    let squares: f64 = steps().map(|(time, growth)| (growth - drift * time).powi(2) / time).sum();
    let freedom = values.len() as f64 - 2.0;
    Some(student_t_95(freedom)? * (squares / freedom / time).sqrt())
}

/// The two-sided 95 % quantile of Student's t for `freedom` degrees of freedom, `None` below one.
///
/// Between two entries of the table it is nearly linear in 1 / freedom.
fn student_t_95(freedom: f64) -> Option<f64> {
    let after = STUDENT_T_95.iter().position(|(entry, _)| *entry >= freedom)?;
    let (high, quantile) = STUDENT_T_95.get(after)?;
    if *high == freedom {
        return Some(*quantile);
    }
    let (low, more) = STUDENT_T_95.get(after.checked_sub(1)?)?;
    let share = (freedom.recip() - high.recip()) / (low.recip() - high.recip());
    Some(quantile + share * (more - quantile))
}

/// Whether the last third of the time, and at least the last three moments, grow like the whole.
fn goes_on(times_s: &[f64], values: &[f64], slope: f64) -> bool {
    let (Some(first), Some(last)) = (times_s.first(), times_s.last()) else { return false };
    let start = times_s.partition_point(|&time| time < last - (last - first) / 3.0).min(times_s.len() - 3);
    let tail = times_s.get(start..).zip(values.get(start..));
    tail.is_some_and(|(times_s, values)| Line::through(times_s, values).slope >= TAIL_SLOPE_SHARE_MIN * slope)
}

/// Whether one step from a constant to a higher one fits the values at least as well as the line.
fn is_one_step(values: &[f64], line: &Line) -> bool {
    let sum: f64 = values.iter().sum();
    let count = values.len() as f64;
    // Of all squares about the mean, a step after k values explains the squared distance of the two means from
    // the overall mean, and the line explains its slope: what explains more leaves less.
    let mut before_sum = 0.0;
    let explained = values.iter().zip(1_u32..).take(values.len() - 1).map(|(value, before)| {
        before_sum += value;
        let before = f64::from(before);
        let distance = before_sum - sum * before / count;
        distance * distance * count / (before * (count - before))
    });
    explained.fold(0.0, f64::max) >= line.slope * line.slope * line.spread
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES_S: [f64; 9] = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0];

    fn is_steady(values: [f64; 9]) -> bool {
        trend(&TIMES_S, &values).unwrap().steady
    }

    #[test]
    fn a_leak_under_traffic_is_steady() {
        let leak = trend(&TIMES_S, &[5.0, 104.0, 196.0, 303.0, 402.0, 495.0, 604.0, 699.0, 801.0]).unwrap();
        assert!(leak.steady);
        let error = leak.error_per_s.unwrap();
        assert!((leak.slope_per_s - 10.0).abs() <= error && error < 1.0, "{leak:?}");
    }

    #[test]
    fn what_wobbles_shrinks_fills_up_or_steps_once_is_not() {
        assert!(!is_steady([500.0, 512.0, 497.0, 505.0, 509.0, 494.0, 511.0, 502.0, 507.0]));
        assert!(!is_steady([800.0, 702.0, 598.0, 505.0, 396.0, 301.0, 199.0, 104.0, 2.0]));
        assert!(!is_steady([0.0, 200.0, 400.0, 600.0, 700.0, 700.0, 700.0, 700.0, 700.0]));
        assert!(!is_steady([0.0, 0.0, 0.0, 0.0, 900.0, 900.0, 900.0, 900.0, 900.0]));
        assert!(!is_steady([7.0; 9]));
    }

    #[test]
    fn two_moments_or_times_that_do_not_ascend_have_no_trend() {
        assert_eq!(trend(&[0.0, 1.0], &[0.0, 1.0]), None);
        assert_eq!(trend(&[0.0, 2.0, 1.0], &[0.0, 1.0, 2.0]), None);
    }
}
