// A small generator of random numbers (xorshift64*).
#pragma once

#include <cstdint>

class Random {
public:
    explicit Random(uint64_t seed) : bits_(seed * UINT64_C(0x9e3779b97f4a7c15) | 1) {}

    uint64_t next()
    {
        bits_ ^= bits_ >> 12;
        bits_ ^= bits_ << 25;
        bits_ ^= bits_ >> 27;
        return bits_ * UINT64_C(2685821657736338717);
    }

    uint64_t below(uint64_t bound) { return (next() >> 16) % bound; }

private:
    uint64_t bits_;
};
