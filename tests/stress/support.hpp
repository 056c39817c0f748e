// What the stress tests have in common: the seed and the time they get, blocks filled with a pattern of their own, places
// where threads hand them to each other, what they all do, what went wrong, what was done. Include after the standard library and delayed.hpp.
#pragma once

#include "base/sanitizers.hpp"
#include "random.hpp"

namespace rtpool::stress {

// ThreadSanitizer knows no children of programs with threads, and AddressSanitizer's allocator may be locked in them for
// good by a thread that is not there.
#if defined(RTPOOL_THREAD_SANITIZER) || defined(RTPOOL_ADDRESS_SANITIZER)
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
  // Rounds of `play(course, seed)` until the time is over, and what they came to.
  template <class Play>
  static void run(const char* name, Play&& play) {
    Course course(name);
    std::uint64_t seed = 0;
    while (course.next_round(&seed)) play(course, seed);
    course.finish(seed);
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

// --- what threads of every test do --------------------------------------------------------------------------------------
// A Round has a `course`, a `pool` and `over`; the pool may be private or shared.

template <class Pool>
void expect_whole(Course& course, Pool& pool, const char* when) {
  const auto result = pool.check();
  if (!result.ok) course.fail(std::string("check") + when + ": " + result.invariant + " " + result.text);
}

// Without a block where the pool refused.
template <class Pool>
Filled make_filled(Course& course, Pool& pool, std::size_t size, Random& random, Counts& counts) {
  Filled filled{nullptr, size, random.next()};
  const bool zeroed = random.one_in(5);
  filled.block = static_cast<unsigned char*>(zeroed ? pool.allocate_zeroed(size) : pool.allocate(size));
  if (filled.block == nullptr) {
    ++counts.refusals;
    return filled;
  }
  if (zeroed) course.expect(all_zero(filled.block, size), "a block asked for as zeroed is not");
  fill(filled);
  return filled;
}

template <class Pool>
void resize_filled(Course& course, Pool& pool, std::size_t size, Filled& filled, Random& random, Counts& counts) {
  void* const moved = pool.resize(filled.block, size);
  if (moved == nullptr) {
    ++counts.refusals;
    return;
  }
  filled.block = static_cast<unsigned char*>(moved);
  course.expect(intact(filled, std::min(size, filled.size)), "a block was damaged by or before resizing");
  filled = {filled.block, size, random.next()};
  fill(filled);
}

// A thread's life: delayed from here on, its counts added up at the end.
template <class Round, class Work>
void live_through(Round& round, Random& random, Counts& counts, Work&& work) {
  arm(random.next());
  work();
  ++counts.threads;
  round.course->add(counts);
}

// Until the round is over, with pauses.
template <class Round, class Act>
void act_until_over(Round& round, Random& random, Counts& counts, Act&& act) {
  const std::uint64_t pause = std::uint64_t{1} << random.below(13);
  while (!round.over.load(std::memory_order_acquire)) {
    ++counts.operations;
    act();
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(2 * pause)));
  }
}

// `child()` in a child, which ends with what that returns; `meanwhile()` here.
template <class Child, class Meanwhile>
void fork_once(Course& course, Counts& counts, Child&& child, Meanwhile&& meanwhile) {
  std::fflush(stdout);
  const pid_t forked = ::fork();
  if (forked == 0) {
    ::alarm(60);
    ::_exit(child());
  }
  course.expect(forked > 0, "no fork");
  ++counts.forks;
  meanwhile();
  int status = 0;
  course.expect(::waitpid(forked, &status, 0) == forked, "the child cannot be waited for");
  if (status != 0) course.fail("a child ended with " + std::to_string(status));
}

// Strangers, and workers of which each place is taken by up to `most_lives` one after the other.
template <class Worker, class Stranger, class Round>
void run_threads(Round& round, Random& random, std::uint64_t strangers, unsigned workers, unsigned most_lives) {
  std::vector<std::thread> others;
  for (std::uint64_t left = strangers; left != 0; --left) {
    others.emplace_back([&round, from = random.next()] { Stranger(round, from).live(); });
  }
  std::vector<std::thread> places;
  for (unsigned i = 0; i < workers; ++i) {
    places.emplace_back([&round, most_lives, from = random.next()] {
      Random lives{from};
      for (std::uint64_t left = 1 + lives.below(most_lives); left != 0 && !round.course->failed(); --left) {
        std::thread([&round, next = lives.next()] { Worker(round, next).live(); }).join();
      }
    });
  }
  for (std::thread& place : places) place.join();
  round.over.store(true, std::memory_order_release);
  for (std::thread& other : others) other.join();
}

}  // namespace rtpool::stress
