//! What the target's allocator has sampled itself: captured or read from a file, named.

use super::captured::identity;
use super::recorded::ModuleFiles;
use super::{Captured, Contents, Options, Source, Target, TargetError};
use crate::allocator::{Allocator, OwnProfile};
use crate::module::OpenImage;
use crate::profile::schema::{Profile, SCHEMA};
use crate::symbolize::{DebugFiles, Symbolizer};

impl Target {
    /// The profile that the target's allocator keeps of itself: of the allocator that has sampled most, where there are
    /// several. Debug files are looked for over the network only with `ask_network`.
    ///
    /// # Errors
    /// As for [`Target::snapshot`]; no allocator of the target has sampled a block.
    pub fn profile(&self, options: &Options, ask_network: bool) -> Result<Profile, TargetError> {
        let options = Options { contents: Contents::Profile, residency: false, ..*options };
        let captured = self.capture(&options)?;
        match &self.source {
            Source::Running(running) => captured.profile(&running.process, ask_network),
            Source::Recorded(recorded) => {
                let open = ModuleFiles::new(recorded);
                let mut profile = captured.profile(&open, ask_network)?;
                profile.missing.extend(open.into_remarks());
                Ok(profile)
            }
        }
    }
}

impl Captured {
    fn profile(&self, open: &dyn OpenImage, ask_network: bool) -> Result<Profile, TargetError> {
        let threads = self.capture.thread_pointers();
        let own = |allocator: &'_ dyn Allocator| allocator.profile(&self.capture.memory, &threads);
        let profiles =
            self.allocators.iter().filter_map(|allocator| Some((allocator, own(allocator.as_ref())?)));
        let most = profiles.max_by_key(|(_, profile)| (profile.stacks.len(), profile.broken));
        let found = most.filter(|(_, profile)| !profile.stacks.is_empty() || profile.broken > 0);
        let Some((allocator, own)) = found else {
            return Err(TargetError::NoProfile { pid: self.origin.pid, allocators: self.allocator_names() });
        };
        let find = |module| DebugFiles::find(module, open, ask_network);
        let files: Vec<DebugFiles> = self.modules.iter().map(find).collect();
        let symbolizer = Symbolizer::new(&self.modules, &files);
        let sites = crate::profile::sites(&own, &symbolizer);
        let capture = &self.capture;
        Ok(Profile {
            schema: SCHEMA.to_owned(),
            target: identity(self.kind, &self.origin, capture.threads.len()),
            pause_ms: capture.pauses.iter().map(|pause| pause.stopped_us).max().unwrap_or(0) as f64 / 1e3,
            taken_at: capture.taken_at,
            allocator: allocator.name().to_owned(),
            version: allocator.version(),
            period_bytes: own.period_bytes,
            sampled_blocks: sites.iter().map(|site| site.sampled_blocks).sum(),
            sampled_bytes: sites.iter().map(|site| site.sampled_bytes).fold(0, u64::saturating_add),
            live_blocks: sites.iter().map(|site| site.live_blocks).fold(0, u64::saturating_add),
            live_bytes: sites.iter().map(|site| site.live_bytes).fold(0, u64::saturating_add),
            counters_compared: own.counters_compared,
            counters_differing: own.counters_differing,
            sites,
            missing: missing(&own),
        })
    }

    fn allocator_names(&self) -> String {
        let all = self.allocators.iter();
        let names = all.map(|allocator| format!("{} {}", allocator.name(), allocator.version()));
        names.collect::<Vec<_>>().join(", ")
    }
}

fn missing(own: &OwnProfile) -> Vec<String> {
    let mut missing = Vec::new();
    if own.broken > 0 {
        missing.push(format!(
            "the stacks of {} sampled blocks cannot be read or contradict themselves",
            own.broken
        ));
    }
    if own.period_bytes.is_none() {
        missing.push(
            "how often it samples is not known: sampled blocks are counted as they are, not as what they stand for"
                .to_owned(),
        );
    }
    missing
}
