//! Requests by their latency: 16 buckets to each doubling.

use crate::tally::Count;

pub struct Latencies(Vec<Count>);

const BUCKETS: usize = 64 * 16;

impl Default for Latencies {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| Count::default()).collect())
    }
}

impl Latencies {
    pub fn add(&self, span_ns: u64) {
        let position = 16.0 * ((span_ns + 1) as f64).log2();
        self.0[(position as usize).min(BUCKETS - 1)].add(1);
    }

    pub fn join(&self, other: &Self) {
        self.0.iter().zip(&other.0).for_each(|(own, other)| own.add(other.get()));
    }

    pub fn take_off(&self, earlier: &Self) {
        self.0.iter().zip(&earlier.0).for_each(|(own, earlier)| own.add(0_u64.wrapping_sub(earlier.get())));
    }

    pub fn quantile_ns(&self, part: f64) -> u64 {
        let all: u64 = self.0.iter().map(Count::get).sum();
        let wanted = part * all as f64;
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count.get();
            if seen > 0 && seen as f64 >= wanted {
                return ((bucket + 1) as f64 / 16.0).exp2() as u64;
            }
        }
        0
    }
}
