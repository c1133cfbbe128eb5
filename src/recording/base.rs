//! The difference of two recordings: which sites make more than before, and which less.

use super::schema::{Base, Recording, Site};
use std::collections::HashMap;

/// What tells sites apart: size class, type, and the places of the stack.
type Key<'a> = (u64, &'a str, Vec<Place<'a>>);

/// Names where there are some, since another build has other addresses; places else.
type Place<'a> = (Option<&'a str>, Option<&'a str>, Option<u64>);

/// The sites of `later` less those of `base`, which was recorded from `source`. Where they are of different length, what
/// `base` grew is multiplied to the length of `later`. The growth of `later` stays as it is.
pub fn less(mut later: Recording, base: &Recording, source: &str) -> Recording {
    let scale = if base.seconds > 0.0 { later.seconds / base.seconds } else { 1.0 };
    let (taken_off, gone) = compared(&later.sites, &base.sites, scale);
    for (site, sum) in later.sites.iter_mut().zip(taken_off) {
        site.delta_bytes -= sum.bytes.round() as i64;
        site.delta_blocks -= sum.blocks.round() as i64;
    }
    later.sites.extend(gone);
    later.sites.sort_by_key(|site| std::cmp::Reverse(site.delta_bytes));
    for (site, rank) in later.sites.iter_mut().zip(1..) {
        site.rank = rank;
    }
    later.base = Some(Base {
        source: source.to_owned(),
        seconds: base.seconds,
        scale,
        total_delta_bytes: base.growth.total_delta_bytes,
    });
    later
}

/// Growth of all sites of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    bytes: f64,
    blocks: f64,
}

/// What is to be taken off each site of `later`, and the sites that only `base` has.
fn compared<'s>(later: &'s [Site], base: &'s [Site], scale: f64) -> (Vec<Sum>, Vec<Site>) {
    let mut before: HashMap<Key<'_>, Sum> = HashMap::new();
    for site in base {
        let sum = before.entry(key(site)).or_default();
        sum.bytes += site.delta_bytes as f64 * scale;
        sum.blocks += site.delta_blocks as f64 * scale;
    }
    let taken_off = later.iter().map(|site| before.remove(&key(site)).unwrap_or_default()).collect();
    let gone = |site: &'s Site| {
        let sum = before.remove(&key(site))?;
        Some(Site {
            delta_bytes: -(sum.bytes.round() as i64),
            delta_blocks: -(sum.blocks.round() as i64),
            share: 0.0,
            share_low: 0.0,
            share_high: 0.0,
            ..site.clone()
        })
    };
    (taken_off, base.iter().filter_map(gone).collect())
}

fn key(site: &Site) -> Key<'_> {
    let places = site.frames.iter().map(|frame| match &frame.function {
        Some(function) => (Some(function.as_str()), None, None),
        None => (None, frame.module.as_deref(), frame.offset),
    });
    (site.size_bytes, &site.type_name, places.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::schema::Frame;

    fn recording(seconds: f64, sites: &[(&str, i64)]) -> Recording {
        let site = |&(function, delta_bytes): &(&str, i64)| Site {
            delta_bytes,
            delta_blocks: delta_bytes / 100,
            size_bytes: 100,
            frames: vec![Frame { function: Some(function.to_owned()), ..Frame::default() }],
            ..Site::default()
        };
        Recording { seconds, sites: sites.iter().map(site).collect(), ..Recording::default() }
    }

    #[test]
    fn sites_are_compared_by_their_names_and_over_the_same_length() {
        let base = recording(10.0, &[("mended", 1000), ("same", 500)]);
        let later = recording(20.0, &[("same", 1100), ("new", 700)]);
        let less = less(later, &base, "before");
        let found: Vec<(u32, &str, i64, i64)> = less
            .sites
            .iter()
            .map(|site| {
                let function = site.frames[0].function.as_deref().unwrap();
                (site.rank, function, site.delta_bytes, site.delta_blocks)
            })
            .collect();
        assert_eq!(found, [(1, "new", 700, 7), (2, "same", 100, 1), (3, "mended", -2000, -20)]);
        assert_eq!(less.base.unwrap().scale, 2.0);
    }
}
