// The paths that allocate. Each belongs to one thread, keeps what it allocates as long as it is to live, and counts it.
#pragma once

#include "random.hpp"
#include "ring.hpp"
#include "tally.hpp"

#include <array>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

enum class Kind { polymorphic, plain, bytes, strings };

// What all paths need.
struct Site {
    explicit Site(Random &random) : random(random) {}
    Tally tally;
    Random &random;
};

std::string text_of(Random &random, std::size_t length);
void fill_with_data(char *bytes, std::size_t length, Random &random);

// Ends with the request.
struct ReadHeader : Site {
    using Site::Site;
    [[gnu::noinline]] void allocate();
    void end_request();
    std::array<std::string, 64> headers;
    std::size_t count = 0;
};

struct SplitFields : Site {
    using Site::Site;
    [[gnu::noinline]] void allocate();
    void end_request();
    std::array<std::vector<uint64_t>, 64> fields;
    std::size_t count = 0;
};

struct UserRecord {
    uint64_t visits;
    double score;
    char country[100];
};

struct LookUpUser : Site {
    using Site::Site;
    [[gnu::noinline]] void allocate();
    void end_request();
    std::map<uint64_t, UserRecord> users;
};

struct DrawImage : Site {
    using Site::Site;
    [[gnu::noinline]] void allocate();
    void end_request();
    std::array<std::vector<char>, 64> images;
    std::size_t count = 0;
};

// Live longer.
struct Bid {
    explicit Bid(Random &random);
    virtual ~Bid() = default;
    virtual double price() const { return price_; }
    uint64_t campaign_;
    double price_;
    char slot_[180];
};

struct MakeBid : Site {
    MakeBid(Random &random, double per_second) : Site(random), bids(Ring<std::unique_ptr<Bid>>(per_second * 0.002 + 1)) {}
    [[gnu::noinline]] void allocate();
    Ring<std::unique_ptr<Bid>> bids;
};

struct FormatLine : Site {
    FormatLine(Random &random, double per_second) : Site(random), lines(Ring<std::string>(per_second * 0.0002 + 1)) {}
    [[gnu::noinline]] void allocate();
    Ring<std::string> lines;
};

struct CountEvent : Site {
    CountEvent(Random &random, double per_second) : Site(random), kept(per_second * 0.02 + 1) {}
    [[gnu::noinline]] void allocate();
    std::size_t kept;
    std::set<uint64_t> events;
    uint64_t next = 0;
};

struct QueueTask : Site {
    QueueTask(Random &random, double per_second) : Site(random), tasks(per_second * 0.0002 + 1) {}
    [[gnu::noinline]] void allocate();
    Ring<std::function<uint64_t()>> tasks;
};

struct Creative {
    uint64_t id;
    double weight;
    char markup[280];
};

struct FetchCreative : Site {
    FetchCreative(Random &random, double per_second) : Site(random), creatives(per_second * 0.2 + 1) {}
    [[gnu::noinline]] void allocate();
    Ring<std::shared_ptr<Creative>> creatives;
};

struct PackReply : Site {
    PackReply(Random &random, double per_second) : Site(random), replies(per_second * 2 + 1) {}
    [[gnu::noinline]] void allocate();
    Ring<std::unique_ptr<char[]>> replies;
};

struct Session {
    uint64_t started;
    uint32_t pages;
    uint32_t flags;
    char agent[72];
};

struct KeepSession : Site {
    KeepSession(Random &random, double per_second, double seconds);
    [[gnu::noinline]] void allocate();
    std::size_t kept;
    std::unordered_map<uint64_t, Session> sessions;
    uint64_t next = 0;
};

struct RenderPage : Site {
    RenderPage(Random &random, double per_second) : Site(random), pages(per_second * 0.001 + 1) {}
    [[gnu::noinline]] void allocate();
    Ring<std::vector<char>> pages;
};

struct ResolveHost : Site {
    ResolveHost(Random &random, double per_second) : Site(random), hosts(per_second * 0.02 + 1) {}
    [[gnu::noinline]] void allocate();
    Ring<std::list<std::array<uint64_t, 10>>> hosts;
};

// Fills up to its bound and stops.
struct FillCache : Site {
    FillCache(Random &random, std::size_t bound) : Site(random), bound(bound) {}
    [[gnu::noinline]] void allocate();
    std::size_t bound;
    std::list<Session> cache;
};

// A large buffer that is kept for ever.
struct KeepUpload : Site {
    explicit KeepUpload(Random &random) : Site(random) {}
    [[gnu::noinline]] void allocate();
    std::vector<std::unique_ptr<char[]>> uploads;
};

// Kept for ever, of a size class that nothing else uses: no thread ever has one in its cache.
struct OpenTicket : Site {
    explicit OpenTicket(Random &random) : Site(random) {}
    [[gnu::noinline]] void allocate();
    struct Ticket {
        uint64_t number;
        Ticket *before;
        char text[752];
    };
    Ticket *last = nullptr;
};

// What leaks.
struct PolymorphicResult {
    explicit PolymorphicResult(Random &random);
    virtual ~PolymorphicResult() = default;
    virtual double rank() const { return rank_; }
    uint64_t advertisement_;
    double rank_;
    char title_[60];
};

struct PlainResult {
    uint64_t advertisement;
    double rank;
    char title[68];
};

// The list of top results that is not emptied as believed.
template <class Self>
struct Hoard : Site {
    Hoard(Random &random, Kind kind);
    void keep();
    Kind kind;
    std::list<PolymorphicResult> polymorphic;
    std::list<PlainResult> plain;
    std::vector<std::unique_ptr<char[]>> bytes;
    std::vector<std::string> strings;
};

struct RankResults : Hoard<RankResults> {
    using Hoard::Hoard;
    [[gnu::noinline]] void allocate();
};

struct SpoolAudit : Hoard<SpoolAudit> {
    using Hoard::Hoard;
    [[gnu::noinline]] void allocate();
};
