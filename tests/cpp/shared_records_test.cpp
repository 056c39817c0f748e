// Promises of shared/records: a block lives exactly as long as somebody holds it or a handle is under way, whoever
// lets go last and however the calls of several processes fall together.
#include "shared/records.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>
#include <thread>
#include <vector>

namespace rtpool::shared {
namespace {

struct Bench {
  Bench() {
    SegmentOptions options;
    options.size = 1 << 20;
    options.prefault = false;
    EXPECT_EQ(Segment::create(os::shared_memory(), options, &segment), 0);
  }
  ~Bench() { segment.unmap(); }
  Tenancy join() {
    Tenancy tenancy;
    EXPECT_EQ(processes.join(&tenancy), 0);
    return tenancy;
  }
  Segment segment;
  Processes processes{segment};
};

int count_returned(Records& records, Tenancy owner) {
  int count = 0;
  records.drain_returned(owner, [](void* n, BlockRef) { ++*static_cast<int*>(n); }, &count);
  return count;
}

TEST(Records, OwnerLetsGoLast) {
  Bench bench;
  Records records(bench.segment, bench.processes);
  const Tenancy a = bench.join();
  const Tenancy b = bench.join();
  BlockRef ref;
  BlockRange range;
  ASSERT_EQ(records.create(a, {4096, 100}, &ref), 0);
  ASSERT_EQ(records.acquire(b, ref, false, &range), 0);
  EXPECT_EQ(range.offset, 4096U);
  EXPECT_EQ(range.bytes, 100U);
  EXPECT_FALSE(records.drop(b, ref));
  EXPECT_EQ(records.count(RecordState::alive), 1U);
  EXPECT_TRUE(records.drop(a, ref));
  EXPECT_EQ(records.acquire(b, ref, false, &range), ESTALE);
  EXPECT_EQ(records.count(RecordState::free), bench.segment.geometry().records);
}

TEST(Records, SumsAreOfAllThatWereEverUsed) {
  Bench bench;
  Records records(bench.segment, bench.processes);
  const Tenancy a = bench.join();
  const Tenancy b = bench.join();
  BlockRef refs[5];
  for (std::uint64_t i = 0; i < 5; ++i) ASSERT_EQ(records.create(a, {i * 4096, 100 + i}, &refs[i]), 0);
  // The first and the third are free again; of the last two the maker has let go.
  EXPECT_TRUE(records.drop(a, refs[0]));
  EXPECT_TRUE(records.drop(a, refs[2]));
  BlockRange range;
  for (const unsigned i : {3U, 4U}) {
    ASSERT_EQ(records.acquire(b, refs[i], false, &range), 0);
    ASSERT_EQ(records.add_ticket(b, refs[i]), 0);
    EXPECT_FALSE(records.drop(a, refs[i]));
  }
  const Records::Sums sums = records.sums();
  EXPECT_EQ(sums.alive, 3U);
  EXPECT_EQ(sums.tickets, 2U);
  EXPECT_EQ(sums.left, 2U);
  EXPECT_EQ(sums.left_bytes, 103U + 104U);
}

TEST(Records, OwnerLetsGoFirst) {
  Bench bench;
  Records records(bench.segment, bench.processes);
  const Tenancy a = bench.join();
  const Tenancy b = bench.join();
  BlockRef ref;
  BlockRange range;
  ASSERT_EQ(records.create(a, {0, 100}, &ref), 0);
  ASSERT_EQ(records.acquire(b, ref, false, &range), 0);
  EXPECT_FALSE(records.drop(a, ref));
  EXPECT_EQ(count_returned(records, a), 0);
  EXPECT_FALSE(records.drop(b, ref));
  EXPECT_EQ(count_returned(records, a), 1);
  EXPECT_EQ(count_returned(records, a), 0);
}

TEST(Records, AHandleUnderWayKeepsTheBlock) {
  Bench bench;
  Records records(bench.segment, bench.processes);
  const Tenancy a = bench.join();
  const Tenancy b = bench.join();
  BlockRef ref;
  BlockRange range;
  ASSERT_EQ(records.create(a, {0, 100}, &ref), 0);
  ASSERT_EQ(records.add_ticket(a, ref), 0);
  ASSERT_EQ(records.add_ticket(a, ref), 0);
  EXPECT_FALSE(records.drop(a, ref));
  EXPECT_EQ(records.sums().tickets, 2U);
  ASSERT_EQ(records.acquire(b, ref, false, &range), 0);
  records.take_ticket(a, ref);
  EXPECT_FALSE(records.drop(b, ref));
  EXPECT_EQ(records.count(RecordState::alive), 1U);
  ASSERT_EQ(records.acquire(b, ref, false, &range), 0);
  records.take_ticket(a, ref);
  records.take_ticket(a, ref);  // there is none any more
  EXPECT_FALSE(records.drop(b, ref));
  EXPECT_EQ(count_returned(records, a), 1);
}

TEST(Records, MoreSendersThanWords) {
  Bench bench;
  Records records(bench.segment, bench.processes);
  std::vector<Tenancy> senders;
  for (unsigned i = 0; i < k_tickets + 4; ++i) senders.push_back(bench.join());
  BlockRef ref;
  BlockRange range;
  ASSERT_EQ(records.create(senders[0], {0, 100}, &ref), 0);
  for (const Tenancy& sender : senders) {
    if (sender != senders[0]) {
      ASSERT_EQ(records.acquire(sender, ref, false, &range), 0);
    }
    ASSERT_EQ(records.add_ticket(sender, ref), 0);
  }
  for (const Tenancy& sender : senders) EXPECT_FALSE(records.drop(sender, ref));
  EXPECT_EQ(records.sums().tickets, senders.size());
  ASSERT_EQ(records.acquire(senders[1], ref, false, &range), 0);
  for (const Tenancy& sender : senders) records.take_ticket(sender, ref);
  EXPECT_EQ(records.sums().tickets, 0U);
  EXPECT_FALSE(records.drop(senders[1], ref));
  EXPECT_EQ(count_returned(records, senders[0]), 1);
}

TEST(Records, LostHandlesAreDroppedByAge) {
  Bench bench;
  Records records(bench.segment, bench.processes);
  const Tenancy a = bench.join();
  BlockRef ref;
  ASSERT_EQ(records.create(a, {0, 100}, &ref), 0);
  ASSERT_EQ(records.add_ticket(a, ref), 0);
  EXPECT_FALSE(records.drop(a, ref));
  EXPECT_EQ(records.drop_tickets(0, true), 0U);  // its sender lives
  EXPECT_EQ(records.drop_tickets(1000, false), 0U);
  EXPECT_EQ(records.drop_tickets(0, false), 1U);
  EXPECT_EQ(count_returned(records, a), 1);
}

TEST(Records, AllInUseIsAnError) {
  Bench bench;
  Records records(bench.segment, bench.processes);
  const Tenancy a = bench.join();
  std::vector<BlockRef> refs(bench.segment.geometry().records);
  for (BlockRef& ref : refs) ASSERT_EQ(records.create(a, {0, 8}, &ref), 0);
  BlockRef one_more;
  EXPECT_EQ(records.create(a, {0, 8}, &one_more), ENOSPC);
  EXPECT_TRUE(records.drop(a, refs[17]));
  ASSERT_EQ(records.create(a, {0, 8}, &one_more), 0);
  EXPECT_EQ(one_more.record, refs[17].record);
  EXPECT_NE(one_more.generation, refs[17].generation);
}

// One owner shares and sends, two others receive and drop, all in different orders; a fourth closes what it can.
// The owner gets back every block exactly once, and never one that a receiver still holds.
TEST(Records, ManyAtOnce) {
  Bench bench;
  constexpr int k_turns = 30000;
  const Tenancy owner = bench.join();
  struct Mail {
    std::atomic<std::uint64_t> slot{0};
  };
  Mail mail[2];
  std::vector<std::atomic<int>> held(bench.segment.geometry().records);
  std::atomic<int> early{0};
  std::atomic<int> lost{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t, me = bench.join()] {
      Records records(bench.segment, bench.processes);
      while (true) {
        const std::uint64_t word = mail[t].slot.exchange(0);
        if (word == 0) {
          if (stop) return;
          std::this_thread::yield();
          continue;
        }
        const BlockRef ref{static_cast<std::uint32_t>(word & 0xffff) - 1, static_cast<std::uint32_t>(word >> 32)};
        BlockRange range;
        if (records.acquire(me, ref, false, &range) != 0) {
          ++lost;
          continue;
        }
        records.take_ticket(owner, ref);
        ++held[ref.record];
        --held[ref.record];
        (void)records.drop(me, ref);
      }
    });
  }
  std::thread helper([&] {
    Records records(bench.segment, bench.processes);
    while (!stop) {
      for (std::uint32_t i = 0; i < bench.segment.geometry().records; ++i) records.try_close(i);
      std::this_thread::yield();
    }
  });
  Records records(bench.segment, bench.processes);
  std::mt19937 random(3);
  int returned = 0;
  const auto take = [](void* context, BlockRef) { ++*static_cast<int*>(context); };
  for (int turn = 0; turn < k_turns; ++turn) {
    BlockRef ref;
    while (records.create(owner, {0, 64}, &ref) != 0) {
      records.scan_returned(owner, take, &returned);
      std::this_thread::yield();
    }
    early += held[ref.record] != 0;
    const std::uint32_t to = random() % 2;
    ASSERT_EQ(records.add_ticket(owner, ref), 0);
    std::uint64_t expected = 0;
    const std::uint64_t word = (ref.record + std::uint64_t{1}) | std::uint64_t{ref.generation} << 32;
    while (!mail[to].slot.compare_exchange_weak(expected, word)) {
      expected = 0;
      std::this_thread::yield();
    }
    if (records.drop(owner, ref)) ++returned;
    if (turn % 7 == 0) records.drain_returned(owner, take, &returned);
  }
  while (mail[0].slot != 0 || mail[1].slot != 0) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  helper.join();
  records.drain_returned(owner, take, &returned);
  records.scan_returned(owner, take, &returned);
  EXPECT_EQ(returned, k_turns);
  EXPECT_EQ(early, 0);
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(records.count(RecordState::free), bench.segment.geometry().records);
}

}  // namespace
}  // namespace rtpool::shared
