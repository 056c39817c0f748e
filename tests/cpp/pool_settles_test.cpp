// Loops settle: however much their sizes add up to, after some iterations they find all of them in the pool.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

using PoolSettlesTest = PoolTest;

// A loop whose sizes add up to far more than is ever alive in it at once settles.
TEST_F(PoolSettlesTest, LoopsSettleWithoutTheKernel) {
  memory_.physical = std::size_t{1} << 40;
  Pool& pool = make();
  const auto iteration = [&] {
    for (std::size_t i = 0; i < 24; ++i) {
      void* const a = pool.allocate((20 + i) * k_mib);
      void* const b = pool.allocate((3 + i * i) * 70'001);
      pool.release(a);
      pool.release(b);
    }
  };
  for (int i = 0; i < 8; ++i) iteration();
  const int calls = memory_.all_calls;
  for (int i = 0; i < 20; ++i) iteration();
  EXPECT_EQ(memory_.all_calls, calls);
}

// As well where what is missing is had by giving up the loop's other sizes: they are missed again, if without a kernel call. Pictures
// of 640 x 480 as 64-bit floats, in three colours, grey and cut, with a block for each operation.
TEST_F(PoolSettlesTest, LoopsThatServeThemselvesSettle) {
  memory_.physical = std::size_t{1} << 40;
  Pool& pool = make();
  constexpr std::size_t k_grey = std::size_t{640} * 480 * 8;
  constexpr std::size_t k_cut = std::size_t{638} * 478 * 8;
  const auto combine = [&](std::size_t size, void* one, void* other) {
    void* const result = pool.allocate(size);
    for (void* const block : {one, other}) pool.release(block);
    return result;
  };
  const auto iteration = [&] {
    void* const colours = combine(3 * k_grey, pool.allocate(3 * k_grey), nullptr);
    void* const red = pool.allocate(k_grey);
    void* const two = combine(k_grey, red, pool.allocate(k_grey));
    void* const grey = combine(k_grey, two, pool.allocate(k_grey));
    void* const three = combine(k_cut, pool.allocate(k_cut), nullptr);
    void* const blurred = combine(k_cut, three, nullptr);
    void* const mask = pool.allocate(k_cut / 8);
    for (void* const block : {mask, blurred, grey, colours}) pool.release(block);
  };
  for (int i = 0; i < 10; ++i) iteration();
  const std::uint64_t misses = pool.stats().misses;
  for (int i = 0; i < 100; ++i) iteration();
  EXPECT_EQ(pool.stats().misses, misses);
}

// Small loops of many threads: what the pool may hold beside its peak counts for each of them, and what they repeat is told by
// their share. Else each of sixteen threads has all others stopped, again and again, for the whole run. They take turns, so that it is
// the same every time.
TEST_F(PoolSettlesTest, SmallLoopsOfManyThreadsSettle) {
  constexpr unsigned k_threads = 16;
  constexpr unsigned k_slices = 40;
  constexpr int k_pairs = 1000;
  memory_.physical = std::size_t{1} << 40;
  Pool& pool = make();
  std::atomic<unsigned> turn{0};
  std::uint64_t calls = 0;
  std::uint64_t misses = 0;
  std::vector<std::thread> threads;
  for (unsigned me = 0; me < k_threads; ++me) {
    threads.emplace_back([&, me] {
      std::mt19937_64 random(me);
      std::vector<void*> live(16);
      for (unsigned slice = 0; slice < k_slices; ++slice) {
        for (unsigned now = turn; now != me + k_threads * slice; now = turn) turn.wait(now);
        if (me == 0 && slice == k_slices / 2) {
          calls = pool.stats().kernel_calls;
          misses = pool.stats().misses;
        }
        for (int pair = 0; pair < k_pairs; ++pair) {
          void*& slot = live[random() % live.size()];
          pool.release(slot);
          const std::size_t power = std::size_t{1} << (6 + random() % 10);
          slot = pool.allocate(power + random() % power);
        }
        ++turn;
        turn.notify_all();
      }
      for (void* const block : live) pool.release(block);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(pool.stats().kernel_calls - calls, 4 * k_threads);
  EXPECT_LE(pool.stats().misses - misses, k_threads * k_slices / 2 * k_pairs / 500);
  expect_ok(pool);
}

}  // namespace
}  // namespace rtpool::pool
