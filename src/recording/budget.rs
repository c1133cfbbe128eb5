//! How much of the target's time sampling may take.

use std::time::Duration;

/// Most that may be saved up for a burst.
const SAVED_MAX: Duration = Duration::from_millis(20);

/// A part of one core's time, and what was spent of it.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Part of one core, 0 to 1.
    fraction: f64,
    hit_cost: Duration,
    spent_hits: u64,
}

impl Budget {
    /// So much of one core, where one hit costs so much.
    pub const fn new(fraction: f64, hit_cost: Duration) -> Self {
        Self { fraction, hit_cost, spent_hits: 0 }
    }

    /// Books hits.
    pub const fn spend(&mut self, hits: u64) {
        self.spent_hits = self.spent_hits.saturating_add(hits);
    }

    /// Time of the target that was taken.
    pub fn spent(&self) -> Duration {
        self.hit_cost.saturating_mul(u32::try_from(self.spent_hits).unwrap_or(u32::MAX))
    }

    /// What one hit costs.
    pub const fn hit_cost(&self) -> Duration {
        self.hit_cost
    }

    /// Hits so far.
    pub const fn hits(&self) -> u64 {
        self.spent_hits
    }

    /// How long to wait until what was spent is no more than the budget of `elapsed` and a burst.
    pub fn wait(&self, elapsed: Duration) -> Duration {
        let earned = elapsed.mul_f64(self.fraction) + SAVED_MAX.mul_f64(self.fraction * 10.0).min(SAVED_MAX);
        let lacking = self.spent().saturating_sub(earned);
        lacking.div_f64(self.fraction.max(1e-6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_percent_lets_five_hundred_hits_of_twenty_microseconds_happen_in_a_second() {
        let mut budget = Budget::new(0.01, Duration::from_micros(20));
        budget.spend(500);
        assert_eq!(budget.spent(), Duration::from_millis(10));
        assert_eq!(budget.wait(Duration::from_secs(1)), Duration::ZERO);
        budget.spend(500);
        let wait = budget.wait(Duration::from_secs(1));
        assert!(wait > Duration::from_millis(700) && wait <= Duration::from_secs(1), "{wait:?}");
    }
}
