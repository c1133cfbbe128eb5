//! Which allocator of one moment is which of another.

use crate::snapshot::schema::AllocatorSummary;

/// One allocator through all moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    /// Its name; with its module where one name stands for several.
    pub label: String,
    /// Its index in each moment's summary, where it is there.
    pub index: Vec<Option<usize>>,
}

/// The allocators of all moments, each once, in the order in which they are met.
///
/// By name as long as names are unique within each moment, since the file of a module may be renamed or
/// deleted under a running process; else by name, module and number.
pub(super) fn tracks(moments: &[&[AllocatorSummary]]) -> Vec<Track> {
    let mut tracks: Vec<(Key<'_>, Vec<Option<usize>>)> = Vec::new();
    for (moment, allocators) in moments.iter().enumerate() {
        for (index, allocator) in allocators.iter().enumerate() {
            let key = Key::of(allocator, index, moments);
            let known = tracks.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                tracks.push((key, vec![None; moments.len()]));
                tracks.len() - 1
            });
            let place = tracks.get_mut(known).and_then(|(_, indices)| indices.get_mut(moment));
            if let Some(place) = place {
                *place = Some(index);
            }
        }
    }
    tracks.into_iter().map(|(key, index)| Track { label: key.label(), index }).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key<'a> {
    name: &'a str,
    /// Module, and how many of that name and module stand before; `None` where the name says all.
    place: Option<(&'a str, usize)>,
}

impl<'a> Key<'a> {
    fn of(allocator: &'a AllocatorSummary, index: usize, moments: &[&'a [AllocatorSummary]]) -> Self {
        let name = allocator.name.as_str();
        let count = |moment: &&[AllocatorSummary]| moment.iter().filter(|other| other.name == name).count();
        if moments.iter().all(|moment| count(moment) <= 1) {
            return Self { name, place: None };
        }
        let module = module(allocator);
        let own =
            moments.iter().find(|moment| moment.get(index).is_some_and(|it| std::ptr::eq(it, allocator)));
        let before = own.and_then(|moment| moment.get(..index)).unwrap_or_default();
        let same = before.iter().filter(|other| other.name == name && self::module(other) == module).count();
        Self { name, place: Some((module, same)) }
    }

    fn label(&self) -> String {
        let Some((module, before)) = self.place else { return self.name.to_owned() };
        let file = module.rsplit('/').next().unwrap_or(module);
        match before {
            0 => format!("{} ({file})", self.name),
            _ => format!("{} ({file}, {})", self.name, before + 1),
        }
    }
}

/// The file of its module; a suffix says that it has been deleted since it was mapped.
fn module(allocator: &AllocatorSummary) -> &str {
    allocator.module.strip_suffix(" (deleted)").unwrap_or(&allocator.module)
}
