//! The live blocks of a snapshot, one by one.

use heaptap::snapshot::Liveness;
use std::collections::BTreeMap;

/// Usable bytes of every live block, by address.
pub fn blocks(liveness: &Liveness) -> BTreeMap<u64, u64> {
    let mut live = BTreeMap::new();
    for (index, address) in liveness.runs.address.iter().enumerate() {
        let class = liveness.run_classes[usize::from(liveness.runs.class[index])];
        for (word, bits) in (0_u64..).zip(liveness.runs.words(index)) {
            let set = (0..64).filter(|bit| bits & (1 << bit) != 0);
            live.extend(set.map(|bit| (address + (word * 64 + bit) * class.block_bytes, class.block_bytes)));
        }
    }
    let large = liveness.large.blocks.iter().filter(|block| !block.cached);
    live.extend(large.map(|block| (block.address, block.usable_bytes)));
    live
}
