//! Who waits for a recording: may end it, and is told how far it is.

use super::recorder::Recorder;
use crate::attribution::Evidence;
use crate::content::Shape;
use crate::stacks::schema::Frame;
use crate::symbolize::Symbolizer;
use std::collections::BTreeMap;
use std::time::Duration;

/// Fewest samples of a stack that are worth a name.
const STAYED_MIN: u32 = 3;

/// Someone who waits.
pub trait Attendant {
    /// Whether the recording is to end before its time.
    fn is_ended(&self) -> bool;
    /// Samples so far, the target's time that they took, and the time since the first count. Called often.
    fn tell(&self, _samples: u64, _spent: Duration, _elapsed: Duration) {}
    /// Whether [`Attendant::name`] is worth the work.
    fn wants_name(&self) -> bool {
        false
    }
    /// The stack of which most bytes seem to stay so far, the newest frame first; called after each count.
    fn name(&self, _leading: Option<Vec<Frame>>) {}
}

/// A first impression: the stack of whose samples most bytes stayed. It is no attribution.
pub(super) fn leading_site(
    recorder: &Recorder<'_>,
    symbolizer: &Symbolizer<'_>,
    evidence: &[(usize, Evidence<Shape>)],
) -> Option<Vec<Frame>> {
    let mut sites: BTreeMap<usize, (u32, u32, u64)> = BTreeMap::new();
    for (_, one) in evidence {
        let (samples, stayed, bytes) = sites.entry(one.site).or_default();
        *samples += 1;
        *stayed += u32::from(one.stayed.is_some());
        *bytes += if one.stayed.is_some() { one.block_bytes } else { 0 };
    }
    let score = |(samples, stayed, bytes): (u32, u32, u64)| {
        bytes as f64 * f64::from(stayed) / f64::from(samples.max(1))
    };
    let known = sites.iter().filter(|(_, (_, stayed, _))| *stayed >= STAYED_MIN);
    let (site, _) = known.max_by(|one, other| score(*one.1).total_cmp(&score(*other.1)))?;
    let frames = recorder.sites.get(*site)?;
    Some(frames.iter().flat_map(|frame| symbolizer.frames(frame)).collect())
}
