// Runs a few threads of real code in every order of their accesses to atomics, up to a number of preemptions.
//
// The code under test is compiled with `scheduled.hpp` in front of it (forced include): its std::atomic, its locks and
// its sleeps become points at which another thread may go on. Threads are coroutines of one real thread. A scenario is
// run from its beginning again and again; at each point at which more than one thread can go on the explorer remembers
// which it let go, and the next run takes the next choice of the last such point (depth first). With `preemptions` below
// the number of points the search covers every schedule in which at most so many threads are interrupted where they
// could have gone on; switches at waiting (a taken lock, a sleep) and at the end of a thread cost nothing.
//
// What it cannot see: orders that only a machine with weak memory shows. With `store_buffers` set, plain stores (all but
// sequentially consistent ones) reach the others late, in order, at points of the explorer's choice, as on x86; reorderings
// beyond that (Arm) are not modelled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace rtpool::schedules {

struct Limits {
  unsigned preemptions = ~0U;
  bool store_buffers = false;
  std::uint64_t most_schedules = 3'000'000;  // a test that reaches this is not exhaustive and says so
};

struct Outcome {
  std::uint64_t schedules = 0;
  std::uint64_t points = 0;      // choices between two threads and more, over all schedules
  unsigned longest = 0;          // accesses in the longest schedule
  bool exhausted = false;        // every schedule within the limits was run
  std::string broken;            // the first promise that did not hold, empty if all did
  std::vector<unsigned char> schedule;  // and in which order the threads went on then
};

// One run: `begin` makes the state, each of `threads` runs as one thread, `end` looks at what came of it.
struct Scenario {
  std::function<void()> begin;
  std::vector<std::function<void()>> threads;
  std::function<void()> end;
  std::function<void()> clean_up = [] {};        // after every run, also a broken one
  std::function<void(unsigned from, unsigned to)> switched = [](unsigned, unsigned) {};  // k_outside: no thread
};
inline constexpr unsigned k_outside = ~0U;

Outcome explore(const Scenario& scenario, const Limits& limits);

// Called by scenarios: a promise does not hold. Ends the run when called by a thread of it.
void expect(bool holds, const char* promise);

}  // namespace rtpool::schedules
