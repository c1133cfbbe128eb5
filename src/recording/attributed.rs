//! A recording attributed: growth divided among stacks, from what was kept.

use super::kept::{Kept, KeptLarge, KeptSample};
use super::schema::{Recording, SCHEMA, Site};
use crate::attribution::{self, Evidence, Grown, Share};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses of sampled blocks that are told of each site.
const EXAMPLES_MAX: usize = 3;

impl Kept {
    /// Divides the growth among the stacks whose sampled blocks stay.
    pub fn attribute(&self) -> Recording {
        let evidence: Vec<Evidence<usize>> = self.samples.iter().map(evidence).collect();
        let grown: Vec<Grown<usize>> = self
            .grown
            .iter()
            .map(|grown| Grown {
                block_bytes: grown.size_bytes,
                shape: grown.type_index,
                delta_blocks: grown.delta_blocks,
            })
            .collect();
        let shares = attribution::divide(&evidence, &grown);
        let by_stack = self.samples_by_stack();
        let mut sites: Vec<Site> = shares.iter().map(|share| self.site(share, &by_stack)).collect();
        sites.extend(self.large.iter().map(|large| self.large_site(large)));
        sites.sort_by_key(|site| Reverse(site.delta_bytes));
        for (site, rank) in sites.iter_mut().zip(1..) {
            site.rank = rank;
        }
        let attributed: i64 = sites.iter().map(|site| site.delta_bytes).sum();
        let grown: i64 = self.growth.rows.iter().map(|row| row.delta_bytes.max(0)).sum();
        Recording {
            schema: SCHEMA.to_owned(),
            target: self.target.clone(),
            taken_at: self.taken_at,
            sampler: self.sampler.clone(),
            samples: self.samples.len() as u64,
            stacks: self.stacks.len() as u64,
            seconds: self.seconds,
            cost: self.cost.clone(),
            growth: self.growth.clone(),
            sites,
            unattributed_bytes: grown.saturating_sub(attributed),
            base: None,
        }
    }

    fn samples_by_stack(&self) -> BTreeMap<usize, Vec<&KeptSample>> {
        let mut by_stack: BTreeMap<usize, Vec<&KeptSample>> = BTreeMap::new();
        for sample in &self.samples {
            by_stack.entry(sample.stack).or_default().push(sample);
        }
        by_stack
    }

    fn large_site(&self, large: &KeptLarge) -> Site {
        let names: BTreeSet<&String> = large.tids.iter().filter_map(|tid| self.threads.get(tid)).collect();
        Site {
            delta_bytes: (large.delta_blocks * large.size_bytes as f64).round() as i64,
            delta_blocks: large.delta_blocks.round() as i64,
            share: large.share,
            share_low: large.share_low,
            share_high: large.share_high,
            size_bytes: large.size_bytes,
            type_name: "large".to_owned(),
            samples: large.samples,
            stay_ratio: large.stay_ratio,
            threads: names.into_iter().cloned().collect(),
            frames: self.stacks.get(large.stack).cloned().unwrap_or_default(),
            ..Site::default()
        }
    }

    fn site(&self, share: &Share<usize>, by_stack: &BTreeMap<usize, Vec<&KeptSample>>) -> Site {
        let all = by_stack.get(&share.site).map(Vec::as_slice).unwrap_or_default();
        let samples: Vec<&KeptSample> =
            all.iter().copied().filter(|sample| sample.size_bytes == share.block_bytes).collect();
        let stayed = samples.iter().filter(|sample| sample.type_index == Some(share.shape));
        let threads: BTreeSet<i32> = samples.iter().map(|sample| sample.tid).collect();
        let names: BTreeSet<&String> = threads.iter().filter_map(|tid| self.threads.get(tid)).collect();
        let shards: BTreeSet<u32> = stayed.clone().filter_map(|sample| sample.shard).collect();
        let delta_blocks = share.delta_blocks.round();
        Site {
            rank: 0,
            delta_bytes: (delta_blocks * share.block_bytes as f64) as i64,
            delta_blocks: delta_blocks as i64,
            share: share.share,
            share_low: share.low,
            share_high: share.high,
            allocator: stayed.clone().find_map(|sample| sample.allocator.clone()).unwrap_or_default(),
            shards: shards.into_iter().collect(),
            size_bytes: share.block_bytes,
            type_name: self.types.get(share.shape).cloned().unwrap_or_default(),
            samples: share.samples,
            stay_ratio: share.stay_ratio,
            threads: names.into_iter().cloned().collect(),
            addresses: stayed.rev().take(EXAMPLES_MAX).map(|sample| sample.address).collect(),
            frames: self.stacks.get(share.site).cloned().unwrap_or_default(),
        }
    }
}

const fn evidence(sample: &KeptSample) -> Evidence<usize> {
    Evidence {
        block_bytes: sample.size_bytes,
        site: sample.stack,
        weight: sample.weight,
        is_old: sample.is_old,
        stayed: sample.type_index,
    }
}
