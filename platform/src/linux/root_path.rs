//! Opening paths as another process means them: below its own root, in its own mounts.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

const LINKS_MAX: usize = 40;

/// The file at `path` below `root`, links followed as a process with that root would.
pub fn open(root: &Path, path: &Path) -> io::Result<File> {
    let root = open_root(root)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let how = OpenHow::new().flags(file_flags()).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = match openat2(&root, relative, how) {
        Ok(file) => file,
        // Kernels before 5.6, and filters that do not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => open_stepwise(root, relative)?,
        Err(errno) => return Err(errno.into()),
    };
    regular(File::from(file))
}

/// A path may lead to a pipe or a device; opening those must neither wait nor act.
fn file_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(root, flags, Mode::empty())?)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Follows `path` part by part from `root`. A link that is absolute starts at `root` again, not at this process's root; and
/// nothing leads above it.
fn open_stepwise(root: OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut ahead: Vec<PathBuf> = parts(path);
    let mut above: Vec<OwnedFd> = vec![root];
    let mut link_count = 0;
    while let Some(part) = ahead.pop() {
        let here = above.last().ok_or(Errno::ENOENT)?;
        if part.as_os_str() == ".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        match readlinkat(here, part.as_path()) {
            Ok(link) => {
                link_count += 1;
                if link_count > LINKS_MAX {
                    return Err(Errno::ELOOP);
                }
                if Path::new(&link).is_absolute() {
                    above.truncate(1);
                }
                ahead.extend(parts(Path::new(OsStr::new(&link))));
            }
            Err(Errno::EINVAL) if ahead.is_empty() => {
                return openat(here, part.as_path(), file_flags() | OFlag::O_NOFOLLOW, Mode::empty());
            }
            Err(Errno::EINVAL) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                above.push(openat(here, part.as_path(), flags, Mode::empty())?);
            }
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EISDIR)
}

/// The parts of a path that mean a step, last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    /// A small tree with links that would lead out of it, were they followed from this process's root.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            fs::create_dir_all(folder.join("usr/lib/deep")).unwrap();
            fs::write(folder.join("usr/lib/module"), "inside").unwrap();
            symlink("/usr/lib", folder.join("lib")).unwrap();
            symlink("../../../../../lib/module", folder.join("usr/lib/deep/up")).unwrap();
            symlink("loop", folder.join("loop")).unwrap();
            Self(folder)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn content(file: io::Result<File>) -> io::Result<String> {
        let mut text = String::new();
        file?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn links_are_followed_below_the_root_both_ways() {
        let tree = Tree::new("root-path");
        let by_call = |path: &str| content(open(&tree.0, Path::new(path)));
        let by_steps = |path: &str| {
            let file = open_stepwise(open_root(&tree.0).unwrap(), Path::new(path)).map_err(io::Error::from);
            content(file.map(File::from).and_then(regular))
        };
        for path in ["/lib/module", "usr/lib/deep/up", "/../../lib/module", "/lib/deep/../module"] {
            assert_eq!(by_call(path).unwrap(), "inside", "{path}");
            assert_eq!(by_steps(path).unwrap(), "inside", "{path}");
        }
        for path in ["/lib/none", "/loop", "/usr/lib", "/", "/usr/lib/module/further"] {
            assert!(by_call(path).is_err(), "{path}");
            assert!(by_steps(path).is_err(), "{path}");
        }
    }
}
