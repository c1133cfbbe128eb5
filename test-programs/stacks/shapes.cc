// One thread at rest in each shape of stack that C++ compilers make.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rest.h"
#include <alloca.h>
#include <algorithm>
#include <csignal>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace shapes {

volatile int sink;

template <int Depth> struct Nested {
    template <typename Call> static __attribute__((noinline)) int run(const Call &call) {
        int below = Nested<Depth - 1>::run([&call](int value) { return call(value + 1); });
        sink = below;
        return below + Depth;
    }
};
template <> struct Nested<0> {
    template <typename Call> static __attribute__((noinline)) int run(const Call &call) { return call(0) + 1; }
};

__attribute__((noinline)) int templates() {
    return Nested<8>::run([](int value) { return value + rest(); });
}

__attribute__((noinline)) int functions(const std::vector<std::function<int(int)>> &calls, size_t at) {
    return (at < calls.size() ? calls[at](1) : rest()) + 1;
}

__attribute__((noinline)) int callbacks() {
    std::vector<std::function<int(int)>> calls;
    for (size_t i = 0; i < 6; i++) calls.push_back([&calls, i](int x) { return functions(calls, i + 1) + x; });
    return functions(calls, 0);
}

static inline __attribute__((always_inline)) int inlined(int value) { return rest() + value; }
static inline __attribute__((always_inline)) int inlined_twice(int value) { return inlined(value) * 3; }
__attribute__((noinline)) int inlining() { return inlined_twice(sink) + 1; }

__attribute__((noinline)) int recursion(int depth, std::string text) {
    if (depth == 0) return rest();
    int below = recursion(depth - 1, text + "x");
    sink = below;
    return below + int(text.size());
}

__attribute__((noinline)) int tail_end(int value) { return rest() + value; }
__attribute__((noinline)) int tail_middle(int value) { return tail_end(value + 1); }
__attribute__((noinline)) int tail_calls() { return tail_middle(sink) + 1; }

__attribute__((noinline)) int dynamic(size_t count) {
    alignas(64) volatile char aligned[128];
    volatile char *room = static_cast<char *>(alloca(count));
    aligned[0] = room[count - 1] = 1;
    return rest() + aligned[0] + room[count - 1];
}
__attribute__((noinline)) int alignment() {
    alignas(128) volatile int wide[32];
    wide[3] = dynamic(size_t(sink) + 777);
    return wide[3] + 1;
}

__attribute__((noinline)) void throwing(int value) {
    if (value >= 0) throw std::runtime_error("a value");
}
__attribute__((noinline)) int caught() {
    try {
        throwing(sink);
    } catch (const std::exception &error) {
        return rest() + int(std::string(error.what()).size());
    }
    return 0;
}

struct Guard {
    ~Guard() { sink += rest(); }
};
__attribute__((noinline)) int destructor_while_unwinding() {
    try {
        Guard guard;
        throwing(sink);
    } catch (const std::exception &) {
        return 1;
    }
    return 0;
}

void on_signal(int number) { sink += number + recursion(3, "signal"); }
__attribute__((noinline)) int interrupted(int number) {
    raise(number);
    return sink + 1;
}
__attribute__((noinline)) int interrupted_on_other_stack(int number) {
    stack_t stack = {};
    stack.ss_size = 256 << 10;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
    raise(number);
    return sink + 1;
}

// Traps in the middle of a function, between any two instructions that the compiler chose.
__attribute__((noinline)) int trapped(int value) {
    volatile int room[16];
    room[value & 15] = value;
    __builtin_trap();
    return room[3];
}

struct Base {
    virtual ~Base() = default;
    virtual int call(int value) = 0;
};
struct First : virtual Base {
    int call(int value) override { return value ? rest() : 0; }
};
struct Second : virtual Base {
    int padding = 3;
};
struct Both : First, Second {
    int call(int value) override { return First::call(value) + padding; }
};
__attribute__((noinline)) int thunks(Base &base) { return base.call(1) + 1; }

__attribute__((noinline)) int sorting() {
    std::vector<int> numbers(100);
    std::sort(numbers.begin(), numbers.end(), [](int left, int right) { return rest() + left < right; });
    return numbers[0];
}

const std::map<std::string, std::function<int()>> all = {
    {"templates", templates},
    {"callbacks", callbacks},
    {"inlining", inlining},
    {"recursion", [] { return recursion(2000, ""); }},
    {"tail_calls", tail_calls},
    {"alignment", alignment},
    {"caught", caught},
    {"unwinding", destructor_while_unwinding},
    {"signal", [] { return interrupted(SIGUSR1); }},
    {"altstack", [] { return interrupted_on_other_stack(SIGUSR2); }},
    {"trap", [] { return trapped(7); }},
    {"thunks", [] { Both both; return thunks(both); }},
    {"sorting", sorting},
};

} // namespace shapes

int main() {
    using namespace shapes;
    if (pipe(rest_pipe)) return 1;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    sigaction(SIGUSR1, &action, nullptr);
    sigaction(SIGILL, &action, nullptr);
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR2, &action, nullptr);
    std::vector<std::thread> threads;
    for (const auto &[name, shape] : all) {
        threads.emplace_back([&shape] { sink += shape(); });
        pthread_setname_np(threads.back().native_handle(), name.c_str());
    }
    await_rest(int(all.size()));
    announce();
    for (auto &thread : threads) thread.join();
}
