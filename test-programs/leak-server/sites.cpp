#include "sites.hpp"

#include <cstring>

namespace {

// Blocks of these payloads are of the size class of 112 bytes with jemalloc.
constexpr std::size_t kText = 104;
constexpr std::size_t kBuffer = 104;

constexpr std::size_t kHoardReserve = 1 << 22;

}  // namespace

std::string text_of(Random &random, std::size_t length)
{
    static const char *const words[] = {"query ", "banner ", "click ", "agent=", "/index.html ", "utm_source=", "de ", "page "};
    std::string text;
    text.reserve(length);
    while (text.size() + 20 < length) {
        text += words[random.below(8)];
        char number[8];
        uint64_t value = random.below(100000);
        std::size_t digits = 0;
        do {
            number[digits++] = static_cast<char>('0' + value % 10);
            value /= 10;
        } while (value != 0);
        text.append(number, digits);
    }
    return text;
}

void fill_with_data(char *bytes, std::size_t length, Random &random)
{
    for (std::size_t at = 0; at + 8 <= length; at += 8) {
        const uint64_t value = random.next();
        std::memcpy(bytes + at, &value, sizeof value);
    }
}

void ReadHeader::allocate()
{
    if (count == headers.size())
        end_request();
    headers[count++] = text_of(random, 2 * kText);
    tally.born.add(1);
}

void ReadHeader::end_request()
{
    for (std::size_t index = 0; index < count; index++)
        std::string().swap(headers[index]);
    tally.died.add(count);
    count = 0;
}

void SplitFields::allocate()
{
    if (count == fields.size())
        end_request();
    fields[count++].assign(8 + random.below(56), random.next());
    tally.born.add(1);
}

void SplitFields::end_request()
{
    for (std::size_t index = 0; index < count; index++)
        std::vector<uint64_t>().swap(fields[index]);
    tally.died.add(count);
    count = 0;
}

void LookUpUser::allocate()
{
    UserRecord record = {random.below(1000), 0.5, {}};
    std::memcpy(record.country, "Liechtenstein", 14);
    if (users.emplace(random.next(), record).second)
        tally.born.add(1);
}

void LookUpUser::end_request()
{
    tally.died.add(users.size());
    users.clear();
}

void DrawImage::allocate()
{
    if (count == images.size())
        end_request();
    images[count++].assign(1024 + random.below(7000), 'x');
    tally.born.add(1);
}

void DrawImage::end_request()
{
    for (std::size_t index = 0; index < count; index++)
        std::vector<char>().swap(images[index]);
    tally.died.add(count);
    count = 0;
}

Bid::Bid(Random &random) : campaign_(random.next()), price_(static_cast<double>(random.below(1000)))
{
    std::memset(slot_, 's', sizeof slot_);
}

void MakeBid::allocate()
{
    bids.put(std::make_unique<Bid>(random), tally);
    tally.born.add(1);
}

void FormatLine::allocate()
{
    lines.put(text_of(random, kText), tally);
    tally.born.add(1);
}

void CountEvent::allocate()
{
    events.insert(next++);
    tally.born.add(1);
    if (events.size() > kept) {
        events.erase(events.begin());
        tally.died.add(1);
    }
}

void QueueTask::allocate()
{
    std::array<uint64_t, 9> captured = {random.next()};
    tasks.put([captured] { return captured[0]; }, tally);
    tally.born.add(1);
}

void FetchCreative::allocate()
{
    auto creative = std::make_shared<Creative>();
    creative->id = random.next();
    creative->weight = 1.5;
    std::memcpy(creative->markup, "<div class=creative>", 20);
    creatives.put(std::move(creative), tally);
    tally.born.add(1);
}

void PackReply::allocate()
{
    std::unique_ptr<char[]> reply(new char[kBuffer]);
    fill_with_data(reply.get(), kBuffer, random);
    replies.put(std::move(reply), tally);
    tally.born.add(1);
}

KeepSession::KeepSession(Random &random, double per_second, double seconds)
    : Site(random), kept(static_cast<std::size_t>(per_second * seconds) + 1)
{
    sessions.reserve(kept + 2);
}

void KeepSession::allocate()
{
    Session session = {random.next(), 1, 0, {}};
    std::memcpy(session.agent, "Mozilla/5.0 (X11; Linux)", 24);
    sessions.emplace(next++, session);
    tally.born.add(1);
    if (next > kept) {
        sessions.erase(next - 1 - kept);
        tally.died.add(1);
    }
}

void RenderPage::allocate()
{
    pages.put(std::vector<char>(20480 + random.below(77824)), tally);
    tally.born.add(1);
}

void ResolveHost::allocate()
{
    hosts.put(std::list<std::array<uint64_t, 10>>(1, {random.next()}), tally);
    tally.born.add(1);
}

void FillCache::allocate()
{
    if (cache.size() >= bound)
        return;
    cache.push_back(Session{random.next(), 7, 0, {}});
    tally.born.add(1);
}

void KeepUpload::allocate()
{
    constexpr std::size_t kUpload = 200 * 1024;
    uploads.emplace_back(new char[kUpload]);
    std::memset(uploads.back().get(), 'u', kUpload);
    tally.born.add(1);
}

void OpenTicket::allocate()
{
    last = new Ticket{random.next(), last, {}};
    std::memcpy(last->text, "a customer has a question", 25);
    tally.born.add(1);
}

PolymorphicResult::PolymorphicResult(Random &random)
    : advertisement_(random.next()), rank_(static_cast<double>(random.below(1000)))
{
    std::memcpy(title_, "a title of a result", 20);
}

template <class Self>
Hoard<Self>::Hoard(Random &random, Kind kind) : Site(random), kind(kind)
{
    // The vectors themselves must not grow.
    if (kind == Kind::bytes)
        bytes.reserve(kHoardReserve);
    if (kind == Kind::strings)
        strings.reserve(kHoardReserve);
}

template <class Self>
void Hoard<Self>::keep()
{
    switch (kind) {
    case Kind::polymorphic:
        polymorphic.emplace_back(random);
        break;
    case Kind::plain: {
        PlainResult result = {random.next(), static_cast<double>(random.below(1000)), {}};
        std::memcpy(result.title, "a title of a result", 20);
        plain.push_back(result);
        break;
    }
    case Kind::bytes:
        bytes.emplace_back(new char[kBuffer]);
        fill_with_data(bytes.back().get(), kBuffer, random);
        break;
    case Kind::strings:
        strings.push_back(text_of(random, kText));
        break;
    }
    tally.born.add(1);
}

void RankResults::allocate()
{
    keep();
    asm volatile("" ::: "memory");
}

void SpoolAudit::allocate()
{
    keep();
    asm volatile("" ::: "memory");
}

template struct Hoard<RankResults>;
template struct Hoard<SpoolAudit>;
