//! What limits a comparison, in sentences.

use super::comparison::Sight;
use super::observation::Observation;
use super::track::Track;
use super::trend::MOMENTS_MIN;
use crate::snapshot::schema::{AllocatorSummary, LiveBound};

/// Everything about the moments that the reader of their difference should know.
pub(super) fn notes(observations: &[Observation<'_>], sight: &Sight, tracks: &[Track]) -> Vec<String> {
    let mut notes = Vec::new();
    match sight {
        Sight::Places => notes.extend(renamed(observations)),
        Sight::Executed => notes.push(
            "the process executed another program between the moments: nothing of the first heap is in the last"
                .to_owned(),
        ),
        Sight::Counts { processes: Some(difference) } => notes.push(format!(
            "the moments are of different processes ({difference}): only counts are compared, not blocks"
        )),
        Sight::Counts { processes: None } => {
            notes.push("the blocks of a moment are not known: only counts are compared".to_owned());
        }
    }
    notes.extend(out_of_order(observations));
    for track in tracks {
        notes.extend(absent(observations, track));
        for (moment, index) in observations.iter().zip(&track.index) {
            let allocator = index.and_then(|index| moment.summary.allocators.get(index));
            notes.extend(allocator.and_then(|allocator| doubtful(moment.source, &track.label, allocator)));
        }
    }
    notes
}

/// The note on large blocks that are not listed one by one.
pub(super) fn more_large_blocks(count: usize, bytes: u64) -> String {
    format!(
        "{count} more large blocks are new or have grown, by {bytes} bytes; they are counted in the rows only"
    )
}

/// The same process, whose program has another name: that alone is no proof of another program.
fn renamed(observations: &[Observation<'_>]) -> Option<String> {
    let name = |moment: &Observation<'_>| {
        let exe = moment.summary.target.exe.clone();
        exe.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(exe)
    };
    let (first, last) = (name(observations.first()?), name(observations.last()?));
    let comparable = !first.is_empty() && !last.is_empty() && first != last;
    comparable.then(|| format!("the executable was called {first} first, and {last} last"))
}

fn out_of_order(observations: &[Observation<'_>]) -> Option<String> {
    let ascending = observations.is_sorted_by(|one, next| one.summary.taken_at < next.summary.taken_at);
    if ascending {
        return None;
    }
    let trend = if observations.len() < MOMENTS_MIN { "" } else { "; there is no trend" };
    Some(format!("the moments are not in the order of their times{trend}"))
}

/// An allocator that is in one of the first and last moment only.
fn absent(observations: &[Observation<'_>], track: &Track) -> Option<String> {
    let moment = match (track.index.first()?, track.index.last()?) {
        (None, Some(_)) => observations.first(),
        (Some(_), None) => observations.last(),
        _ => None,
    }?;
    Some(format!("{} is not in {}; its blocks count as none there", track.label, moment.source))
}

/// Why an allocator's counts in a moment are less than exact.
fn doubtful(source: &str, label: &str, allocator: &AllocatorSummary) -> Option<String> {
    if !allocator.complete {
        return Some(format!("{source}: {label}: {}", LiveBound::describe(allocator.live_bound)));
    }
    if allocator.blocks_in_motion_max > 0 {
        let max = allocator.blocks_in_motion_max;
        return Some(format!(
            "{source}: up to {max} blocks of {label} were in motion; its counts may be off by as many"
        ));
    }
    (!allocator.verified)
        .then(|| format!("{source}: the walk of {label} met contradictions; its counts may be wrong"))
}
