//! The files that name the code of one module: itself, the one with its debug information, what is packed in it,
//! and what several debug files share.

use super::split::SplitFiles;
use super::{debuginfod, mini_debug};
use crate::module::{Image, Module, OpenImage};
use gimli::SectionId;
use object::Object;
use object::read::elf::ElfFile64;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that a packed section is unpacked to, at most.
const SECTION_BYTES_MAX: u64 = 4 << 30;

/// Files of one module besides its own, and what had to be unpacked of them.
#[derive(Debug, Default)]
pub struct DebugFiles {
    apart: Option<Arc<Image>>,
    /// What `dwz` moved out of several debug files into one.
    shared: Option<Arc<Image>>,
    /// Units whose debug information is in files of their own.
    pub(super) split: SplitFiles,
    mini_debug: OnceCell<Option<Image>>,
    pub(super) unpacked: OnceCell<UnpackedSections>,
    pub(super) unpacked_shared: OnceCell<UnpackedSections>,
}

impl DebugFiles {
    /// Looks for the files of a module, below the target's root; over the network only with `ask_network`.
    pub fn find(module: &Module, open: &dyn OpenImage, ask_network: bool) -> Self {
        let mut whole = module.clone();
        if whole.debug.is_none() {
            whole.find_debug(open);
        }
        let lacks = whole.debug.is_none() && module.image.as_ref().is_some_and(|own| !own.has_debug_info());
        if lacks && ask_network {
            let build_id = module.image.as_ref().and_then(|image| image.build_id());
            whole.debug = build_id.and_then(|id| debuginfod::fetch(&id, open)).map(Arc::new);
        }
        let mut files = Self::of(whole.debug, module, open);
        if files.shared.is_none() && ask_network {
            files.shared = files.shared_id(module).and_then(|id| debuginfod::fetch(&id, open)).map(Arc::new);
        }
        files
    }

    /// The files of a module whose separate debug file is known.
    pub fn of(apart: Option<Arc<Image>>, module: &Module, open: &dyn OpenImage) -> Self {
        let main = apart.as_deref().or(module.image.as_deref());
        let shared = main.and_then(|main| find_shared(main, open)).map(Arc::new);
        let split = main.map(|main| SplitFiles::find(main, &module.path, open)).unwrap_or_default();
        Self { apart, shared, split, ..Self::default() }
    }

    /// The build id of the file that the debug information shares with others.
    fn shared_id(&self, module: &Module) -> Option<String> {
        shared_link(self.apart.as_deref().or(module.image.as_deref())?).map(|(_, id)| id)
    }

    /// The file that has the debug information of a module.
    pub fn with_debug_information<'a>(&'a self, module: &'a Module) -> Option<&'a Image> {
        let own = module.image.as_deref().filter(|own| own.has_debug_info());
        own.or_else(|| self.apart.as_deref().filter(|apart| apart.has_debug_info()))
    }

    /// What the debug information shares with others.
    pub fn shared(&self) -> Option<&Image> {
        self.shared.as_deref()
    }

    /// All files of a module with symbols.
    pub fn images<'a>(&'a self, module: &'a Module) -> impl Iterator<Item = &'a Image> {
        let own = module.image.as_deref();
        let packed = self.mini_debug.get_or_init(|| own.and_then(mini_debug::unpack)).as_ref();
        [packed, own, self.apart.as_deref()].into_iter().flatten()
    }
}

/// Sections that are compressed in their file.
#[derive(Debug, Default)]
pub struct UnpackedSections(Vec<(SectionId, Vec<u8>)>);

impl UnpackedSections {
    /// Unpacks what `ids` name.
    pub fn of(image: &Image, ids: &[SectionId]) -> Self {
        let unpacked = |id: &SectionId| match image.section(id.name(), SECTION_BYTES_MAX)? {
            Cow::Owned(bytes) => Some((*id, bytes)),
            Cow::Borrowed(_) => None,
        };
        Self(ids.iter().filter_map(unpacked).collect())
    }

    /// A section's bytes: unpacked, or as they are in the file; none where there is no such section.
    pub fn section<'a>(&'a self, image: &'a Image, id: SectionId) -> &'a [u8] {
        if let Some((_, bytes)) = self.0.iter().find(|(known, _)| *known == id) {
            return bytes;
        }
        match image.section(id.name(), SECTION_BYTES_MAX) {
            Some(Cow::Borrowed(bytes)) => bytes,
            _ => &[],
        }
    }
}

/// Name and build id of the file that `.gnu_debugaltlink` names.
fn shared_link(main: &Image) -> Option<(PathBuf, String)> {
    let file = ElfFile64::<object::LittleEndian>::parse(main.bytes()).ok()?;
    let (name, id) = file.gnu_debugaltlink().ok()??;
    let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
    Some((PathBuf::from(String::from_utf8_lossy(name).into_owned()), id))
}

/// That file, if its build id agrees.
fn find_shared(main: &Image, open: &dyn OpenImage) -> Option<Image> {
    let (name, id) = shared_link(main)?;
    let by_id = id
        .split_at_checked(2)
        .map(|(folder, rest)| PathBuf::from(format!("/usr/lib/debug/.build-id/{folder}/{rest}.debug")));
    // A relative name begins at the debug file, which lies two folders deep below .build-id.
    let by_name = Path::new("/usr/lib/debug/.build-id/xx").join(&name);
    [by_id, Some(by_name)]
        .into_iter()
        .flatten()
        .filter_map(|path| open.open_in_root(&path))
        .find(|shared| shared.build_id().as_deref() == Some(&id))
}
