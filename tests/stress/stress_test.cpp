// Threads at random work on one pool, delayed at random between any two accesses (delayed.hpp), which die and are replaced,
// while strangers stop their heaps, learn, freeze, fork, and pools come and go.
//
// Every block holds a pattern of its own, verified when it is resized or freed, by whoever has it then. After each round
// every invariant must hold and nothing be lost. The seed decides what every thread does and where it is delayed; in which
// order the threads then meet is the machine's. RTPOOL_STRESS_SEED and RTPOOL_STRESS_SECONDS (for each test) change both.
// What this cannot find: stores that reach other processors late, as they never take long; tests/schedules keeps them back.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "delayed.hpp"

// Everything of the core comes after the line above.
#include "base/counter.hpp"
#include "pool/pool.hpp"
#include "support.hpp"

namespace rtpool::stress {
namespace {

using pool::Pool;

constexpr std::size_t k_mib = std::size_t{1} << 20;
constexpr unsigned k_workers = 4;
constexpr std::size_t k_most_held = 60;

struct Held {
  Filled filled;
  Pool* pool = nullptr;
  bool counted = false;  // it came with a reference to its pool, as an array's capsule does
};

// --- what everybody does ----------------------------------------------------------------------------------------------

// A round: one pool, its workers and strangers, and what they hand to each other.
struct Round {
  Course* course = nullptr;
  Pool* pool = nullptr;
  std::uint64_t seed = 0;
  std::size_t limit = 0;
  std::size_t sizes[10] = {};  // what loops ask for again and again
  Exchange<Held, 24> exchange;
  std::atomic<bool> over{false};
};

std::size_t some_size(Round& round, Random& random) {
  if (!random.one_in(4)) return round.sizes[random.below(10)];
  return 1 + random.below(std::uint64_t{1} << random.below(18));
}

void let_go(Round& round, const Held& held) {
  round.course->expect(intact(held.filled, held.filled.size), "a block was damaged before it was freed");
  held.pool->release(held.filled.block);
  if (held.counted) held.pool->drop_reference();
}

Held make(Round& round, Pool& pool, Random& random, Counts& counts) {
  return {make_filled(*round.course, pool, some_size(round, random), random, counts), &pool, false};
}

// --- workers ----------------------------------------------------------------------------------------------------------

class Worker {
 public:
  Worker(Round& round, std::uint64_t seed) : round_(round), random_{seed} {}

  void live() {
    live_through(round_, random_, counts_, [this] { work(); });
  }
  void work() {
    for (std::uint64_t left = 100 + random_.below(1500); left != 0 && !round_.course->failed(); --left) act();
    die();
  }

 private:
  void act() {
    ++counts_.operations;
    const std::uint64_t action = random_.below(100);
    if (action < 35 || own_.empty()) {
      if (own_.size() < k_most_held) keep(make(round_, *round_.pool, random_, counts_));
    } else if (action < 60) {
      let_go(round_, take_one());
    } else if (action < 70) {
      Held& held = own_[random_.below(own_.size())];
      resize_filled(*round_.course, *held.pool, some_size(round_, random_), held.filled, random_, counts_);
    } else if (action < 84) {
      const Held held = take_one();
      if (!round_.exchange.put(held, random_)) own_.push_back(held);
    } else if (action < 98) {
      Held held;
      if (!round_.exchange.take(&held, random_)) return;
      ++counts_.handed_over;
      if (random_.one_in(2)) let_go(round_, held);
      else own_.push_back(held);
    } else if (action < 99) {
      round_.pool->zero_ahead(some_size(round_, random_), 4, k_mib);
    } else {
      const pool::PlanEntry plan[] = {{192, 192, 4, 0, 0}, {8192, 8192, 3, 0, 0}};
      round_.pool->prepare(plan, 2);
    }
  }

  // Some of its blocks outlive the thread, with whoever takes them.
  void die() {
    while (!own_.empty()) {
      const Held held = take_one();
      if (!random_.one_in(2) || !round_.exchange.put(held, random_)) let_go(round_, held);
    }
  }

  void keep(const Held& held) {
    if (held.filled.block != nullptr) own_.push_back(held);
  }
  Held take_one() { return take_any(own_, random_); }

  Round& round_;
  Random random_;
  Counts counts_;
  std::vector<Held> own_;
};

// --- strangers --------------------------------------------------------------------------------------------------------

class Stranger {
 public:
  Stranger(Round& round, std::uint64_t seed) : round_(round), random_{seed} {}

  void live() {
    live_through(round_, random_, counts_, [this] {
      act_until_over(round_, random_, counts_, [this] { act(); });
      if (learns_) end_learning();
      if (frozen_) round_.pool->unfreeze();
    });
  }

 private:
  void act() {
    Pool& pool = *round_.pool;
    switch (random_.below(14)) {
      case 0: pool.trim(); break;
      case 1: pool.trim(static_cast<os::Nanoseconds>(1 + random_.below(20'000'000))); break;
      case 2:
      case 3: check(pool); break;
      case 4: look(pool); break;
      case 5: pool.reset_peak(); break;
      case 6:
      case 7: toggle_learning(); break;
      case 8:
      case 9: toggle_freezing(); break;
      case 10: ask_for_everything(pool); break;
      case 11: fork_with_a_block(pool); break;
      case 12: another_pool(); break;
      default: use_and_forget(pool); break;
    }
  }

  void check(Pool& pool) {
    ++counts_.checks;
    expect_whole(*round_.course, pool, "");
  }

  void look(Pool& pool) {
    (void)pool.stats();
    (void)pool.live_blocks();
    (void)pool.effective();
    pool::MissEntry misses[8];
    (void)pool.misses_by_size(misses, 8);
    (void)Pool::find(&pool);
    round_.course->expect(pool.stats().capacity_bytes <= round_.limit, "the pool holds more than its limit");
  }

  void end_learning() {
    std::vector<pool::PlanEntry> plan(4096);
    round_.pool->end_learning(plan.data(), plan.size());
    learns_ = false;
  }
  void toggle_learning() {
    if (learns_) end_learning();
    else learns_ = round_.pool->begin_learning();
  }
  void toggle_freezing() {
    if (frozen_) round_.pool->unfreeze();
    else round_.pool->freeze(random_.one_in(2) ? pool::OnMiss::raise : pool::OnMiss::fallback);
    frozen_ = !frozen_;
  }

  // Refused, at the latest after every heap was stopped and gave back what is free.
  void ask_for_everything(Pool& pool) {
    if (void* const block = pool.allocate(round_.limit)) pool.release(block);
    else ++counts_.refusals;
  }

  // The stranger has a heap of its own for a while; it stays with its blocks when the thread ends.
  void use_and_forget(Pool& pool) {
    const Held held = make(round_, pool, random_, counts_);
    if (held.filled.block != nullptr && !round_.exchange.put(held, random_)) let_go(round_, held);
  }

  // Its blocks go to others, with references or without; whoever drops the last one ends the pool.
  void another_pool() {
    pool::Options options;
    options.prefault = false;
    options.limit = 8 * k_mib;
    const pool::CreateResult result = Pool::create(options);
    if (result.pool == nullptr) return round_.course->fail("no pool could be made");
    ++counts_.pools;
    // Without references a block must be alive when the maker drops its own; the pool then stays until the process ends.
    const bool forgotten = random_.one_in(16) && forgotten_.fetch_add(1) < k_most_forgotten;
    const Held kept = forgotten ? make(round_, *result.pool, random_, counts_) : Held{};
    const bool counted = kept.filled.block == nullptr;
    for (std::uint64_t left = random_.below(6); left != 0; --left) {
      Held held = make(round_, *result.pool, random_, counts_);
      if (held.filled.block == nullptr) continue;
      held.counted = counted;
      if (counted) result.pool->add_reference();
      if (!round_.exchange.put(held, random_)) let_go(round_, held);
    }
    result.pool->drop_reference();
    if (kept.filled.block != nullptr) let_go(round_, kept);
  }

  // Only the forking thread lives in the child, whatever the others were doing.
  void fork_with_a_block(Pool& pool) {
    if (!k_forks) return;
    const Held held = make(round_, pool, random_, counts_);
    fork_once(*round_.course, counts_, [&] { return live_as_child(pool, held); }, [] {});
    if (held.filled.block != nullptr) let_go(round_, held);
  }
  // It takes nothing from the exchange: what others write while they fork is not in the child in the order of its writing.
  int live_as_child(Pool& pool, const Held& inherited) {
    if (!pool.check().ok) return 1;
    Round own;
    own.course = round_.course;
    own.pool = &pool;
    std::copy(round_.sizes, round_.sizes + 10, own.sizes);
    Worker(own, random_.next()).work();
    own.exchange.empty([&](const Held& held) { let_go(own, held); });
    if (inherited.filled.block != nullptr && !intact(inherited.filled, inherited.filled.size)) return 2;
    if (inherited.filled.block != nullptr) pool.release(inherited.filled.block);
    pool.trim();
    if (!pool.check().ok) return 3;
    return round_.course->failed() ? 4 : 0;
  }

  static constexpr unsigned k_most_forgotten = 20;
  static inline std::atomic<unsigned> forgotten_{0};

  Round& round_;
  Random random_;
  Counts counts_;
  bool learns_ = false;
  bool frozen_ = false;
};

// --- rounds -----------------------------------------------------------------------------------------------------------

pool::Options some_options(Random& random) {
  pool::Options options;
  options.prefault = false;
  options.limit = (random.one_in(3) ? 3 : 48) * k_mib;
  options.when_full = random.one_in(3) ? pool::WhenFull::fallback : pool::WhenFull::raise;
  options.zero_on_free = random.one_in(6);
  options.debug = random.one_in(8);
  if (random.one_in(3)) options.idle = static_cast<os::Nanoseconds>(1 + random.below(40'000'000));  // one more stranger
  return options;
}

void play(Course& course, std::uint64_t seed, unsigned strangers) {
  Random random{seed};
  const pool::Options options = some_options(random);
  Round round;
  round.course = &course;
  round.seed = seed;
  round.limit = options.limit;
  for (std::size_t& size : round.sizes) size = 1 + random.below(std::uint64_t{1} << (6 + random.below(11)));
  const pool::CreateResult made = Pool::create(options);
  if (made.pool == nullptr) return course.fail("no pool could be made");
  round.pool = made.pool;
  run_threads<Worker, Stranger>(round, random, strangers, k_workers, 5);

  round.exchange.empty([&](const Held& held) { let_go(round, held); });
  expect_whole(course, *round.pool, " after the round");
  round.pool->trim();
  const pool::Stats stats = round.pool->stats();
  course.expect(round.pool->live_blocks() == 0, "blocks are alive that nobody has");
  const bool nothing = stats.current_count == 0 && stats.current_bytes == 0 && stats.requested_bytes == 0;
  course.expect(nothing, "the sums of live blocks are off");
  course.expect(stats.fallback_count == 0, "a fallback block was lost");
  course.expect(stats.misuses == 0, "a good call was taken for a misuse");
  course.expect(stats.capacity_bytes <= round.limit, "the pool holds more than its limit");
  // Nothing is alive, so all of the limit is had in one piece, whatever lies where; a debug pool takes red zones of it.
  void* const most = round.pool->allocate(options.debug ? options.limit / 2 : options.limit);
  course.expect(round.pool->contains(most), "all is free, and a request of all is refused");
  round.pool->release(most);
  round.pool->drop_reference();
}

void run(const char* name, unsigned strangers) {
  Course::run(name, [strangers](Course& course, std::uint64_t seed) { play(course, seed, strangers); });
}

// What the core itself orders is all there is between the threads.
TEST(Stress, ThreadsAmongThemselves) { run("threads", 0); }

TEST(Stress, ThreadsUnderStrangers) { run("strangers", 2); }

}  // namespace
}  // namespace rtpool::stress
