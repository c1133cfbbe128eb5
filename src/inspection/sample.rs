//! Random blocks of a class, their types counted, and what they have in common.

use super::blocks::was_live;
use super::places::Places;
use super::schema::{CommonWord, Sample, SampledBlock, TypeCount, Word};
use crate::memory::{MemoryExt, words};
use crate::snapshot::Snapshot;
use std::collections::{BTreeMap, HashMap};

/// Blocks whose types are counted, at most.
pub(super) const READ_MAX: usize = 10_000;
/// Of each listed block so much is shown.
const SHOWN_BYTES: u64 = 128;

/// Which blocks are wanted.
#[derive(Debug, Clone, Copy)]
pub struct ClassRequest<'a> {
    /// The size class.
    pub size_bytes: u64,
    /// The arena; all of them if absent.
    pub shard: Option<u32>,
    /// Blocks to list.
    pub count: usize,
    /// Chooses them.
    pub seed: u64,
    /// Only those whose place was not live then; with the name of that moment.
    pub new_since: Option<(&'a str, &'a Snapshot)>,
}

/// A sequence of numbers without pattern, by "splitmix" (Steele, Lea, Flood 2014).
#[derive(Debug, Clone, Copy)]
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, 0 where there is none.
    fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

/// The sample, or nothing where no allocator has the class.
pub(super) fn sample(places: &Places<'_>, request: &ClassRequest<'_>) -> Option<Sample> {
    if !places.blocks.classes().contains(&request.size_bytes) {
        return None;
    }
    let mut random = Random(request.seed);
    let (live_blocks, mut chosen) = choose(places, request, &mut random);
    let types = count_types(places, &chosen);
    // The first of a shuffled list are a sample of their own.
    for index in 0..request.count.min(chosen.len()) {
        let rest = (chosen.len() - index) as u64;
        chosen.swap(index, index + usize::try_from(random.below(rest)).unwrap_or(0));
    }
    let read_blocks = chosen.len() as u64;
    chosen.truncate(request.count);
    chosen.sort_unstable();
    let blocks: Vec<SampledBlock> = chosen.iter().filter_map(|place| sampled(places, *place)).collect();
    Some(Sample {
        size_bytes: request.size_bytes,
        shard: request.shard,
        new_since: request.new_since.map(|(name, _)| name.to_owned()),
        seed: request.seed,
        live_blocks,
        read_blocks: read_blocks.min(types.iter().map(|one| one.blocks).sum()),
        common: common(places, &blocks),
        types,
        blocks,
    })
}

/// How many blocks there are, and addresses and sizes of a random part of them.
fn choose(places: &Places<'_>, request: &ClassRequest<'_>, random: &mut Random) -> (u64, Vec<(u64, u64)>) {
    let mut seen = 0_u64;
    let mut chosen: Vec<(u64, u64)> = Vec::new();
    let walked = places.subject.walked;
    places.blocks.of_class(request.size_bytes, request.shard, &mut |allocator, address, usable_bytes| {
        let name = walked.get(allocator).map(|walk| walk.name);
        if request.new_since.is_some_and(|(_, snapshot)| was_live_in(snapshot, name, address)) {
            return;
        }
        seen += 1;
        if chosen.len() < READ_MAX {
            chosen.push((address, usable_bytes));
        } else if let Ok(index) = usize::try_from(random.below(seen))
            && let Some(place) = chosen.get_mut(index)
        {
            *place = (address, usable_bytes);
        }
    });
    (seen, chosen)
}

fn was_live_in(snapshot: &Snapshot, allocator: Option<&str>, address: u64) -> bool {
    let allocators = snapshot.summary.allocators.iter().zip(&snapshot.liveness);
    let same = allocators.filter(|(summary, _)| Some(summary.name.as_str()) == allocator);
    same.map(|(_, table)| table).any(|table| was_live(table, address))
}

fn count_types(places: &Places<'_>, blocks: &[(u64, u64)]) -> Vec<TypeCount> {
    let mut counts: HashMap<_, u64> = HashMap::new();
    for (address, usable_bytes) in blocks {
        if let Some(found) = places.block_type(*address, *usable_bytes) {
            *counts.entry(found).or_default() += 1;
        }
    }
    let mut types: Vec<TypeCount> = counts
        .into_iter()
        .map(|(found, blocks)| TypeCount { type_name: found.name, type_by: found.evidence, blocks })
        .collect();
    types.sort_by(|one, other| (other.blocks, &one.type_name).cmp(&(one.blocks, &other.type_name)));
    types
}

fn sampled(places: &Places<'_>, (address, usable_bytes): (u64, u64)) -> Option<SampledBlock> {
    let block = places.typed(places.blocks.at(address)?.block);
    let len_bytes = usize::try_from(usable_bytes.min(SHOWN_BYTES)).ok()?;
    let bytes = places.subject.memory.read_vec(address, len_bytes).unwrap_or_default();
    let shown = (0_u64..).zip(words(&bytes)).map(|(index, value)| Word {
        address: address + index * 8,
        value,
        points_to: places.points_to(value),
    });
    Some(SampledBlock { block, words: shown.collect() })
}

/// The words that at least half of the blocks have alike.
fn common(places: &Places<'_>, blocks: &[SampledBlock]) -> Vec<CommonWord> {
    let length = blocks.iter().map(|sampled| sampled.words.len()).max().unwrap_or(0);
    let most_frequent = |index: usize| {
        let mut values: BTreeMap<u64, u64> = BTreeMap::new();
        for word in blocks.iter().filter_map(|sampled| sampled.words.get(index)) {
            *values.entry(word.value).or_default() += 1;
        }
        values.into_iter().max_by_key(|(_, count)| *count)
    };
    (0..length)
        .filter_map(|index| {
            let (value, equal_blocks) = most_frequent(index)?;
            let is_common = equal_blocks >= 2 && equal_blocks * 2 >= blocks.len() as u64;
            is_common.then(|| CommonWord {
                offset_bytes: index as u64 * 8,
                value,
                equal_blocks,
                points_to: places.points_to(value),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn numbers_are_below_their_end_and_the_seed_repeats_them() {
        let mut random = Random(7);
        let first: Vec<u64> = (0..1000).map(|_| random.below(10)).collect();
        assert!((0..10).all(|wanted| first.iter().filter(|found| **found == wanted).count() > 50));
        let mut again = Random(7);
        assert!(first.iter().all(|found| again.below(10) == *found));
        assert_eq!(again.below(0), 0);
    }
}
