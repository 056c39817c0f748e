// The pool in shared memory under threads at random work, delayed at random, some of which hand blocks to each other by
// name as processes do, while strangers trim, check, recover, and fork.
//
// Threads of one process stand in for processes: the words of the segment do not know the difference, and sanitizers see
// them all. Processes that are killed: tests/cpp/shared_recovery_test.cpp.
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
#include "shared/shared_pool.hpp"
#include "support.hpp"

namespace rtpool::stress {
namespace {

using shared::BlockRange;
using shared::BlockRef;
using shared::SharedPool;
using shared::Tenancy;

constexpr unsigned k_workers = 4;
constexpr std::size_t k_most_held = 30;

// A block of this process; with a reference, one that somebody shared. Under way it is a handle.
struct Item {
  Filled filled;
  BlockRef ref;
  Tenancy sender;
  bool shared = false;
};

struct Round {
  Course* course = nullptr;
  SharedPool* pool = nullptr;
  Exchange<Item, 16> exchange;
  std::atomic<bool> over{false};
};

std::size_t some_size(Random& random) {
  constexpr std::size_t k_sizes[] = {64, 700, 3000, 5000, 20'000, 70'000};
  return random.one_in(3) ? 1 + random.below(std::uint64_t{1} << random.below(18)) : k_sizes[random.below(6)];
}

void let_go(Round& round, const Item& item) {
  round.course->expect(intact(item.filled, item.filled.size), "a block was damaged before it was freed");
  if (item.shared) round.pool->drop(item.ref, round.pool->lineage());
  else round.pool->release(item.filled.block);
}

// The handle becomes a hold.
bool open(Round& round, Item& item) {
  BlockRange range;
  if (round.pool->arrive(item.ref, item.sender, &range) != 0) {
    round.course->fail("a handle that is under way finds no block");
    return false;
  }
  round.course->expect(range.bytes >= item.filled.size, "a block became smaller under way");
  item.filled.block = reinterpret_cast<unsigned char*>(round.pool->data() + range.offset);
  return true;
}

class Worker {
 public:
  Worker(Round& round, std::uint64_t seed) : round_(round), random_{seed} {}

  void live() {
    live_through(round_, random_, counts_, [this] { work(); });
  }
  void work() {
    for (std::uint64_t left = 100 + random_.below(800); left != 0 && !round_.course->failed(); --left) act();
    while (!own_.empty()) let_go(round_, take_one());
  }

 private:
  void act() {
    ++counts_.operations;
    const std::uint64_t action = random_.below(100);
    if (action < 40 || own_.empty()) {
      if (own_.size() < k_most_held) make();
    } else if (action < 65) {
      let_go(round_, take_one());
    } else if (action < 72) {
      resize(own_[random_.below(own_.size())]);
    } else if (action < 85) {
      send();
    } else if (action < 97) {
      receive();
    } else {
      hold(own_[random_.below(own_.size())]);
    }
  }

  void make() {
    const Filled filled = make_filled(*round_.course, *round_.pool, some_size(random_), random_, counts_);
    if (filled.block != nullptr) own_.push_back({filled, {}, {}, false});
  }

  void resize(Item& item) {
    if (item.shared) return;
    resize_filled(*round_.course, *round_.pool, some_size(random_), item.filled, random_, counts_);
  }

  // As a handle, or a private block as it is.
  void send() {
    Item item = take_one();
    SharedPool& pool = *round_.pool;
    BlockRange range;
    if (!item.shared && random_.one_in(2) && pool.share(item.filled.block, &item.ref, &range) == 0) {
      item.shared = true;
      pool.release(item.filled.block);  // the array; the hold of `share` stays
    }
    if (item.shared && pool.depart(item.ref, &item.sender) != 0) round_.course->fail("a held block cannot be sent");
    const bool gone = round_.exchange.put(item, random_);
    if (!gone && item.shared) {
      Item back = item;
      if (open(round_, back)) pool.drop(back.ref, pool.lineage());
    }
    if (!gone) own_.push_back(item);
    else if (item.shared) pool.drop(item.ref, pool.lineage());
  }

  void receive() {
    Item item;
    if (own_.size() >= k_most_held || !round_.exchange.take(&item, random_)) return;
    ++counts_.handed_over;
    if (item.shared && !open(round_, item)) return;
    own_.push_back(item);
  }

  void hold(const Item& item) {
    BlockRange range;
    if (!item.shared) return;
    if (round_.pool->hold(item.ref, &range) != 0) round_.course->fail("a held block cannot be held once more");
    else round_.pool->drop(item.ref, round_.pool->lineage());
  }

  Item take_one() { return take_any(own_, random_); }

  Round& round_;
  Random random_;
  Counts counts_;
  std::vector<Item> own_;
};

class Stranger {
 public:
  Stranger(Round& round, std::uint64_t seed) : round_(round), random_{seed} {}

  void live() {
    live_through(round_, random_, counts_, [this] {
      act_until_over(round_, random_, counts_, [this] { act(); });
    });
  }

 private:
  void act() {
    SharedPool& pool = *round_.pool;
    switch (random_.below(9)) {
      case 0: (void)pool.trim(); break;
      case 1: check(pool); break;
      case 2: (void)pool.stats(); break;
      case 3: pool.reset_peak(); break;
      case 4: (void)pool.recover(); break;
      case 5: (void)pool.reclaim(3600); break;
      case 6: use_others_idle(pool); break;
      case 7: fork_with_a_block(pool); break;
      default: another_pool(); break;
    }
  }

  void check(SharedPool& pool) {
    ++counts_.checks;
    expect_whole(*round_.course, pool, "");
  }

  // Refused after everything was searched, or served.
  void use_others_idle(SharedPool& pool) {
    if (void* const block = pool.allocate(pool.geometry().data_bytes / 2)) pool.release(block);
    else ++counts_.refusals;
  }

  void another_pool() {
    shared::Options options;
    options.size = 256 << 10;
    options.prefault = false;
    const shared::CreateResult result = SharedPool::create(options);
    if (result.pool == nullptr) return round_.course->fail("no pool could be made");
    ++counts_.pools;
    void* const block = result.pool->allocate(some_size(random_));
    round_.course->expect(block == nullptr || SharedPool::find(block) == result.pool, "a block is not found in its pool");
    result.pool->close();
    result.pool->release(block);
    result.pool->drop_reference();
  }

  // The block is freed while the child still has it.
  void fork_with_a_block(SharedPool& pool) {
    if (!k_forks || !random_.one_in(4)) return;
    Filled kept{nullptr, some_size(random_), random_.next()};
    kept.block = static_cast<unsigned char*>(pool.allocate(kept.size));
    if (kept.block != nullptr) fill(kept);
    const auto free_it = [&] {
      if (kept.block != nullptr) pool.release(kept.block);
    };
    fork_once(*round_.course, counts_, [&] { return live_as_child(pool, kept); }, free_it);
  }
  int live_as_child(SharedPool& pool, const Filled& inherited) {
    Round own;
    own.course = round_.course;
    own.pool = &pool;
    Worker(own, random_.next()).work();
    own.exchange.empty([&](Item item) {
      if (!item.shared || open(own, item)) let_go(own, item);
    });
    if (inherited.block != nullptr && !intact(inherited, inherited.size)) return 2;
    if (!pool.check().ok) return 3;
    return round_.course->failed() ? 4 : 0;
  }

  Round& round_;
  Random random_;
  Counts counts_;
};

void play(Course& course, std::uint64_t seed) {
  Random random{seed};
  shared::Options options;
  options.size = std::uint64_t{1} << (20 + random.below(4));
  options.prefault = false;
  const shared::CreateResult made = SharedPool::create(options);
  if (made.pool == nullptr) return course.fail("no pool could be made");
  Round round;
  round.course = &course;
  round.pool = made.pool;
  run_threads<Worker, Stranger>(round, random, random.below(3), k_workers, 4);

  round.exchange.empty([&](Item item) {
    if (!item.shared || open(round, item)) let_go(round, item);
  });
  SharedPool& pool = *round.pool;
  expect_whole(course, pool, " after the round");
  pool.trim();
  const shared::Stats stats = pool.stats();
  course.expect(stats.common.current_bytes == 0 && stats.common.current_count == 0, "blocks are alive that nobody has");
  course.expect(stats.shared_count == 0 && stats.in_flight_count == 0, "records are in use that nobody needs");
  course.expect(stats.common.misuses == 0, "a good call was taken for a misuse");
  course.expect(stats.common.largest_free_bytes == pool.geometry().data_bytes, "granules were lost");
  pool.close();
  pool.drop_reference();
}

TEST(Stress, SharedPool) { Course::run("shared", play); }

}  // namespace
}  // namespace rtpool::stress
