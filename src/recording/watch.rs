//! How long a breakpoint stays enabled, and which one is next.

use super::recorder::Tally;
use heaptap_platform::{Aim, Hit, ThreadSampler};
use std::time::{Duration, Instant};

/// So many hits end an arming.
const HITS_WANTED: usize = 5;
/// Time to stay armed after the first hit, by how long so many take: rare ones cost the target nothing meanwhile.
const TRAIL_MIN: Duration = Duration::from_millis(4);
const TRAIL_MAX: Duration = Duration::from_millis(60);
/// Time between two looks for further hits once they have proved rare.
const NAP: Duration = Duration::from_micros(30);
/// Longest time to spin for the first hit.
const SPIN: Duration = Duration::from_micros(150);
/// Time that whoever took a block has to fill it before it is looked at.
const LOOK_AFTER: Duration = Duration::from_micros(150);

/// How long so many hits take, by what is known of a place.
pub fn trail(tally: &Tally) -> Duration {
    // What was never hit is not waited for.
    if tally.arms < 5 || tally.allocations == 0 {
        return TRAIL_MIN;
    }
    Duration::from_secs_f64(HITS_WANTED as f64 / tally.rate().max(1.0)).clamp(TRAIL_MIN, TRAIL_MAX)
}

/// Whether a breakpoint for one can be moved to the other.
pub const fn is_like(one: Aim, other: Aim) -> bool {
    match (one, other) {
        (Aim::Writes { len_bytes: one, .. }, Aim::Writes { len_bytes: other, .. }) => one == other,
        (Aim::Execution { .. }, Aim::Execution { .. }) => true,
        _ => false,
    }
}

/// Stays until there are enough hits, or none come.
pub fn wait_for_hits<L>(
    sampler: &mut ThreadSampler,
    begun: Instant,
    trail: Duration,
    look: &dyn Fn(&Hit) -> L,
) -> Seen<L> {
    while sampler.waiting_len_bytes() == 0 {
        if begun.elapsed() > SPIN {
            if !sampler.wait(trail) {
                return Seen { hits: Vec::new(), looked: Vec::new() };
            }
            break;
        }
        std::hint::spin_loop();
    }
    // What follows tells allocations from frees, and which of them were given back at once.
    let first = Instant::now();
    let mut seen = Seen { hits: Vec::new(), looked: Vec::new() };
    while seen.hits.len() < HITS_WANTED && first.elapsed() < trail {
        if sampler.waiting_len_bytes() > 0 {
            seen.hits.extend(sampler.take().into_iter().map(|hit| (hit, Instant::now())));
        } else if first.elapsed() < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(NAP);
        }
        seen.look(look, false);
    }
    seen
}

/// Hits in their order, and what was seen at the first of them: each is looked at once what it was about has been filled, and
/// before it is used for something else.
#[derive(Debug)]
pub struct Seen<L> {
    hits: Vec<(Hit, Instant)>,
    looked: Vec<L>,
}

impl<L> Seen<L> {
    fn look(&mut self, look: &dyn Fn(&Hit) -> L, all: bool) {
        for (hit, taken) in self.hits.iter().skip(self.looked.len()) {
            // Whoever sees nothing need not wait for it: the stacks of caches are read best at once.
            let left = if size_of::<L>() == 0 { Duration::ZERO } else { LOOK_AFTER };
            let left = left.saturating_sub(taken.elapsed());
            if !left.is_zero() && !all {
                return;
            }
            if !left.is_zero() {
                std::thread::sleep(left);
            }
            self.looked.push(look(hit));
        }
    }

    /// All hits with what was seen, once the rest has come.
    pub fn finish(mut self, rest: Vec<Hit>, look: &dyn Fn(&Hit) -> L) -> Vec<(Hit, L)> {
        self.hits.extend(rest.into_iter().map(|hit| (hit, Instant::now())));
        self.look(look, true);
        self.hits.into_iter().map(|(hit, _)| hit).zip(self.looked).collect()
    }
}

/// Weights by rates; what is not known yet counts as the mean, what is never met as a small part of it.
pub fn weights<'t>(tallies: impl Iterator<Item = Option<&'t Tally>>, rare: f64) -> Vec<f64> {
    let rate = |tally: Option<&Tally>| tally.filter(|tally| tally.arms >= 5).map(Tally::rate);
    let rates: Vec<Option<f64>> = tallies.map(rate).collect();
    let known: Vec<f64> = rates.iter().copied().flatten().collect();
    let mean = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    let least = mean / rare + 1e-9;
    rates.into_iter().map(|rate| rate.unwrap_or(mean) + least).collect()
}

/// One of `things` by its weight, where `at` goes from 0 to 1.
pub fn pick<T>(things: &[T], weights: impl Iterator<Item = f64> + Clone, at: f64) -> Option<&T> {
    let mut left = at * weights.clone().sum::<f64>();
    for (thing, weight) in things.iter().zip(weights) {
        left -= weight;
        if left <= 0.0 {
            return Some(thing);
        }
    }
    things.last()
}
