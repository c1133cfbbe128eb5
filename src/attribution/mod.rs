//! Attribution: growth, known exactly, divided among the stacks whose sampled blocks stay.
//!
//! A stack is blamed for the part of its samples that stay, not for their number: of a site whose blocks come and go, a
//! sampled place holds by chance what another site has put there since, and that chance is the same for all such sites.
//! It is taken off. Growth is told apart by size class and shape of content, because blocks that live long stay as well as
//! leaked ones do: only what grows is divided. What tells shapes apart, `T`, is the caller's.

use std::collections::BTreeMap;

/// Fewest samples of a site that can be judged.
const SAMPLES_MIN: u32 = 3;
/// How much more than on the average chance may keep of one site: it depends on how soon its blocks are given back.
const CHANCE_SPREAD: f64 = 3.0;
/// Sites that keep less than this are not told from chance.
const RATIO_MIN: f64 = 0.05;
/// Part of the greatest ratio of all sites below which a site is an ordinary one.
const ORDINARY_PART: f64 = 0.6;
/// Standard errors of a 95 % interval.
const SIGMAS: f64 = 1.96;

/// What became of one sampled allocation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence<T> {
    /// Usable bytes of the block.
    pub block_bytes: u64,
    /// Who allocated it.
    pub site: usize,
    /// Allocations a second that it stands for.
    pub weight: f64,
    /// It was allocated long enough before the end to be judged.
    pub is_old: bool,
    /// It was still the same block at the end, of this shape.
    pub stayed: Option<T>,
}

/// Growth of the blocks of one class and shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grown<T> {
    /// Usable bytes of a block.
    pub block_bytes: u64,
    /// What they look like.
    pub shape: T,
    /// Blocks.
    pub delta_blocks: f64,
}

/// What one site made of the growth of one class and shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share<T> {
    /// Who.
    pub site: usize,
    /// Of what.
    pub block_bytes: u64,
    /// Of what it looks like.
    pub shape: T,
    /// Blocks grown.
    pub delta_blocks: f64,
    /// Part of the growth of its class, with its 95 % interval.
    pub share: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Samples of the site in the class.
    pub samples: u32,
    /// Of those that could be judged, the part that stays.
    pub stay_ratio: f64,
}

impl<T> Share<T> {
    /// Bytes grown.
    pub fn bytes(&self) -> f64 {
        self.delta_blocks * self.block_bytes as f64
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct SiteTally {
    samples: u32,
    weight: f64,
    old: u32,
    stayed: u32,
    chance: f64,
}

impl SiteTally {
    fn ratio(&self) -> f64 {
        f64::from(self.stayed) / f64::from(self.old.max(1))
    }

    /// The part that stays, less what stays by chance; 0 where that explains it.
    fn own_ratio(&self) -> f64 {
        let (low, _) = wilson(f64::from(self.stayed), f64::from(self.old));
        // The chance that one of so many others has taken the place since.
        let by_chance = (1.0 - (1.0 - self.chance).powf(CHANCE_SPREAD)).max(RATIO_MIN);
        if self.old < SAMPLES_MIN || low <= self.chance || self.ratio() <= by_chance {
            return 0.0;
        }
        ((self.ratio() - self.chance) / (1.0 - self.chance)).clamp(0.0, 1.0)
    }

    fn kept(&self) -> f64 {
        self.weight * self.own_ratio()
    }
}

/// Divides each growth among sites. What no site is found for is in no share.
pub fn divide<T: Copy + PartialEq>(evidence: &[Evidence<T>], grown: &[Grown<T>]) -> Vec<Share<T>> {
    let mut shares = Vec::new();
    for growth in grown {
        let sites = tally(evidence, growth);
        let all: f64 = sites.values().map(SiteTally::kept).sum();
        if all <= 0.0 {
            continue;
        }
        // Samples that speak of this growth: those that stay of sites that are not explained by chance.
        let speaking: f64 =
            sites.values().filter(|tally| tally.kept() > 0.0).map(|tally| f64::from(tally.stayed)).sum();
        let class_delta: f64 = grown
            .iter()
            .filter(|other| other.block_bytes == growth.block_bytes)
            .map(|other| other.delta_blocks)
            .sum();
        let of_class = growth.delta_blocks / class_delta.max(growth.delta_blocks);
        for (&site, tally) in sites.iter().filter(|(_, tally)| tally.kept() > 0.0) {
            let part = tally.kept() / all;
            let (low, high) = wilson(part * speaking, speaking);
            shares.push(Share {
                site,
                block_bytes: growth.block_bytes,
                shape: growth.shape,
                delta_blocks: growth.delta_blocks * part,
                share: part * of_class,
                low: low * of_class,
                high: high * of_class,
                samples: tally.samples,
                stay_ratio: tally.ratio(),
            });
        }
    }
    shares.sort_by(|one, other| other.bytes().total_cmp(&one.bytes()));
    shares
}

/// The samples of a growth by site, with the chance that a place holds such a block by chance.
fn tally<T: Copy + PartialEq>(evidence: &[Evidence<T>], growth: &Grown<T>) -> BTreeMap<usize, SiteTally> {
    let mut sites: BTreeMap<usize, SiteTally> = BTreeMap::new();
    for one in evidence.iter().filter(|one| one.block_bytes == growth.block_bytes) {
        let tally = sites.entry(one.site).or_default();
        tally.samples += 1;
        tally.weight += one.weight;
        tally.old += u32::from(one.is_old);
        tally.stayed += u32::from(one.is_old && one.stayed == Some(growth.shape));
    }
    // Sites of which much less stays than of the one that keeps most are what chance looks like.
    let most =
        sites.values().filter(|tally| tally.old >= SAMPLES_MIN).map(SiteTally::ratio).fold(0.0, f64::max);
    let ordinary = sites.values().filter(|tally| tally.ratio() < most * ORDINARY_PART);
    let (stayed, old) = ordinary.fold((0, 0), |(stayed, old), one| (stayed + one.stayed, old + one.old));
    let (_, chance) = wilson(f64::from(stayed), f64::from(old));
    let chance = if old == 0 { 0.0 } else { chance };
    for tally in sites.values_mut() {
        tally.chance = chance;
    }
    sites
}

/// Wilson's 95 % interval of a part.
pub fn wilson(some: f64, all: f64) -> (f64, f64) {
    if all <= 0.0 {
        return (0.0, 1.0);
    }
    let part = some / all;
    let square = SIGMAS * SIGMAS;
    let middle = part + square / (2.0 * all);
    let half = SIGMAS * (part * (1.0 - part) / all + square / (4.0 * all * all)).sqrt();
    let scale = 1.0 + square / all;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Shape;

    fn evidence(site: usize, count: u32, stayed: u32) -> Vec<Evidence<Shape>> {
        (0..count)
            .map(|index| Evidence {
                block_bytes: 112,
                site,
                weight: 1.0,
                is_old: true,
                stayed: (index < stayed).then(Shape::default),
            })
            .collect()
    }

    fn grown() -> [Grown<Shape>; 1] {
        [Grown { block_bytes: 112, shape: Shape::default(), delta_blocks: 1000.0 }]
    }

    #[test]
    fn a_busy_site_whose_blocks_stay_by_chance_is_not_blamed() {
        // The busy site has more blocks that stayed than the leaking one has samples.
        let all = [evidence(0, 4000, 120), evidence(1, 2500, 70), evidence(2, 60, 59)].concat();
        let shares = divide(&all, &grown());
        assert_eq!(shares.iter().map(|share| share.site).collect::<Vec<_>>(), [2]);
        assert!((shares[0].delta_blocks - 1000.0).abs() < 1e-6);
        assert!(shares[0].low > 0.9 && shares[0].high > 0.999, "{shares:?}");
    }

    #[test]
    fn a_place_that_a_leak_often_takes_is_no_leak_of_those_who_had_it() {
        // As recorded: where the leak takes a great part of all places, nearly half of the others' seem to stay.
        let all = [evidence(0, 115, 54), evidence(1, 94, 36), evidence(2, 220, 213)].concat();
        let shares = divide(&all, &grown());
        assert_eq!(shares.iter().map(|share| share.site).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn two_leaks_share_as_their_samples_do() {
        let all = [evidence(0, 3000, 10), evidence(1, 300, 300), evidence(2, 100, 100)].concat();
        let shares = divide(&all, &grown());
        assert_eq!(shares.iter().map(|share| share.site).collect::<Vec<_>>(), [1, 2]);
        assert!((shares[0].share - 0.75).abs() < 1e-6, "{shares:?}");
        assert!(shares[0].low < 0.75 && 0.75 < shares[0].high);
    }

    #[test]
    fn without_a_site_that_keeps_nothing_is_attributed() {
        assert_eq!(divide(&evidence(0, 500, 9), &grown()), []);
        assert_eq!(divide(&[], &grown()), []);
    }
}
