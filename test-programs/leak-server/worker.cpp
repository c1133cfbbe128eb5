#include "worker.hpp"

#include "descent.hpp"

#include <cmath>
#include <ctime>

namespace {

constexpr int kAllocationsPerRequest = 16;
constexpr uint64_t kChoices = 1000000;
// Where there is no bound, lifetimes are counted as if this were the rate.
constexpr double kRateAssumed = 4000000;

// Parts of all allocations, in millionths; what is left to a million is split_fields.
constexpr uint64_t kReadHeader = 220000;
constexpr uint64_t kLookUpUser = 120000;
constexpr uint64_t kMakeBid = 100000;
constexpr uint64_t kFormatLine = 20000;
constexpr uint64_t kCountEvent = 60000;
constexpr uint64_t kQueueTask = 60000;
constexpr uint64_t kFetchCreative = 50000;
constexpr uint64_t kDrawImage = 20000;
constexpr uint64_t kPackReply = 20000;
constexpr uint64_t kResolveHost = 20000;
constexpr uint64_t kKeepSession = 10000;
constexpr uint64_t kRenderPage = 500;
constexpr uint64_t kFillCache = 2000;

uint64_t now_ns()
{
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1000000000 + static_cast<uint64_t>(time.tv_nsec);
}

void sleep_ns(uint64_t span_ns)
{
    const timespec span = {static_cast<time_t>(span_ns / 1000000000), static_cast<long>(span_ns % 1000000000)};
    nanosleep(&span, nullptr);
}

double rate_of(double per_second, uint64_t millionths)
{
    return per_second * static_cast<double>(millionths) / static_cast<double>(kChoices);
}

}  // namespace

void Latencies::add(uint64_t span_ns)
{
    const double position = 16 * std::log2(static_cast<double>(span_ns + 1));
    buckets_[std::min(static_cast<std::size_t>(position), buckets_.size() - 1)].add(1);
}

void Latencies::join(const Latencies &other)
{
    for (std::size_t bucket = 0; bucket < buckets_.size(); bucket++)
        buckets_[bucket].add(other.buckets_[bucket].get());
}

void Latencies::take_from(const Latencies &now, const Latencies &before)
{
    for (std::size_t bucket = 0; bucket < buckets_.size(); bucket++)
        buckets_[bucket].add(now.buckets_[bucket].get() - before.buckets_[bucket].get());
}

uint64_t Latencies::quantile_ns(double part) const
{
    uint64_t all = 0;
    for (const Count &bucket : buckets_)
        all += bucket.get();
    const double wanted = part * static_cast<double>(all);
    uint64_t seen = 0;
    for (std::size_t bucket = 0; bucket < buckets_.size(); bucket++) {
        seen += buckets_[bucket].get();
        if (seen > 0 && static_cast<double>(seen) >= wanted)
            return static_cast<uint64_t>(std::exp2(static_cast<double>(bucket + 1) / 16));
    }
    return 0;
}

Worker::Worker(const Options &options, unsigned number)
    : options(options),
      per_second((options.rate > 0 ? options.rate : kRateAssumed) / options.threads),
      random(number + 1),
      read_header(random),
      split_fields(random),
      look_up_user(random),
      draw_image(random),
      make_bid(random, rate_of(per_second, kMakeBid)),
      format_line(random, rate_of(per_second, kFormatLine)),
      count_event(random, rate_of(per_second, kCountEvent)),
      queue_task(random, rate_of(per_second, kQueueTask)),
      fetch_creative(random, rate_of(per_second, kFetchCreative)),
      pack_reply(random, rate_of(per_second, kPackReply)),
      keep_session(random, rate_of(per_second, kKeepSession), options.minute),
      render_page(random, rate_of(per_second, kRenderPage)),
      resolve_host(random, rate_of(per_second, kResolveHost)),
      fill_cache(random, options.cache / options.threads),
      rank_results(random, options.kind),
      spool_audit(random, options.kind),
      keep_upload(random),
      open_ticket(random)
{
}

void Worker::fill()
{
    for (std::size_t count = 0; count < keep_session.kept; count++)
        Descent<KeepSession, 14>::enter(keep_session);
    for (std::size_t count = 0; count < pack_reply.replies.room(); count++)
        Descent<PackReply, 12>::enter(pack_reply);
    for (std::size_t count = 0; count < fetch_creative.creatives.room(); count++)
        Descent<FetchCreative, 15>::enter(fetch_creative);
}

[[gnu::noinline]] void Worker::handle(uint64_t choice)
{
    const auto is = [&choice](uint64_t part) {
        const bool chosen = choice < part;
        choice -= chosen ? 0 : part;
        return chosen;
    };
    const auto part_of = [](double part) { return static_cast<uint64_t>(part * static_cast<double>(kChoices)); };
    if (is(part_of(options.leak)))
        Descent<RankResults, 16>::enter(rank_results);
    else if (is(part_of(options.second_leak)))
        Descent<SpoolAudit, 13>::enter(spool_audit);
    else if (is(part_of(options.uploads)))
        Descent<KeepUpload, 11>::enter(keep_upload);
    else if (is(part_of(options.tickets)))
        Descent<OpenTicket, 13>::enter(open_ticket);
    else if (is(kReadHeader))
        Descent<ReadHeader, 11>::enter(read_header);
    else if (is(kLookUpUser))
        Descent<LookUpUser, 10>::enter(look_up_user);
    else if (is(kMakeBid))
        Descent<MakeBid, 17>::enter(make_bid);
    else if (is(kFormatLine))
        Descent<FormatLine, 9>::enter(format_line);
    else if (is(kCountEvent))
        Descent<CountEvent, 18>::enter(count_event);
    else if (is(kQueueTask))
        Descent<QueueTask, 19>::enter(queue_task);
    else if (is(kFetchCreative))
        Descent<FetchCreative, 15>::enter(fetch_creative);
    else if (is(kDrawImage))
        Descent<DrawImage, 8>::enter(draw_image);
    else if (is(kPackReply))
        Descent<PackReply, 12>::enter(pack_reply);
    else if (is(kResolveHost))
        Descent<ResolveHost, 20>::enter(resolve_host);
    else if (is(kKeepSession))
        Descent<KeepSession, 14>::enter(keep_session);
    else if (is(kRenderPage))
        Descent<RenderPage, 10>::enter(render_page);
    else if (is(options.cache > 0 ? kFillCache : 0))
        Descent<FillCache, 12>::enter(fill_cache);
    else
        Descent<SplitFields, 10>::enter(split_fields);
    asm volatile("" ::: "memory");
}

[[gnu::noinline]] void Worker::end_request()
{
    read_header.end_request();
    split_fields.end_request();
    look_up_user.end_request();
    draw_image.end_request();
}

[[gnu::noinline]] void Worker::handle_request()
{
    for (int allocation = 0; allocation < kAllocationsPerRequest; allocation++)
        handle(random.below(kChoices));
    end_request();
}

[[gnu::noinline]] void Worker::serve()
{
    const uint64_t begun_ns = now_ns();
    uint64_t requests = 0;
    for (;;) {
        const uint64_t from_ns = now_ns();
        handle_request();
        latencies.add(now_ns() - from_ns);
        requests++;
        if (options.rate == 0 || requests % 8 != 0)
            continue;
        const double due_ns = static_cast<double>(requests) * kAllocationsPerRequest / per_second * 1e9;
        const double passed_ns = static_cast<double>(now_ns() - begun_ns);
        if (due_ns > passed_ns + 50000)
            sleep_ns(static_cast<uint64_t>(due_ns - passed_ns));
    }
}
