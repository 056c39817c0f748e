// Promises of realtime/idle_work.hpp: zeroes what is wanted, never past the deadline.
#include "realtime/idle_work.hpp"

#include <gtest/gtest.h>

#include "fake_clock.hpp"

namespace rtpool::realtime {
namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;

struct Blocks {
  test::FakeClock* clock;
  std::size_t dirty = 0;
  double cost = 0.1;  // ns a byte
  int calls = 0;
};

std::size_t clear_one(void* context, std::size_t size, std::size_t, std::size_t max_bytes) noexcept {
  auto& blocks = *static_cast<Blocks*>(context);
  ++blocks.calls;
  if (blocks.dirty == 0 || max_bytes < size) return 0;
  --blocks.dirty;
  blocks.clock->time += static_cast<os::Nanoseconds>(blocks.cost * static_cast<double>(size));
  return size;
}

TEST(IdleWork, ClearsEverythingWhenThereIsTime) {
  test::FakeClock clock;
  Blocks blocks{&clock, 3};
  IdleWork work(clock);
  EXPECT_TRUE(work.empty());
  ASSERT_TRUE(work.add(4 * k_mib, 3));
  work.set_clear(clear_one, &blocks);
  EXPECT_EQ(work.run(100'000'000), 12 * k_mib);
  EXPECT_EQ(blocks.dirty, 0U);
  EXPECT_EQ(work.run(clock.time + 100'000'000), 0U);
  EXPECT_EQ(work.bytes_cleared(), 12 * k_mib);
}

TEST(IdleWork, BeginsNoBlockAfterThePause) {
  test::FakeClock clock;
  Blocks blocks{&clock, 1000};
  IdleWork work(clock);
  work.add(100 * k_mib, 8);
  work.add(4 * k_mib, 8);
  work.set_clear(clear_one, &blocks);
  EXPECT_EQ(work.run(3'000'000'000, 25'000'000), 300 * k_mib);  // 10.5 ms each
  EXPECT_EQ(work.run(3'000'000'000, clock.time), 0U);
  EXPECT_GT(work.run(3'000'000'000), 500 * k_mib);
}

TEST(IdleWork, NeverRunsPastTheDeadline) {
  for (os::Nanoseconds idle = 0; idle < 8'000'000; idle += 50'000) {
    test::FakeClock clock;
    Blocks blocks{&clock, 1000};
    IdleWork work(clock);
    work.add(4 * k_mib, 5);
    work.set_clear(clear_one, &blocks);
    for (int i = 0; i < 200; ++i) {
      const os::Nanoseconds deadline = clock.time + idle;
      blocks.dirty = 5;
      work.run(deadline);
      ASSERT_LE(clock.time, deadline) << idle;
      clock.time = deadline + 1'000'000;
    }
  }
}

TEST(IdleWork, OneInterruptedClearingDoesNotEndTheWorkForGood) {
  test::FakeClock clock;
  Blocks blocks{&clock, 1};
  IdleWork work(clock);
  work.add(4 * k_mib, 1);
  work.set_clear(clear_one, &blocks);
  work.run(clock.time + 10'000'000);
  blocks.dirty = 1;
  blocks.cost = 50;  // preempted
  work.run(clock.time + 10'000'000);
  blocks.cost = 0.1;
  int tries = 0;
  for (blocks.dirty = 1; blocks.dirty == 1 && tries < 1000; ++tries) work.run(clock.time + 10'000'000);
  EXPECT_LT(tries, 400);
}

TEST(IdleWork, NorDoesAFirstOneThatWasInterrupted) {
  test::FakeClock clock;
  Blocks blocks{&clock, 1};
  IdleWork work(clock);
  work.add(4 * k_mib, 1);
  work.set_clear(clear_one, &blocks);
  blocks.cost = 10;
  work.run(INT64_MAX);
  blocks.cost = 0.1;
  int tries = 0;
  for (blocks.dirty = 1; blocks.dirty == 1 && tries < 20'000; ++tries) work.run(clock.time + 10'000'000);
  EXPECT_LT(tries, 10'000);
}

TEST(IdleWork, NothingToDoCostsNothing) {
  test::FakeClock clock;
  Blocks blocks{&clock, 1};
  IdleWork work(clock);
  work.set_clear(clear_one, &blocks);
  EXPECT_EQ(work.run(1'000'000'000), 0U);
  work.add(0, 4);
  work.add(64, 0);
  EXPECT_EQ(work.run(1'000'000'000), 0U);
  EXPECT_EQ(blocks.calls, 0);
  for (std::size_t i = 0; i < IdleWork::k_sizes; ++i) EXPECT_TRUE(work.add(64 * (i + 1), 1));
  EXPECT_FALSE(work.add(64, 1));
}

}  // namespace
}  // namespace rtpool::realtime
