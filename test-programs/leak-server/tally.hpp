// What one thread has allocated on one path. One thread writes, others read.
#pragma once

#include <atomic>
#include <cstdint>

class Count {
public:
    void add(uint64_t more) { value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed); }
    uint64_t get() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<uint64_t> value_{0};
};

struct Tally {
    Count born;
    Count died;
};
