// A thread that makes up requests and answers them.
#pragma once

#include "sites.hpp"

#include <array>
#include <atomic>
#include <cstdio>

struct Options {
    unsigned threads = 2;
    double rate = 200000;
    double leak = 0.001;
    double second_leak = 0;
    double uploads = 0;
    double tickets = 0;
    double minute = 60;
    std::size_t cache = 0;
    Kind kind = Kind::plain;
};

// Requests by their latency: 16 buckets to each doubling.
class Latencies {
public:
    void add(uint64_t span_ns);
    void take_from(const Latencies &now, const Latencies &before);
    uint64_t quantile_ns(double part) const;
    void join(const Latencies &other);

private:
    std::array<Count, 64 * 16> buckets_;
};

class Worker {
public:
    Worker(const Options &options, unsigned number);

    // Brings everything that lives long to its full number.
    void fill();
    // Answers requests for ever.
    void serve();
    template <class Visitor>
    void each_site(Visitor visit)
    {
        visit("ReadHeader", read_header.tally, false);
        visit("SplitFields", split_fields.tally, false);
        visit("LookUpUser", look_up_user.tally, false);
        visit("DrawImage", draw_image.tally, false);
        visit("MakeBid", make_bid.tally, false);
        visit("FormatLine", format_line.tally, false);
        visit("CountEvent", count_event.tally, false);
        visit("QueueTask", queue_task.tally, false);
        visit("FetchCreative", fetch_creative.tally, false);
        visit("PackReply", pack_reply.tally, false);
        visit("KeepSession", keep_session.tally, false);
        visit("RenderPage", render_page.tally, false);
        visit("ResolveHost", resolve_host.tally, false);
        visit("FillCache", fill_cache.tally, false);
        visit("RankResults", rank_results.tally, true);
        visit("SpoolAudit", spool_audit.tally, true);
        visit("KeepUpload", keep_upload.tally, true);
        visit("OpenTicket", open_ticket.tally, true);
    }

    Latencies latencies;

private:
    void handle_request();
    void handle(uint64_t choice);
    void end_request();

    const Options &options;
    double per_second;
    Random random;
    ReadHeader read_header;
    SplitFields split_fields;
    LookUpUser look_up_user;
    DrawImage draw_image;
    MakeBid make_bid;
    FormatLine format_line;
    CountEvent count_event;
    QueueTask queue_task;
    FetchCreative fetch_creative;
    PackReply pack_reply;
    KeepSession keep_session;
    RenderPage render_page;
    ResolveHost resolve_host;
    FillCache fill_cache;
    RankResults rank_results;
    SpoolAudit spool_audit;
    KeepUpload keep_upload;
    OpenTicket open_ticket;
};
