//! debuginfod: debug files by build id, over the network, where the user asks for it.
//!
//! Servers are those of `DEBUGINFOD_URLS`. What was fetched is kept where other clients keep it, and found there. Servers with
//! `http://` are asked directly; those with `https://` by `debuginfod-find`, where that is installed, which brings the
//! system's certificates. A file is believed if its build id is the one that was asked for.

use crate::module::{Image, OpenImage};
use std::env;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest wait for one server, unless `DEBUGINFOD_TIMEOUT` says another number of seconds.
const TIMEOUT_S: u64 = 90;
/// Largest file that is fetched.
const FILE_BYTES_MAX: u64 = 16 << 30;
/// Servers that are asked, at most.
const SERVERS_MAX: usize = 16;

/// The debug file of a build, from the cache or from a server.
pub fn fetch(build_id: &str, open: &dyn OpenImage) -> Option<Image> {
    let is_id =
        !build_id.is_empty() && build_id.len() <= 128 && build_id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        return None;
    }
    let take =
        |path: &Path| open.open_here(path).filter(|found| found.build_id().as_deref() == Some(build_id));
    let kept = cache_folder().map(|folder| folder.join(build_id).join("debuginfo"));
    if let Some(found) = kept.as_deref().and_then(take) {
        return Some(found);
    }
    let urls = env::var("DEBUGINFOD_URLS").unwrap_or_default();
    for server in urls.split_whitespace().take(SERVERS_MAX) {
        let fetched = if server.starts_with("http://") {
            let kept = kept.as_deref()?;
            ask(server, build_id, kept).ok().map(|()| kept.to_owned())
        } else {
            ask_client(server, build_id)
        };
        if let Some(found) = fetched.as_deref().and_then(take) {
            return Some(found);
        }
    }
    None
}

/// Where clients of debuginfod keep what they fetched.
fn cache_folder() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let older = || Some(named("HOME")?.join(".debuginfod_client_cache")).filter(|folder| folder.is_dir());
    named("DEBUGINFOD_CACHE_PATH")
        .or_else(older)
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("debuginfod_client")))
        .or_else(|| Some(named("HOME")?.join(".cache/debuginfod_client")))
}

/// Fetches a file to `kept`; it has the name when it is whole.
fn ask(server: &str, build_id: &str, kept: &Path) -> io::Result<()> {
    let seconds = env::var("DEBUGINFOD_TIMEOUT").ok().and_then(|text| text.parse().ok());
    let timeout = Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(TIMEOUT_S));
    let agent = ureq::Agent::config_builder().timeout_global(Some(timeout)).build().new_agent();
    let url = format!("{}/buildid/{build_id}/debuginfo", server.trim_end_matches('/'));
    let client = concat!("heaptap/", env!("CARGO_PKG_VERSION"));
    let mut response = agent.get(&url).header("User-Agent", client).call().map_err(io::Error::other)?;
    let folder = kept.parent().ok_or(io::ErrorKind::NotFound)?;
    std::fs::create_dir_all(folder)?;
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    let body = response.body_mut().with_config().limit(FILE_BYTES_MAX).reader();
    io::copy(&mut body.take(FILE_BYTES_MAX), &mut beside)?;
    beside.persist(kept).map(|_| ()).map_err(|error| error.error)
}

/// Asks one server by the client that comes with them; it keeps what it fetched in the same place.
fn ask_client(server: &str, build_id: &str) -> Option<PathBuf> {
    let mut client = Command::new("debuginfod-find");
    client.env("DEBUGINFOD_URLS", server).args(["debuginfo", build_id]);
    let output = client.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let path = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(PathBuf::from(path.trim_end()))
}
