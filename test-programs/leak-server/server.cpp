// See README.md.
#include "worker.hpp"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

[[noreturn]] void refuse(const std::string &reason)
{
    std::cerr << "leak-server: " << reason << '\n';
    std::exit(2);
}

Kind kind_of(const std::string &word)
{
    static const std::map<std::string, Kind> kinds = {{"polymorphic", Kind::polymorphic},
                                                      {"struct", Kind::plain},
                                                      {"bytes", Kind::bytes},
                                                      {"strings", Kind::strings}};
    const auto kind = kinds.find(word);
    if (kind == kinds.end())
        refuse("no such kind: " + word);
    return kind->second;
}

Options options_of(int argc, char **argv)
{
    Options options;
    for (int index = 1; index < argc; index += 2) {
        const std::string name = argv[index];
        if (index + 1 == argc)
            refuse(name + " lacks a value");
        const std::string value = argv[index + 1];
        if (name == "--threads")
            options.threads = static_cast<unsigned>(std::stoul(value));
        else if (name == "--rate")
            options.rate = std::stod(value);
        else if (name == "--leak")
            options.leak = std::stod(value);
        else if (name == "--second-leak")
            options.second_leak = std::stod(value);
        else if (name == "--uploads")
            options.uploads = std::stod(value);
        else if (name == "--tickets")
            options.tickets = std::stod(value);
        else if (name == "--kind")
            options.kind = kind_of(value);
        else if (name == "--cache")
            options.cache = std::stoul(value);
        else if (name == "--minute")
            options.minute = std::stod(value);
        else
            refuse("no such option: " + name);
    }
    if (options.threads == 0)
        refuse("it needs a thread");
    return options;
}

class Server {
public:
    explicit Server(const Options &options) : options_(options)
    {
        for (unsigned number = 0; number < options_.threads; number++)
            workers_.push_back(nullptr);
        std::atomic<unsigned> filled{0};
        for (unsigned number = 0; number < options_.threads; number++) {
            std::thread([this, number, &filled] {
                workers_[number] = std::make_unique<Worker>(options_, number);
                workers_[number]->fill();
                Worker &worker = *workers_[number];
                filled++;
                worker.serve();
            }).detach();
        }
        while (filled != options_.threads)
            std::this_thread::yield();
        last_ = std::make_unique<Latencies>();
        begin_pace();
    }

    void obey()
    {
        std::cout << "ready pid=" << getpid() << " threads=" << options_.threads << std::endl;
        for (std::string command; std::getline(std::cin, command);) {
            if (command == "truth")
                tell_truth();
            else if (command == "pace")
                tell_pace();
            else if (command == "exit")
                return;
            else
                std::cout << "error no such command" << std::endl;
        }
    }

private:
    struct Sum {
        uint64_t born = 0;
        uint64_t died = 0;
        bool leaks = false;
    };

    std::map<std::string, Sum> sums()
    {
        std::map<std::string, Sum> sums;
        for (const auto &worker : workers_) {
            worker->each_site([&sums](const char *name, const Tally &tally, bool leaks) {
                Sum &sum = sums[name];
                // Deaths first: a block that dies in between must not count as one that never was born.
                sum.died += tally.died.get();
                sum.born += tally.born.get();
                sum.leaks = leaks;
            });
        }
        return sums;
    }

    void tell_truth()
    {
        for (const auto &[name, sum] : sums()) {
            std::cout << "site name=" << name << " function=" << name << "::allocate allocations=" << sum.born
                      << " live=" << sum.born - sum.died << " leaks=" << sum.leaks << '\n';
        }
        std::cout << "end" << std::endl;
    }

    uint64_t allocations()
    {
        uint64_t all = 0;
        for (const auto &[name, sum] : sums())
            all += sum.born;
        return all;
    }

    std::unique_ptr<Latencies> latencies()
    {
        auto all = std::make_unique<Latencies>();
        for (const auto &worker : workers_)
            all->join(worker->latencies);
        return all;
    }

    void begin_pace()
    {
        since_ = std::chrono::steady_clock::now();
        before_ = allocations();
        last_ = latencies();
    }

    void tell_pace()
    {
        const std::chrono::duration<double> span = std::chrono::steady_clock::now() - since_;
        const auto now = latencies();
        Latencies since;
        since.take_from(*now, *last_);
        std::cout << "pace allocations=" << allocations() - before_ << " seconds=" << span.count()
                  << " p50_ns=" << since.quantile_ns(0.5) << " p99_ns=" << since.quantile_ns(0.99)
                  << " max_ns=" << since.quantile_ns(1) << std::endl;
        begin_pace();
    }

    Options options_;
    std::vector<std::unique_ptr<Worker>> workers_;
    std::unique_ptr<Latencies> last_;
    std::chrono::steady_clock::time_point since_;
    uint64_t before_ = 0;
};

}  // namespace

int main(int argc, char **argv)
{
    Server server(options_of(argc, argv));
    server.obey();
    // The workers still run: nothing may be torn down under them.
    std::_Exit(0);
}
