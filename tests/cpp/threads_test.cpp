// What must hold with threads and processes: remote frees, threads that die, forks, strangers that stop heaps, bounded memory.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "base/sanitizers.hpp"
#include "fake_memory.hpp"
#include "pages/page_desc.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool.hpp"
#include "pool/pool_impl.hpp"

namespace rtpool::pool {
namespace {

class ThreadsTest : public testing::Test {
 protected:
  void SetUp() override {
    Options options;
    options.limit = std::size_t{512} << 20;
    options.prefault = false;
    pool_ = Pool::create(options, test::machine_memory()).pool;
    ASSERT_NE(pool_, nullptr);
  }
  void TearDown() override {
    const CheckResult result = pool_->check();
    EXPECT_TRUE(result.ok) << result.invariant << ": " << result.text;
    EXPECT_EQ(pool_->live_blocks(), 0U);
    pool_->drop_reference();
  }
  Pool* pool_ = nullptr;
};

struct Filled {
  unsigned char* block;
  std::size_t size;
  unsigned char mark;
};

Filled make_filled(Pool& pool, std::mt19937_64& random) {
  const std::size_t top = std::size_t{1} << (random() % 18);
  Filled filled{nullptr, 1 + random() % top, static_cast<unsigned char>(random())};
  filled.block = static_cast<unsigned char*>(random() % 4 == 0 ? pool.allocate_zeroed(filled.size) : pool.allocate(filled.size));
  if (filled.block != nullptr) std::memset(filled.block, filled.mark, filled.size);
  return filled;
}

bool intact(const Filled& filled) {
  for (std::size_t i = 0; i < filled.size; i += 1 + filled.size / 64) {
    if (filled.block[i] != filled.mark) return false;
  }
  return filled.block[filled.size - 1] == filled.mark;
}

// Imitates workers that pass arrays on: seeded patterns, verified when freed, by whichever thread has them by then.
TEST_F(ThreadsTest, BlocksSurviveAnyHandover) {
  std::mutex mutex;
  std::vector<Filled> shared;
  std::atomic<int> damaged{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      std::vector<Filled> own;
      for (int i = 0; i < 8000; ++i) {
        const unsigned action = random() % 8;
        if (action < 4 && own.size() < 60) {
          const Filled filled = make_filled(*pool_, random);
          if (filled.block != nullptr) own.push_back(filled);
        } else if (action < 6 && !own.empty()) {
          std::swap(own[random() % own.size()], own.back());
          if (!intact(own.back())) ++damaged;
          pool_->release(own.back().block);
          own.pop_back();
        } else if (!own.empty()) {
          const std::scoped_lock guard(mutex);
          std::swap(own[random() % own.size()], own.back());
          shared.push_back(own.back());
          own.pop_back();
          std::swap(shared[random() % shared.size()], shared.back());
          own.push_back(shared.back());
          shared.pop_back();
        }
      }
      for (const Filled& filled : own) {
        if (!intact(filled)) ++damaged;
        pool_->release(filled.block);
      }
    });
  }
  // A stranger that stops the heaps meanwhile.
  std::atomic<bool> stop{false};
  std::thread stranger([&] {
    while (!stop) {
      pool_->trim();
      EXPECT_TRUE(pool_->check().ok);
      pool_->stats();
      pool_->reset_peak();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  stranger.join();
  for (const Filled& filled : shared) {
    if (!intact(filled)) ++damaged;
    pool_->release(filled.block);
  }
  EXPECT_EQ(damaged, 0);
  EXPECT_EQ(pool_->stats().misuses, 0U);
}

TEST_F(ThreadsTest, ProducerAndConsumerStayBounded) {
  std::atomic<void*> slots[64] = {};
  constexpr int k_blocks = 200'000;
  std::thread consumer([&] {
    for (int i = 0; i < k_blocks; ++i) {
      void* block = nullptr;
      while ((block = slots[i % 64].exchange(nullptr, std::memory_order_acquire)) == nullptr) std::this_thread::yield();
      pool_->release(block);
    }
  });
  for (int i = 0; i < k_blocks; ++i) {
    void* const block = pool_->allocate(i % 3 == 0 ? 1 + static_cast<std::size_t>(i) * 7919 % 4032 : i % 3 == 1 ? 200 : 20'000);
    ASSERT_NE(block, nullptr);
    while (slots[i % 64].load(std::memory_order_relaxed) != nullptr) std::this_thread::yield();
    slots[i % 64].store(block, std::memory_order_release);
  }
  consumer.join();
  const Stats stats = pool_->stats();
  EXPECT_EQ(stats.remote_frees, static_cast<std::uint64_t>(k_blocks));
  EXPECT_EQ(stats.current_count, 0U);
  EXPECT_LE(stats.capacity_bytes, std::size_t{16} << 20);
}

// A thread that only frees comes to have a heap, for its counts; while the pool is frozen it does without.
TEST_F(ThreadsTest, WhoFreesMuchGetsAHeap) {
  const PoolImpl& pool = impl(*pool_);
  for (const bool frozen : {true, false}) {
    std::vector<void*> blocks;
    for (int i = 0; i < 6'000; ++i) blocks.push_back(pool_->allocate(i % 16 == 0 ? 8'192 : 64 + i % 3'000));
    if (frozen) pool_->freeze(OnMiss::fallback);
    const std::uint64_t before = pool_->stats().remote_frees;
    std::thread([&] {
      for (void* const block : blocks) pool_->release(block);
      pool_->release(blocks[0]);  // a second time
      pool_->release(blocks[1]);
    }).join();
    if (frozen) pool_->unfreeze();
    EXPECT_EQ(pool.heap_count_.load(), frozen ? 1U : 2U);
    const Stats stats = pool_->stats();
    EXPECT_EQ(stats.remote_frees - before, blocks.size());
    EXPECT_EQ(stats.current_count, 0U);
    EXPECT_EQ(stats.current_bytes, 0U);
    EXPECT_EQ(stats.requested_bytes, 0U);
    EXPECT_EQ(stats.misuses, frozen ? 2U : 4U);
    EXPECT_TRUE(pool_->check().ok);
  }
}

// Hits write descriptors: threads whose blocks' descriptors share a cache line slow each other down.
TEST_F(ThreadsTest, SmallRunsOfTwoThreadsShareNoLineOfDescriptors) {
  constexpr std::size_t k_line = std::size_t{os::k_page_size} * pages::k_line_pages;
  pool_->release(pool_->allocate(std::size_t{4} << 20));  // room for whole lines
  std::set<std::uintptr_t> lines[2];
  std::vector<void*> blocks[2];
  std::atomic<unsigned> turn{0};
  const auto work = [&](unsigned self) {
    for (unsigned i = 0; i < 100; ++i) {
      while (turn.load() != 2 * i + self) std::this_thread::yield();
      void* const block = pool_->allocate(os::k_page_size * (1 + i % 3));
      blocks[self].push_back(block);
      lines[self].insert(reinterpret_cast<std::uintptr_t>(block) / k_line);
      turn.fetch_add(1);
    }
  };
  std::thread first(work, 0);
  std::thread second(work, 1);
  first.join();
  second.join();
  for (const std::uintptr_t line : lines[0]) EXPECT_EQ(lines[1].count(line), 0U);
  for (auto& held : blocks) {
    for (void* const block : held) pool_->release(block);
  }
}

TEST_F(ThreadsTest, DeadThreadsLeaveNothingBehind) {
  std::vector<void*> left;
  for (int i = 0; i < 10'000; ++i) {
    std::thread([&] {
      void* const kept = pool_->allocate(1000);
      void* const large = pool_->allocate(40'000);
      pool_->release(large);
      left.push_back(kept);
    }).join();
    if (left.size() == 10) {
      for (void* block : left) pool_->release(block);
      left.clear();
    }
  }
  for (void* block : left) pool_->release(block);
  EXPECT_LE(pool_->stats().capacity_bytes, std::size_t{4} << 20);
}

TEST_F(ThreadsTest, BlocksOfDeadThreadsAreWhole) {
  std::vector<Filled> filled;
  for (unsigned t = 0; t < 20; ++t) {
    std::thread([&] {
      std::mt19937_64 random(t);
      for (int i = 0; i < 50; ++i) filled.push_back(make_filled(*pool_, random));
    }).join();
  }
  for (const Filled& f : filled) {
    EXPECT_TRUE(intact(f));
    pool_->release(f.block);
  }
}

TEST_F(ThreadsTest, ManyPoolsComeAndGo) {
  for (int i = 0; i < 2000; ++i) {
    Options options;
    options.prefault = false;
    Pool* const pool = Pool::create(options, test::machine_memory()).pool;
    ASSERT_NE(pool, nullptr);
    void* const a = pool->allocate(100);
    void* const b = pool_->allocate(100);
    pool->release(a);
    pool_->release(b);
    pool->drop_reference();
  }
}

TEST_F(ThreadsTest, MemoryOfOtherThreadsIsTakenBeforeRefusal) {
  Options options;
  options.size = std::size_t{8} << 20;
  options.prefault = false;
  options.when_full = WhenFull::raise;
  Pool* const pool = Pool::create(options, test::machine_memory()).pool;
  std::atomic<bool> freed{false};
  std::atomic<bool> stop{false};
  std::thread holder([&] {
    pool->release(pool->allocate(std::size_t{6} << 20));
    freed = true;
    while (!stop) std::this_thread::yield();
  });
  while (!freed) std::this_thread::yield();
  void* const block = pool->allocate(std::size_t{7} << 20);
  EXPECT_NE(block, nullptr);
  stop = true;
  holder.join();
  pool->release(block);
  EXPECT_EQ(pool->live_blocks(), 0U);
  pool->drop_reference();
}

// Runs whose size has no bin depart: they wait in their heap for its next turn at the store. Who else would have to grow gets them.
TEST_F(ThreadsTest, WhatDepartsFromOneHeapServesAnotherBeforeTheKernelIsAsked) {
  PoolImpl& pool = impl(*pool_);
  // More page counts of one set than it has ways, the shortest first.
  std::vector<std::uint32_t> counts;
  for (std::uint32_t pages = 16; counts.size() <= blocks::k_bin_ways; ++pages) {
    if (blocks::Heap::set_of(pages) == blocks::Heap::set_of(16)) counts.push_back(pages);
  }
  std::atomic<void*> departed{nullptr};
  std::atomic<bool> stop{false};
  std::thread holder([&] {
    void* const most = pool_->allocate(std::size_t{64} << 20);  // what departs is little beside it
    std::vector<void*> blocks;
    for (const std::uint32_t pages : counts) blocks.push_back(pool_->allocate(pages * os::k_page_size));
    for (std::size_t i = blocks.size(); i-- != 0;) pool_->release(blocks[i]);
    departed = blocks[0];
    while (!stop) std::this_thread::yield();
    pool_->release(most);
  });
  pool_->release(pool_->allocate(64));  // a heap
  while (departed.load() == nullptr) std::this_thread::yield();
  ASSERT_EQ(pool.heap_count_.load(), 2U);
  const auto departing = [&] {
    bool some = false;
    pool.for_each_heap([&](const blocks::Heap& heap) { some = some || heap.has_departing(); });
    return some;
  };
  EXPECT_TRUE(departing());
  // Nothing else is free.
  std::vector<std::pair<pages::PageIndex, std::uint32_t>> taken;
  while (pool.store_.free_bytes() != 0) {
    const auto pages = static_cast<std::uint32_t>(pool.store_.largest_free() / os::k_page_size);
    taken.emplace_back(pool.store_.take(pages).first, pages);
  }
  const Stats before = pool_->stats();
  void* const block = pool_->allocate(counts[0] * os::k_page_size);
  const Stats after = pool_->stats();
  EXPECT_EQ(block, departed.load());
  EXPECT_EQ(after.growths, before.growths);
  EXPECT_EQ(after.capacity_bytes, before.capacity_bytes);
  EXPECT_EQ(after.misses, before.misses + 1);
  EXPECT_FALSE(departing());
  for (const auto& [first, pages] : taken) pool.store_.give(first, pages, false);
  stop = true;
  holder.join();
  pool_->release(block);
}

#ifndef RTPOOL_THREAD_SANITIZER
TEST_F(ThreadsTest, ForkedChildrenWorkWhileThreadsAreInside) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      while (!stop) {
        const Filled filled = make_filled(*pool_, random);
        if (filled.block == nullptr) continue;
        pool_->release(filled.block);
      }
    });
  }
  void* const inherited = pool_->allocate(10'000);
  std::memset(inherited, 7, 10'000);
  for (int i = 0; i < 200; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      if (static_cast<char*>(inherited)[9999] != 7) ::_exit(1);
      std::mt19937_64 random(static_cast<unsigned>(i));
      for (int k = 0; k < 50; ++k) {
        const Filled filled = make_filled(*pool_, random);
        if (filled.block == nullptr || !intact(filled)) ::_exit(2);
        pool_->release(filled.block);
      }
      pool_->release(inherited);
      if (!pool_->check().ok) ::_exit(3);
      pool_->trim();
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << "exit code " << WEXITSTATUS(status);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  pool_->release(inherited);
}

// A thread that has a heap frees, or one that has none, while another one forks: in the child each block is alive or free, and none
// in between.
void free_while_forking(Pool& pool, bool with_heap) {
  constexpr int k_rounds = 60;
  std::vector<void*> blocks(8'000);
  const auto allocate_all = [&] {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = pool.allocate(i % 8 == 0 ? 4'096 : 64 + 64 * (i % 5));
      ASSERT_NE(blocks[i], nullptr);
    }
  };
  allocate_all();
  std::atomic<int> round{0};
  std::atomic<int> ended{0};
  std::atomic<std::size_t> freed{0};
  std::thread other([&] {
    if (with_heap) pool.release(pool.allocate(64));
    ended = 1;
    for (int now = 1; now <= k_rounds; ++now) {
      while (round < now) std::this_thread::yield();
      for (void* const block : blocks) {
        pool.release(block);
        ++freed;
      }
      ended = now + 1;
    }
  });
  while (ended == 0) std::this_thread::yield();
  if (!with_heap) pool.freeze(OnMiss::raise);  // it gets none then, however many it frees
  unsigned halfway = 0;
  for (int now = 1; now <= k_rounds; ++now) {
    freed = 0;
    round = now;
    while (freed < blocks.size() / 8) {
    }
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      unsigned alive = 0;
      for (void* const block : blocks) {
        if (pool.usable_size(block) == 0) continue;
        ++alive;
        pool.release(block);
      }
      if (pool.live_blocks() != 0 || pool.stats().misuses != 0) ::_exit(1);
      if (impl(pool).debug_ != nullptr) impl(pool).debug_->empty_quarantine();
      impl(pool).flush_heaps();
      std::uint64_t left = 0;
      impl(pool).for_each_heap([&](const blocks::Heap& heap) { left += heap.live_count(); });
      if (left != 0) ::_exit(2);
      if (!pool.check().ok) ::_exit(3);
      ::_exit(alive != 0 && alive != blocks.size() ? 100 : 0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    ASSERT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 100) << "round " << now << ", exit code " << WEXITSTATUS(status);
    if (WEXITSTATUS(status) == 100) ++halfway;
    while (ended <= now) std::this_thread::yield();
    allocate_all();
  }
  other.join();
  std::printf("%u of %d forks came while blocks were being freed\n", halfway, k_rounds);
  pool.unfreeze();
  for (void* const block : blocks) pool.release(block);
}

TEST_F(ThreadsTest, WhatAThreadWithoutAHeapFreesDuringAForkIsNotLostToTheChild) { free_while_forking(*pool_, false); }

void free_in_a_pool_of_its_own_while_forking(Options options) {
  options.limit = std::size_t{512} << 20;  // a debug pool's blocks of a page have guard pages, of up to 64 KiB
  options.prefault = false;
  Pool* const pool = Pool::create(options, test::machine_memory()).pool;
  ASSERT_NE(pool, nullptr);
  free_while_forking(*pool, true);
  EXPECT_EQ(pool->live_blocks(), 0U);
  pool->drop_reference();
}

TEST(ThreadsClearing, WhatAnotherThreadFreesDuringAForkIsNotLostToTheChild) {
  Options options;
  options.zero_on_free = true;
  free_in_a_pool_of_its_own_while_forking(options);
}

TEST(ThreadsDebugging, WhatAnotherThreadFreesDuringAForkIsNotLostToTheChild) {
  Options options;
  options.debug = true;
  free_in_a_pool_of_its_own_while_forking(options);
}
#endif

// A seccomp filter that came after the pool may refuse the barrier: heaps are stopped all the same, soundly.
TEST(ThreadsWithoutBarrier, StrangersStopHeapsAfterTheKernelTookTheBarrierAway) {
  test::FakeMemory memory;
  Options options;
  options.limit = std::size_t{256} << 20;
  Pool* const pool = Pool::create(options, memory).pool;
  ASSERT_NE(pool, nullptr);
  memory.barrier_fails = true;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned n = 0; n < 3; ++n) {
    threads.emplace_back([&, n] {
      std::mt19937_64 random(n);
      std::vector<Filled> held;
      while (!stop.load(std::memory_order_relaxed)) {
        held.push_back(make_filled(*pool, random));
        ASSERT_NE(held.back().block, nullptr);
        if (held.size() < 20) continue;
        ASSERT_TRUE(intact(held.front()));
        pool->release(held.front().block);
        held.erase(held.begin());
      }
      for (const Filled& filled : held) pool->release(filled.block);
    });
  }
  for (int i = 0; i < 200; ++i) {
    pool->trim();
    const CheckResult result = pool->check();
    EXPECT_TRUE(result.ok) << result.invariant << ": " << result.text;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool->live_blocks(), 0U);
  pool->drop_reference();
}

}  // namespace
}  // namespace rtpool::pool
