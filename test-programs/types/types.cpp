// Objects of known classes in known numbers. Says for each kind: its name in the source, how many are live, the usable
// bytes and the address of the first. Ends when its input does.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <list>
#include <malloc.h>
#include <memory>
#include <string>
#include <vector>

namespace ads {

struct Campaign {
    virtual ~Campaign() = default;
    virtual double price() const { return price_; }
    double price_ = 1.5;
    uint64_t words_[9] = {};
};

template <class Value>
struct Holder {
    virtual ~Holder() = default;
    virtual const Value &value() const { return value_; }
    Value value_{};
};

struct Named {
    virtual ~Named() = default;
    virtual const char *name() const { return "named"; }
    uint64_t first_ = 1;
};

struct Priced {
    virtual ~Priced() = default;
    virtual double cost() const { return 2; }
    uint64_t second_ = 2;
};

struct Offer : Named, Priced {
    const char *name() const override { return "offer"; }
    double cost() const override { return 3; }
    uint64_t third_[13] = {};
};

struct Root {
    virtual ~Root() = default;
    virtual int depth() const { return 0; }
    uint64_t fourth_ = 4;
};

struct Branch : virtual Root {
    int depth() const override { return 1; }
    uint64_t fifth_[20] = {};
};

struct Payload {
    uint64_t words_[30] = {};
};

struct Result {
    virtual ~Result() = default;
    virtual int rank() const { return 1; }
    uint64_t words_[35] = {};
};

} // namespace ads

namespace {

struct Hidden {
    virtual ~Hidden() = default;
    virtual int secret() const { return 7; }
    uint64_t words_[41] = {};
};

void say(const char *name, std::size_t count, void *first, std::size_t distance = 0)
{
    auto *block = static_cast<char *>(first) - distance;
    std::printf("type %zu %zu %p %s\n", count, malloc_usable_size(block), static_cast<void *>(block), name);
}

template <class Object>
std::vector<std::unique_ptr<Object>> make(std::size_t count)
{
    std::vector<std::unique_ptr<Object>> all;
    all.reserve(count);
    for (std::size_t index = 0; index < count; ++index) {
        all.push_back(std::make_unique<Object>());
    }
    return all;
}

} // namespace

static ads::Campaign *volatile chosen;

int main()
{
    auto campaigns = make<ads::Campaign>(500);
    say("ads::Campaign", campaigns.size(), campaigns[0].get());
    auto holders = make<ads::Holder<std::string>>(250);
    say("ads::Holder<std::string>", holders.size(), holders[0].get());
    auto hidden = make<Hidden>(125);
    say("(anonymous namespace)::Hidden", hidden.size(), hidden[0].get());
    auto offers = make<ads::Offer>(100);
    say("ads::Offer", offers.size(), offers[0].get());
    auto branches = make<ads::Branch>(50);
    say("ads::Branch", branches.size(), branches[0].get());

    std::vector<std::shared_ptr<ads::Payload>> shared;
    for (int index = 0; index < 500; ++index) {
        shared.push_back(std::make_shared<ads::Payload>());
    }
    // The counts stand before the object: a vtable and two numbers of 32 bits.
    say("std::_Sp_counted_ptr_inplace<ads::Payload", shared.size(), shared[0].get(), 16);

    std::list<ads::Result> results(75);
    // The links stand before the object.
    say("ads::Result at +16", results.size(), &results.front(), 16);

    std::vector<char *> texts;
    for (int index = 0; index < 300; ++index) {
        auto *text = static_cast<char *>(std::calloc(1, 600));
        std::snprintf(text, 600, "GET /index.html?page=%d HTTP/1.1", index);
        texts.push_back(text);
    }
    say("text", texts.size(), texts[0]);

    chosen = campaigns[0].get();
    std::puts("ready");
    std::fflush(stdout);
    while (std::getchar() != EOF) {
    }
    return 0;
}
