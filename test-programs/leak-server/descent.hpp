// The way down to an allocation: layers as frameworks have them, every fifth through a std::function.
#pragma once

#include <functional>

template <class Site, int Depth>
struct Descent {
    [[gnu::noinline]] static void enter(Site &site)
    {
        if constexpr (Depth == 0) {
            site.allocate();
        } else if constexpr (Depth % 5 == 2) {
            const std::function<void()> deeper = [&site] { Descent<Site, Depth - 1>::enter(site); };
            deeper();
        } else {
            Descent<Site, Depth - 1>::enter(site);
        }
        // Else the call above could become a jump, and this frame would be missing.
        asm volatile("" ::: "memory");
    }
};
