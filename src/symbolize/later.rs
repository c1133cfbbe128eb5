//! Names given later, on another machine: to stacks as JSON, and to lines with `module+0xoffset`.

use super::{DebugFiles, Name, Symbolizer};
use crate::module::{Image, Module, OpenImage};
use crate::stacks::schema::{Frame, Stacks};
use heaptap_platform::AddressRange;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Finds files by build id, and names in them.
pub struct Namer<'o> {
    open: &'o dyn OpenImage,
    /// Files that the user named, unstripped ones perhaps.
    given: Vec<Arc<Image>>,
    ask_network: bool,
    named: RefCell<HashMap<Place, Vec<Name>>>,
}

impl std::fmt::Debug for Namer<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Namer").field("given", &self.given.len()).finish_non_exhaustive()
    }
}

/// A place as a line of text names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The module.
    pub module: String,
    /// The address in its file.
    pub offset: u64,
    /// Its build id, hexadecimal.
    pub build_id: Option<String>,
}

impl<'o> Namer<'o> {
    /// A namer that looks into the files that the user gave first, then where debug files lie on this machine.
    pub fn new(open: &'o dyn OpenImage, given: Vec<Image>, ask_network: bool) -> Self {
        let given = given.into_iter().map(Arc::new).collect();
        Self { open, given, ask_network, named: RefCell::default() }
    }

    /// Names the frames that have no name yet; gives the number of those that stay without one.
    pub fn name_stacks(&self, stacks: &mut Stacks) -> usize {
        self.learn_frames(stacks.groups.iter().flat_map(|group| &group.frames));
        stacks.groups.iter_mut().map(|group| self.name_frames(&mut group.frames)).sum()
    }

    /// Names the frames of one stack that have no name yet; gives the number of those that stay without one.
    pub fn name_frames(&self, frames: &mut Vec<Frame>) -> usize {
        let mut nameless = 0;
        for frame in std::mem::take(frames) {
            let names = if frame.function.is_some() { Vec::new() } else { self.names_of_frame(&frame) };
            nameless += usize::from(frame.function.is_none() && names.is_empty());
            if names.is_empty() {
                frames.push(frame);
            } else {
                frames.extend(names.into_iter().map(|name| name.given_to(frame.clone())));
            }
        }
        nameless
    }

    fn names_of_frame(&self, frame: &Frame) -> Vec<Name> {
        place_of(frame).map(|place| self.names(&place)).unwrap_or_default()
    }

    /// The names of a place, inlined functions first; none where no file with its build id names it. Without a
    /// build id only files that the user gave under the same name are believed.
    pub fn names(&self, place: &Place) -> Vec<Name> {
        if let Some(names) = self.named.borrow().get(place) {
            return names.clone();
        }
        self.learn([place.clone()]);
        self.named.borrow().get(place).cloned().unwrap_or_default()
    }

    /// Names all places of one module at a time: what has to be read of its files is read once.
    pub fn learn(&self, places: impl IntoIterator<Item = Place>) {
        let mut by_module: HashMap<String, Vec<Place>> = HashMap::new();
        for place in places {
            let key = place.build_id.clone().unwrap_or_else(|| place.module.clone());
            by_module.entry(key).or_default().push(place);
        }
        let mut named = self.named.borrow_mut();
        for places in by_module.into_values() {
            let module = places.first().and_then(|place| self.find(place));
            let files = module.as_ref().map(|module| DebugFiles::find(module, self.open, self.ask_network));
            let symbolizer = Symbolizer::new(module.as_slice(), files.as_slice());
            for place in places {
                let mut names = symbolizer.names_in_first(place.offset);
                names.retain(|name| name.function.is_some());
                named.insert(place, names);
            }
        }
    }

    /// The same for the places of frames that have no name yet.
    pub fn learn_frames<'f>(&self, frames: impl IntoIterator<Item = &'f Frame>) {
        let nameless = frames.into_iter().filter(|frame| frame.function.is_none());
        let places: HashSet<Place> = nameless.filter_map(place_of).collect();
        self.learn(places);
    }

    fn find(&self, place: &Place) -> Option<Module> {
        let image = match &place.build_id {
            Some(id) => self.find_by_id(place, id)?,
            None => Arc::clone(self.given.first().filter(|_| self.given.len() == 1)?),
        };
        let range = AddressRange { start: 0, end: u64::MAX };
        let path = PathBuf::from(&place.module);
        Some(Module { path, bias: 0, range, writable: Vec::new(), image: Some(image), debug: None })
    }

    /// A file that the user gave, the module itself where it is installed here, or what is left of it: its debug file.
    fn find_by_id(&self, place: &Place, id: &str) -> Option<Arc<Image>> {
        let is_it = |image: &Image| image.build_id().as_deref() == Some(id);
        if let Some(given) = self.given.iter().find(|image| is_it(image)) {
            return Some(Arc::clone(given));
        }
        let (folder, file) = id.split_at_checked(2)?;
        let by_id = PathBuf::from(format!("/usr/lib/debug/.build-id/{folder}/{file}.debug"));
        let own = self.open.open_here(&PathBuf::from(&place.module)).filter(is_it);
        let apart = || self.open.open_here(&by_id).filter(is_it);
        let asked = || if self.ask_network { super::debuginfod::fetch(id, self.open) } else { None };
        own.or_else(apart).or_else(asked).map(Arc::new)
    }

    /// The line, with the names of the places that it mentions behind it.
    pub fn name_line(&self, line: &str) -> String {
        let Some(place) = place_in(line) else { return line.to_owned() };
        let names = self.names(&place);
        if names.is_empty() {
            return line.to_owned();
        }
        let shown = names.iter().map(|name| {
            let function = name.function.as_deref().unwrap_or("?");
            match (&name.file, name.line) {
                (Some(file), Some(number)) => format!("{function} at {file}:{number}"),
                (Some(file), None) => format!("{function} at {file}"),
                _ => function.to_owned(),
            }
        });
        format!("{line}  {}", shown.collect::<Vec<_>>().join(", inlined in "))
    }
}

fn place_of(frame: &Frame) -> Option<Place> {
    Some(Place { module: frame.module.clone()?, offset: frame.offset?, build_id: frame.build_id.clone() })
}

/// The first `module+0xoffset` of a line, with the `(BuildId: ...)` that follows it, if one does.
pub fn place_in(line: &str) -> Option<Place> {
    let (before, after) = line.split_once("+0x")?;
    let module = before.rsplit([' ', '\t', '(']).next().filter(|module| !module.is_empty())?;
    let digits = after.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    let offset = u64::from_str_radix(digits, 16).ok()?;
    let build_id = after
        .split_once("BuildId: ")
        .map(|(_, id)| id.chars().take_while(char::is_ascii_hexdigit).collect::<String>());
    Some(Place { module: module.to_owned(), offset, build_id: build_id.filter(|id| !id.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::{Place, place_in};

    #[test]
    fn places_are_found_in_lines() {
        let place = |module: &str, offset, build_id: Option<&str>| {
            Some(Place { module: module.to_owned(), offset, build_id: build_id.map(str::to_owned) })
        };
        assert_eq!(
            place_in("  3  /usr/bin/a+0x1f0 (BuildId: ab12)"),
            place("/usr/bin/a", 0x1f0, Some("ab12"))
        );
        assert_eq!(
            place_in("#1 0x55 (/usr/bin/a+0x10)  (BuildId: c0)"),
            place("/usr/bin/a", 0x10, Some("c0"))
        );
        assert_eq!(place_in("lib.so+0xff"), place("lib.so", 0xff, None));
        assert_eq!(place_in("no place at all"), None);
        assert_eq!(place_in("+0x10"), None);
        assert_eq!(place_in("a+0x11111111111111111"), None);
    }
}
