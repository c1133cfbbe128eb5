// Things that live until so many more have come.
#pragma once

#include "tally.hpp"

#include <cstddef>
#include <utility>
#include <vector>

template <class Thing>
class Ring {
public:
    explicit Ring(std::size_t room) : things_(room) {}

    std::size_t room() const { return things_.size(); }

    // Takes the place of the oldest; the tally hears of `blocks` that die with it.
    void put(Thing thing, Tally &tally, uint64_t blocks = 1)
    {
        Thing &place = things_[next_];
        if (full_)
            tally.died.add(blocks);
        place = std::move(thing);
        if (++next_ == things_.size()) {
            next_ = 0;
            full_ = true;
        }
    }

private:
    std::vector<Thing> things_;
    std::size_t next_ = 0;
    bool full_ = false;
};
