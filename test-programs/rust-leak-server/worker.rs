//! A thread that makes up requests and answers them.

use crate::descent::{Layer, layers};
use crate::latencies::Latencies;
use crate::options::Options;
use crate::random::Random;
use crate::ring::Ring;
use crate::sites::{
    CountEvent, DrawImage, FetchCreative, FillCache, FormatLine, Hoard, KeepSession, LookUpUser, MakeBid,
    PackReply, QueueTask, RankResults, ReadHeader, RenderPage, ResolveHost, Shared, SplitFields, SpoolAudit,
};
use crate::tally::Tallies;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ALLOCATIONS_PER_REQUEST: u64 = 16;
const CHOICES: u64 = 1_000_000;
/// Where there is no bound, lifetimes are counted as if this were the rate.
const RATE_ASSUMED: f64 = 4_000_000.0;

// Parts of all allocations, in millionths; what is left to a million is `SplitFields`.
const READ_HEADER: u64 = 220_000;
const LOOK_UP_USER: u64 = 120_000;
const MAKE_BID: u64 = 100_000;
const FORMAT_LINE: u64 = 20_000;
const COUNT_EVENT: u64 = 60_000;
const QUEUE_TASK: u64 = 60_000;
const FETCH_CREATIVE: u64 = 50_000;
const DRAW_IMAGE: u64 = 20_000;
const PACK_REPLY: u64 = 20_000;
const RESOLVE_HOST: u64 = 20_000;
const KEEP_SESSION: u64 = 10_000;
const RENDER_PAGE: u64 = 500;
const FILL_CACHE: u64 = 2_000;

type ToReadHeader = layers!(p p d p p p p p d p p);
type ToSplitFields = layers!(p p d p p p p d p p);
type ToLookUpUser = layers!(p d p p p p d p p p);
type ToDrawImage = layers!(p p d p p p p p);
type ToMakeBid = layers!(p p p d p p p p d p p p p d p p p);
type ToFormatLine = layers!(p p d p p p p p p);
type ToCountEvent = layers!(p p d p p p p d p p p p d p p p p p);
type ToQueueTask = layers!(p p d p p p p d p p p p d p p p p p p);
type ToFetchCreative = layers!(p p d p p p p d p p p p d p p);
type ToPackReply = layers!(p p d p p p p d p p p p);
type ToKeepSession = layers!(p p d p p p p d p p p p p p);
type ToRenderPage = layers!(p p d p p p p p p p);
type ToResolveHost = layers!(p p d p p p p d p p p p d p p p p p p p);
type ToFillCache = layers!(p p d p p p p d p p p p);
type ToRankResults = layers!(p p d p p p p d p p p p d p p p);
type ToSpoolAudit = layers!(p p d p p p p d p p p p p);

pub struct Worker {
    options: Options,
    per_second: f64,
    random: Random,
    latencies: Arc<Latencies>,
    read_header: ReadHeader,
    split_fields: SplitFields,
    look_up_user: LookUpUser,
    draw_image: DrawImage,
    make_bid: MakeBid,
    format_line: FormatLine,
    count_event: CountEvent,
    queue_task: QueueTask,
    fetch_creative: FetchCreative,
    pack_reply: PackReply,
    keep_session: KeepSession,
    render_page: RenderPage,
    resolve_host: ResolveHost,
    fill_cache: FillCache,
    rank_results: RankResults,
    spool_audit: SpoolAudit,
}

impl Worker {
    pub fn new(options: Options, number: u32, tallies: Arc<Tallies>, latencies: Arc<Latencies>) -> Self {
        let rate = if options.rate > 0.0 { options.rate } else { RATE_ASSUMED };
        let per_second = rate / f64::from(options.threads);
        let seed = u64::from(number) + 1;
        let shared = Rc::new(Shared { random: RefCell::new(Random::new(seed)), tallies });
        // So many as come in these seconds.
        let ring = |millionths: u64, seconds: f64| per_second * millionths as f64 / CHOICES as f64 * seconds;
        let cache = options.cache / options.threads as usize;
        Self {
            options,
            per_second,
            random: Random::new(seed + 1000),
            latencies,
            read_header: ReadHeader::new(&shared, Vec::with_capacity(64)),
            split_fields: SplitFields::new(&shared, Vec::with_capacity(64)),
            look_up_user: LookUpUser::new(&shared, HashMap::with_capacity(64)),
            draw_image: DrawImage::new(&shared, Vec::with_capacity(64)),
            make_bid: MakeBid::new(&shared, Ring::new(ring(MAKE_BID, 0.002))),
            format_line: FormatLine::new(&shared, Ring::new(ring(FORMAT_LINE, 0.05))),
            count_event: CountEvent::new(&shared, Ring::new(ring(COUNT_EVENT, 0.1))),
            queue_task: QueueTask::new(&shared, Ring::new(ring(QUEUE_TASK, 0.02))),
            fetch_creative: FetchCreative::new(&shared, Ring::new(ring(FETCH_CREATIVE, 1.0))),
            pack_reply: PackReply::new(&shared, Ring::new(ring(PACK_REPLY, 2.0))),
            keep_session: KeepSession::new(&shared, Ring::new(ring(KEEP_SESSION, options.minute))),
            render_page: RenderPage::new(&shared, Ring::new(ring(RENDER_PAGE, 0.2))),
            resolve_host: ResolveHost::new(&shared, Ring::new(ring(RESOLVE_HOST, 0.3))),
            fill_cache: FillCache::new(&shared, (cache, Vec::with_capacity(cache))),
            rank_results: RankResults::new(&shared, Hoard::new(options.kind)),
            spool_audit: SpoolAudit::new(&shared, Hoard::new(options.kind)),
        }
    }

    /// Brings everything that lives long to its full number.
    pub fn fill(&mut self) {
        for _ in 0..self.keep_session.things.room() {
            ToKeepSession::enter(&mut self.keep_session);
        }
        for _ in 0..self.pack_reply.things.room() {
            ToPackReply::enter(&mut self.pack_reply);
        }
        for _ in 0..self.fetch_creative.things.room() {
            ToFetchCreative::enter(&mut self.fetch_creative);
        }
    }

    #[inline(never)]
    fn handle(&mut self, choice: u64) {
        let mut left = choice;
        let mut is = |part: u64| {
            let chosen = left < part;
            left = left.saturating_sub(if chosen { 0 } else { part });
            chosen
        };
        let part_of = |part: f64| (part * CHOICES as f64) as u64;
        if is(part_of(self.options.leak)) {
            ToRankResults::enter(&mut self.rank_results);
        } else if is(part_of(self.options.second_leak)) {
            ToSpoolAudit::enter(&mut self.spool_audit);
        } else if is(READ_HEADER) {
            ToReadHeader::enter(&mut self.read_header);
        } else if is(LOOK_UP_USER) {
            ToLookUpUser::enter(&mut self.look_up_user);
        } else if is(MAKE_BID) {
            ToMakeBid::enter(&mut self.make_bid);
        } else if is(FORMAT_LINE) {
            ToFormatLine::enter(&mut self.format_line);
        } else if is(COUNT_EVENT) {
            ToCountEvent::enter(&mut self.count_event);
        } else if is(QUEUE_TASK) {
            ToQueueTask::enter(&mut self.queue_task);
        } else if is(FETCH_CREATIVE) {
            ToFetchCreative::enter(&mut self.fetch_creative);
        } else if is(DRAW_IMAGE) {
            ToDrawImage::enter(&mut self.draw_image);
        } else if is(PACK_REPLY) {
            ToPackReply::enter(&mut self.pack_reply);
        } else if is(RESOLVE_HOST) {
            ToResolveHost::enter(&mut self.resolve_host);
        } else if is(KEEP_SESSION) {
            ToKeepSession::enter(&mut self.keep_session);
        } else if is(RENDER_PAGE) {
            ToRenderPage::enter(&mut self.render_page);
        } else if is(if self.options.cache > 0 { FILL_CACHE } else { 0 }) {
            ToFillCache::enter(&mut self.fill_cache);
        } else {
            ToSplitFields::enter(&mut self.split_fields);
        }
        black_box(());
    }

    #[inline(never)]
    fn handle_request(&mut self) {
        for _ in 0..ALLOCATIONS_PER_REQUEST {
            let choice = self.random.below(CHOICES);
            self.handle(choice);
        }
        self.read_header.end_request();
        self.split_fields.end_request();
        self.look_up_user.end_request();
        self.draw_image.end_request();
    }

    /// Answers requests for ever.
    #[inline(never)]
    pub fn serve(&mut self) -> ! {
        let begun = Instant::now();
        let mut requests: u64 = 0;
        loop {
            let from = Instant::now();
            self.handle_request();
            self.latencies.add(from.elapsed().as_nanos() as u64);
            requests += 1;
            if self.options.rate == 0.0 || !requests.is_multiple_of(8) {
                continue;
            }
            let due = Duration::from_secs_f64((requests * ALLOCATIONS_PER_REQUEST) as f64 / self.per_second);
            let ahead = due.saturating_sub(begun.elapsed());
            if ahead > Duration::from_micros(50) {
                std::thread::sleep(ahead);
            }
        }
    }
}
