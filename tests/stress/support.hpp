// What the stress tests have in common: the seed and the time they get, blocks filled with a pattern of their own, places
// where threads hand them to each other, what went wrong, what was done. Include after the standard library and delayed.hpp.
#pragma once

#include "random.hpp"

namespace rtpool::stress {

// ThreadSanitizer knows no children of programs with threads, and AddressSanitizer's allocator may be locked in them for
// good by a thread that is not there.
#if defined(RTPOOL_THREAD_SANITIZER) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool k_forks = false;
#else
inline constexpr bool k_forks = true;
#endif

inline std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Takes one of them out; there must be one.
template <class Thing>
Thing take_any(std::vector<Thing>& things, Random& random) {
  std::swap(things[random.below(things.size())], things.back());
  const Thing thing = things.back();
  things.pop_back();
  return thing;
}

using Clock = std::chrono::steady_clock;

// A block and what is written in it. The sanitizers see each access, so a block that two threads have at once, or whose
// way to its next owner orders nothing, is found even if its contents are right.
struct Filled {
  unsigned char* block = nullptr;
  std::size_t size = 0;
  std::uint64_t seed = 0;
};

inline std::uint64_t word_of(std::uint64_t seed, std::size_t at) noexcept {
  return (seed ^ at) * 0x9E3779B97F4A7C15 ^ seed >> 7;
}

inline void fill(const Filled& filled) noexcept {
  std::size_t at = 0;
  for (; at + 8 <= filled.size; at += 8) {
    const std::uint64_t word = word_of(filled.seed, at);
    std::memcpy(filled.block + at, &word, 8);
  }
  for (; at < filled.size; ++at) filled.block[at] = static_cast<unsigned char>(filled.seed);
}

// Whether the first `size` bytes are as `fill` left them; `size` at most that of the block.
inline bool intact(const Filled& filled, std::size_t size) noexcept {
  std::size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, filled.block + at, 8);
    if (word != word_of(filled.seed, at)) return false;
  }
  if (size != filled.size) return true;
  for (; at < size; ++at) {
    if (filled.block[at] != static_cast<unsigned char>(filled.seed)) return false;
  }
  return true;
}

inline bool all_zero(const unsigned char* block, std::size_t size) noexcept {
  return std::all_of(block, block + size, [](unsigned char byte) { return byte == 0; });
}

// A thread puts something here and another one takes it, without a lock: an exchange orders the two of them and nobody
// else, so that the core's own ordering is all that other threads have.
template <class Thing, std::size_t k_places>
class Exchange {
 public:
  bool put(const Thing& thing, Random& random) noexcept {
    Place& place = places_[random.below(k_places)];
    if (!place.move(k_empty, k_moving)) return false;
    place.thing = thing;
    place.state.store(k_full, std::memory_order_release);
    return true;
  }
  bool take(Thing* thing, Random& random) noexcept { return take_at(places_[random.below(k_places)], thing); }
  // Everything there; once the threads have ended.
  template <class Function>
  void empty(Function&& function) {
    Thing thing;
    for (Place& place : places_) {
      if (take_at(place, &thing)) function(thing);
    }
  }

 private:
  enum : std::uint32_t { k_empty, k_moving, k_full };
  struct Place {
    std::atomic<std::uint32_t> state{k_empty};
    Thing thing{};

    bool move(std::uint32_t from, std::uint32_t to) noexcept {
      return state.compare_exchange_strong(from, to, std::memory_order_acquire, std::memory_order_relaxed);
    }
  };
  static bool take_at(Place& place, Thing* thing) noexcept {
    if (!place.move(k_full, k_moving)) return false;
    *thing = place.thing;
    place.state.store(k_empty, std::memory_order_release);
    return true;
  }

  Place places_[k_places];
};

// What was done. Each thread counts for itself and adds it up when it ends.
struct Counts {
  std::uint64_t operations = 0;
  std::uint64_t refusals = 0;    // requests answered with nullptr
  std::uint64_t handed_over = 0;  // blocks that another thread than their maker resized or freed
  std::uint64_t threads = 0;     // that ended
  std::uint64_t checks = 0;
  std::uint64_t forks = 0;
  std::uint64_t pools = 0;

  void add(const Counts& other) noexcept {
    operations += other.operations;
    refusals += other.refusals;
    handed_over += other.handed_over;
    threads += other.threads;
    checks += other.checks;
    forks += other.forks;
    pools += other.pools;
  }
};

// What one test does: rounds until its time is over, its counts, the first thing that went wrong.
class Course {
 public:
  explicit Course(const char* name)
      : name_(name), seed_(number_from("RTPOOL_STRESS_SEED", 1)), ends_(Clock::now() + std::chrono::seconds(seconds())) {}

  static std::uint64_t seconds() { return number_from("RTPOOL_STRESS_SECONDS", 3); }
  // A new seed for each round; the first is the one that was given.
  bool next_round(std::uint64_t* seed) {
    if (failed() || (rounds_ != 0 && Clock::now() >= ends_)) return false;
    *seed = seed_ + 1'000'003 * rounds_++;
    return true;
  }
  bool failed() const noexcept { return failures_.load(std::memory_order_relaxed) != 0; }
  void fail(const std::string& what) {
    const std::scoped_lock guard(mutex_);
    if (failures_.fetch_add(1, std::memory_order_relaxed) == 0) first_ = what;
  }
  void expect(bool holds, const char* what) {
    if (!holds) fail(what);
  }
  void add(const Counts& counts) {
    const std::scoped_lock guard(mutex_);
    counts_.add(counts);
  }
  // The line for people, and one for long_run.py.
  void finish(std::uint64_t round_seed) {
    EXPECT_EQ(failures_.load(), 0) << first_ << " in the round with RTPOOL_STRESS_SEED=" << round_seed;
    char text[512];
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    std::snprintf(text, sizeof text,
                  "seeds=1 rounds=%llu operations=%llu delays=%llu handed_over=%llu refusals=%llu threads_ended=%llu "
                  "checks=%llu forks=%llu pools=%llu",
                  number(rounds_), number(counts_.operations), number(delays() - delays_before_),
                  number(counts_.handed_over), number(counts_.refusals), number(counts_.threads), number(counts_.checks), number(counts_.forks),
                  number(counts_.pools));
    std::printf("[   STRESS ] %s: seed %llu, %s\n", name_, number(seed_), text);
    std::fflush(stdout);
    if (const char* const path = std::getenv("RTPOOL_STRESS_COUNTS")) {
      if (std::FILE* const file = std::fopen(path, "a")) {
        std::fprintf(file, "%s %s\n", name_, text);
        std::fclose(file);
      }
    }
  }

 private:
  const char* const name_;
  const std::uint64_t seed_;
  const Clock::time_point ends_;
  const std::uint64_t delays_before_ = delays();
  std::uint64_t rounds_ = 0;
  std::mutex mutex_;
  std::atomic<int> failures_{0};
  std::string first_;
  Counts counts_;
};

}  // namespace rtpool::stress
