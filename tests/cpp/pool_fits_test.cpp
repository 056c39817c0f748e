// What fits under the limit is had, whatever was made, dropped and trimmed before; and a pool holds at most a quarter more
// than was ever alive in it, as long as sizes do not repeat.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <functional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "base/sanitizers.hpp"
#include "pool/pool_impl.hpp"
#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

constexpr std::size_t k_page = 4096;

// What a block keeps from others: pages of the kernel that it is in.
std::size_t pinned(std::size_t size) { return (size + k_page - 1) / k_page * k_page + 2 * (test::kernel_page() - k_page); }

class PoolFitsTest : public PoolTest {
 protected:
  Pool& limited(std::size_t limit) {
    Options options;
    options.limit = limit;
    options.when_full = WhenFull::raise;
    return make(options);
  }
};

TEST_F(PoolFitsTest, AfterATrimAllOfTheLimitIsThere) {
  Pool& pool = limited(256 * k_mib);
  pool.release(pool.allocate(10 * k_mib));
  pool.trim();
  void* const most = pool.allocate(250 * k_mib);
  ASSERT_NE(most, nullptr);
  pool.release(most);
  for (std::size_t size = 10; size < 256; size += 10) {
    void* const wave = pool.allocate(size * k_mib);
    ASSERT_NE(wave, nullptr) << size;
    pool.release(wave);
    pool.trim();
  }
  expect_ok(pool);
}

TEST_F(PoolFitsTest, ATrimmedRunAndAFreeOneBesideItAreOne) {
  Pool& pool = limited(200 * k_mib);
  void* const a = pool.allocate(100 * k_mib);
  void* const b = pool.allocate(100 * k_mib);
  pool.release(a);
  pool.trim();
  pool.release(b);
  const std::uint64_t discards = memory_.dials[FakeMemory::k_discard].calls;
  void* const both = pool.allocate(200 * k_mib);
  EXPECT_NE(both, nullptr);
  EXPECT_EQ(static_cast<std::uint64_t>(memory_.dials[FakeMemory::k_discard].calls), discards);  // nothing had to go elsewhere
  pool.release(both);
}

// Holes that are too short for a request: their memory serves it in another place.
TEST_F(PoolFitsTest, MemoryOfHolesServesElsewhere) {
  Pool& pool = limited(64 * k_mib);
  std::vector<void*> blocks;
  const std::size_t size = 2 * test::kernel_page();
  for (std::size_t i = 0; i < 64 * k_mib / size - 8; ++i) blocks.push_back(pool.allocate(size));
  for (std::size_t i = 0; i < blocks.size(); i += 2) pool.release(blocks[i]);
  void* const large = pool.allocate(28 * k_mib);
  EXPECT_NE(large, nullptr);
  EXPECT_LE(pool.stats().capacity_bytes, 64 * k_mib);
  expect_ok(pool);
  pool.release(large);
  for (std::size_t i = 1; i < blocks.size(); i += 2) pool.release(blocks[i]);
}

// Also while that is under way: what is to come counts when what goes for it has gone, or is on its way.
TEST_F(PoolFitsTest, NobodySeesMoreThanTheLimit) {
  for (const bool moves : {false, true}) {
    memory_.dials[FakeMemory::k_move].fail_from = moves ? -1 : 0;
    memory_.dials[FakeMemory::k_move].error = EINVAL;
    Pool& pool = limited(64 * k_mib);
    std::vector<void*> blocks;
    for (int i = 0; i < 15; ++i) blocks.push_back(pool.allocate(4 * k_mib));
    for (int i = 0; i < 15; i += 2) pool.release(blocks[i]);
    const std::size_t before = pool.stats().capacity_bytes;
    std::size_t most = 0;
    std::size_t least = before;
    bool discarded = false;
    memory_.enter = [&](FakeMemory::Kind kind) {
      if (kind != FakeMemory::k_discard && kind != FakeMemory::k_move) return;
      discarded |= kind == FakeMemory::k_discard;
      std::thread([&] {
        const std::size_t seen = pool.stats().capacity_bytes;
        most = std::max(most, seen);
        least = std::min(least, seen);
      }).join();
    };
    void* const large = pool.allocate(30 * k_mib);
    memory_.enter = [](FakeMemory::Kind) {};
    ASSERT_NE(large, nullptr);
    EXPECT_GT(most, 0U) << moves;
    EXPECT_LE(most, 64 * k_mib) << moves;
    if (!discarded) {
      EXPECT_EQ(least, before);  // what has moved is neither there twice nor gone
    }
    pool.release(large);
    for (int i = 1; i < 15; i += 2) pool.release(blocks[i]);
  }
}

// Random histories: a request is refused only where the live blocks leave no room for it.
TEST_F(PoolFitsTest, OverAnyHistory) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    const std::size_t limit = (8 + 24 * (seed % 4)) * k_mib;
    Pool& pool = limited(limit);
    std::mt19937_64 random(seed);
    std::vector<std::pair<void*, std::size_t>> live;
    std::size_t held = 0;
    std::size_t refused = 0;
    for (int step = 0; step < 2500; ++step) {
      const unsigned action = random() % 100;
      if (action < 62) {
        const std::size_t most = std::size_t{1} << (13 + random() % 13);
        const std::size_t size = 4096 + random() % most;
        void* const block = pool.allocate(size);
        if (block == nullptr) {
          ++refused;
          ASSERT_GT(held + pinned(size), limit) << "seed " << seed << " step " << step;
          continue;
        }
        live.emplace_back(block, size);
        held += pinned(size);
      } else if (action < 90 && !live.empty()) {
        std::swap(live[random() % live.size()], live.back());
        pool.release(live.back().first);
        held -= pinned(live.back().second);
        live.pop_back();
      } else if (action < 93) {
        while (live.size() > 3) {
          pool.release(live.back().first);
          held -= pinned(live.back().second);
          live.pop_back();
        }
      } else if (action < 96) {
        pool.trim();
      } else if (action == 96) {
        pool.freeze(OnMiss::raise);
        void* const block = pool.allocate(100 * k_kib);
        pool.release(block);
        pool.unfreeze();
      }
      ASSERT_LE(pool.stats().capacity_bytes, limit);
    }
    EXPECT_GT(refused, 10U);
    expect_ok(pool);
    for (const auto& [block, size] : live) pool.release(block);
    // Also what lies in frames that partly went elsewhere.
    pool.trim();
    EXPECT_EQ(pool.stats().capacity_bytes, 0U);
    expect_ok(pool);
  }
}

// The same by several threads at once, while memory goes back of its own and is trimmed: what all of them hold is added up before a
// request and after a free, so that there is room for each at the moment it is made.
TEST_F(PoolFitsTest, OverAnyHistoryOfSeveralThreads) {
  constexpr unsigned k_threads = 4;
  constexpr std::size_t k_limit = 48 * k_mib;
  struct Kind {
    const char* name;
    os::Nanoseconds idle;
    bool debug;
    std::size_t more;  // that a block keeps from others
  };
  for (const Kind& kind : {Kind{"plain", 0, false, 0}, Kind{"idle", 10'000'000, false, 0}, Kind{"debug", 0, true, 2 * test::kernel_page()}}) {
    Options options;
    options.limit = k_limit;
    options.when_full = WhenFull::raise;
    options.idle = kind.idle;
    options.debug = kind.debug;
    Pool& pool = make(options);
    std::atomic<std::size_t> held{0};
    std::atomic<unsigned> refused{0};
    std::atomic<unsigned> waited{0};
    std::vector<std::thread> threads;
    for (unsigned me = 0; me < k_threads; ++me) {
      threads.emplace_back([&, me] {
        std::mt19937_64 random(me);
        std::vector<std::pair<void*, std::size_t>> live;
        const auto drop = [&] {
          std::swap(live[random() % live.size()], live.back());
          pool.release(live.back().first);
          held -= live.back().second;
          live.pop_back();
        };
        for (int step = 0; step < 1500 && refused == 0; ++step) {
          const std::size_t size = 8192 + random() % (std::size_t{1} << (13 + random() % 11));
          const std::size_t needs = pinned(size) + kind.more;
          if (held.fetch_add(needs) + needs <= k_limit) {
            void* const block = pool.allocate(size);
            if (block == nullptr) ++refused;
            if (block != nullptr) live.emplace_back(block, needs);
          } else {
            held -= needs;
            ++waited;
            if (!live.empty()) drop();
          }
          if (random() % 64 == 0) pool.trim();
          if (random() % 3 == 0 && !live.empty()) drop();
        }
        while (!live.empty()) drop();
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(refused, 0U) << kind.name;
    EXPECT_GT(waited, 100U) << kind.name << ": the limit was not reached";
    expect_ok(pool);
  }
}

// Data that grow, and with each of their sizes a small result that stays: made beside them, after them, or beside the next.
TEST_F(PoolFitsTest, SmallBlocksThatStayDoNotKeepLargeOnesApart) {
  enum Order { k_beside, k_after, k_beside_both };
  for (const std::size_t small : {std::size_t{200}, std::size_t{5000}, std::size_t{16} * k_kib, std::size_t{100} * k_kib}) {
    for (const Order order : {k_beside, k_after, k_beside_both}) {
      Pool& pool = limited(256 * k_mib);
      std::vector<void*> kept;
      void* last = nullptr;
      for (std::size_t size = 20 * k_mib; size < 110 * k_mib; size += 300'000) {
        void* const large = pool.allocate(size);
        ASSERT_NE(large, nullptr) << size << " bytes beside " << kept.size() << " blocks of " << small << ", order " << order << ", "
                                  << impl(pool).store_.committed_pages() << " pages of addresses";
        if (order == k_after) pool.release(large);
        kept.push_back(pool.allocate(small));
        ASSERT_NE(kept.back(), nullptr);
        if (order == k_beside) pool.release(large);
        if (order != k_beside_both) continue;
        if (last != nullptr) pool.release(last);
        last = large;
      }
      if (last != nullptr) pool.release(last);
      expect_ok(pool);
      for (void* const block : kept) pool.release(block);
    }
  }
}

// Sizes that wander: small and large, all of an order, ever larger.
TEST_F(PoolFitsTest, WanderingSizesHoldAQuarterMoreThanTheirPeak) {
  struct Kind {
    const char* name;
    std::size_t alive;
    std::function<std::size_t(std::mt19937_64&, int)> size;
  };
  const auto uniform = [](std::size_t low, std::size_t high) {
    return [=](std::mt19937_64& random, int) { return low + random() % (high - low); };
  };
  const auto by_octave = [](double low, double high) {
    return [=](std::mt19937_64& random, int) {
      return static_cast<std::size_t>(low * std::exp2(std::log2(high / low) * (static_cast<double>(random() % 100'000) / 1e5)));
    };
  };
  const Kind kinds[] = {
      {"64 B to 8 MiB", 64, uniform(64, 8 * k_mib)},
      {"64 B to 8 MiB by octave", 64, by_octave(64, 8 << 20)},
      {"4 KiB to 64 MiB", 40, uniform(4 * k_kib, 64 * k_mib)},
      {"4 KiB to 64 MiB by octave", 40, by_octave(4096, 64 << 20)},
      {"ever larger", 8, [](std::mt19937_64&, int step) { return static_cast<std::size_t>(step + 1) * 50'000; }},
  };
  memory_.physical = std::size_t{1} << 40;
  for (const Kind& kind : kinds) {
    Pool& pool = make();
    std::mt19937_64 random(7);
    std::vector<void*> live;
    for (int step = 0; step < 1500; ++step) {
      if (live.size() == kind.alive) {
        std::swap(live[random() % live.size()], live.back());
        pool.release(live.back());
        live.pop_back();
      }
      live.push_back(pool.allocate(kind.size(random, step)));
      const Stats stats = pool.stats();
      const std::uint64_t more = std::max<std::uint64_t>(stats.peak_bytes / 4, 8 * k_mib);
      ASSERT_LE(stats.capacity_bytes, stats.peak_bytes + more + 2 * k_mib) << kind.name << ", step " << step;
    }
    for (void* const block : live) pool.release(block);
  }
}

// What one thread leaves idle serves the others.
TEST_F(PoolFitsTest, SeveralThreadsHoldAQuarterMoreThanTheirPeak) {
  constexpr unsigned k_threads = 4;
  memory_.physical = std::size_t{1} << 40;
  for (const std::size_t largest : {8 * k_mib, 64 * k_mib}) {
    Pool& pool = make();
    std::atomic<std::size_t> live{0};
    std::atomic<std::size_t> peak{0};
    std::atomic<std::size_t> held{0};
    const auto raise = [](std::atomic<std::size_t>& most, std::size_t to) {
      std::size_t was = most;
      while (was < to && !most.compare_exchange_weak(was, to)) {
      }
    };
    std::vector<std::thread> threads;
    for (unsigned me = 0; me < k_threads; ++me) {
      threads.emplace_back([&, me] {
        std::mt19937_64 random(me);
        std::vector<std::pair<void*, std::size_t>> mine;
        const auto drop = [&] {
          std::swap(mine[random() % mine.size()], mine.back());
          pool.release(mine.back().first);
          live -= mine.back().second;
          mine.pop_back();
        };
        for (int step = 0; step < 3000; ++step) {
          while (mine.size() >= 16) drop();
          const std::size_t size = 64 + random() % largest;
          raise(peak, live += size);  // for as long as it may be somebody's
          mine.emplace_back(pool.allocate(size), size);
          if (step % 8 == 0) raise(held, pool.stats().capacity_bytes);
        }
        while (!mine.empty()) drop();
      });
    }
    for (std::thread& thread : threads) thread.join();
    const std::size_t more = std::max<std::size_t>(peak / 4, 8 * k_mib);
    EXPECT_LE(held, peak + more + 2 * k_mib) << "sizes up to " << largest << ", peak " << peak;
    expect_ok(pool);
  }
}

// A thread in a loop keeps its sizes although another one's wander and need room.
TEST_F(PoolFitsTest, AThreadsLoopIsLeftAlone) {
  constexpr int k_steps = 2000;
  memory_.physical = std::size_t{1} << 40;
  Pool& pool = make();
  std::atomic<int> turn{0};  // even: the loop's
  std::uint64_t misses = 0;
  std::thread loop([&] {
    const auto iteration = [&] {
      void* const a = pool.allocate(9 * k_mib);
      void* const b = pool.allocate(5 * k_mib);
      pool.release(a);
      pool.release(b);
    };
    iteration();
    const std::uint64_t before = impl(pool).thread_heap()->stats.misses.get();
    for (int step = 0; step < k_steps; ++step) {
      while (turn != 2 * step) std::this_thread::yield();
      iteration();
      ++turn;
    }
    misses = impl(pool).thread_heap()->stats.misses.get() - before;
  });
  std::mt19937_64 random(3);
  std::vector<void*> live;
  for (int step = 0; step < k_steps; ++step) {
    while (turn != 2 * step + 1) std::this_thread::yield();
    if (live.size() == 16) {
      std::swap(live[random() % live.size()], live.back());
      pool.release(live.back());
      live.pop_back();
    }
    live.push_back(pool.allocate(64 + random() % (8 * k_mib)));
    ++turn;
  }
  loop.join();
  EXPECT_EQ(misses, 0U);
  for (void* const block : live) pool.release(block);
}

// Waves of different sizes, again and again: what one leaves free serves the next.
TEST_F(PoolFitsTest, WavesDoNotAddUp) {
  memory_.physical = std::size_t{1} << 40;
  Pool& pool = make();
  const auto wave = [&](std::size_t count, std::size_t size) {
    std::vector<void*> blocks;
    for (std::size_t i = 0; i < count; ++i) blocks.push_back(pool.allocate(size));
    for (void* const block : blocks) pool.release(block);
  };
  for (int round = 0; round < 4; ++round) {
    wave(40, 16 * k_mib);
    wave(210, 3 * k_mib);
    wave(1, 600 * k_mib);
    wave(100'000, 900);
    const Stats stats = pool.stats();
    EXPECT_LE(stats.capacity_bytes, stats.peak_bytes / 4 * 5 + 4 * k_mib) << round;
  }
}

// Sizes that wander for long, with what is alive going up and down between a third of the peak and all of it: what is free serves them,
// and hardly ever has the kernel to move or to give anything.
TEST_F(PoolFitsTest, WanderingSizesSettle) {
#ifdef RTPOOL_THREAD_SANITIZER
  constexpr int k_round = 250'000;  // each request takes the slow path there, and ten times as long
#else
  constexpr int k_round = 1'000'000;
#endif
  memory_.physical = std::size_t{1} << 40;
  Pool& pool = make();
  std::mt19937_64 random(2);
  std::vector<void*> live(64);
  const auto turns = [&](int count) {
    for (int i = 0; i < count; ++i) {
      void*& slot = live[random() % live.size()];
      pool.release(slot);
      const std::size_t power = std::size_t{1} << (6 + random() % 17);
      slot = pool.allocate(power + random() % power);
    }
  };
  turns(k_round);
  const Stats before = pool.stats();
  turns(3 * k_round);
  const Stats after = pool.stats();
  EXPECT_LE(after.kernel_calls - before.kernel_calls, 150U);
  EXPECT_LE(after.returned_bytes - before.returned_bytes, 16 * k_mib);
  EXPECT_LE(after.capacity_bytes, after.peak_bytes / 4 * 5);
  for (void* const block : live) pool.release(block);
}

}  // namespace
}  // namespace rtpool::pool
