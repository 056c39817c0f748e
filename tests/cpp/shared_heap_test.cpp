// Promises of shared/heap and shared/granules: blocks are disjoint and aligned, runs come back whole, what others stole
// is found out. The invariants are validated after every operation.
#include "shared/heap.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>
#include <vector>

#include "shared/processes.hpp"

namespace rtpool::shared {
namespace {

// A segment with several processes in it, all played by this one.
struct HeapBench {
  explicit HeapBench(std::uint64_t size) {
    SegmentOptions options;
    options.size = size;
    options.prefault = false;
    EXPECT_EQ(Segment::create(os::shared_memory(), options, &segment), 0);
  }
  ~HeapBench() { segment.unmap(); }
  Tenancy join() {
    Processes processes(segment);
    Tenancy tenancy;
    EXPECT_EQ(processes.join(&tenancy), 0);
    return tenancy;
  }
  Segment segment;
  Granules granules{segment};
};

void expect_sound(const Heap* heap) {
  const char* id = "";
  const std::uint32_t at = heap->check(&id);
  ASSERT_EQ(at, k_none) << id << " at granule " << at;
}

// Found by fuzzing: granules of a live block that another process had marked free were claimed a second time, so that two
// live blocks lay in the same memory.
TEST(Heap, LiveBlocksAreNotHandedOutAgainWhateverOthersWrite) {
  for (const std::uint64_t size : {std::uint64_t{300}, std::uint64_t{20'000}}) {
    HeapBench bench(64 << 10);
    Heap* heap = Heap::make(bench.segment, bench.granules, bench.join());
    const std::uint64_t kept = heap->take_new(size);
    ASSERT_NE(kept, k_no_block);
    const std::uint64_t granted = heap->granted(heap->find(kept));
    for (std::uint32_t g = 0; g < bench.segment.geometry().granules; ++g) bench.segment.granule(g).store(0);
    for (int turn = 0; turn < 40; ++turn) {
      const std::uint64_t other = heap->take_new(turn % 2 == 0 ? 40 : 9000);
      if (other == k_no_block) continue;
      const Block block = heap->find(other);
      ASSERT_TRUE(block);
      EXPECT_TRUE(other + heap->granted(block) <= kept || kept + granted <= other);
    }
    ASSERT_TRUE(heap->find(kept));
    heap->give(heap->find(kept));
    heap->destroy();
  }
}

TEST(Heap, AgreesWithAMapOverRandomWork) {
  for (const std::uint64_t size : {std::uint64_t{1} << 20, std::uint64_t{64} << 20, std::uint64_t{700} << 20}) {
    HeapBench bench(size);
    Heap* heap = Heap::make(bench.segment, bench.granules, bench.join());
    std::map<std::uint64_t, std::uint64_t> model;  // offset -> granted
    std::vector<std::uint64_t> order;
    std::mt19937_64 random(size);
    for (int turn = 0; turn < 6000; ++turn) {
      if (random() % 5 < 3) {
        const std::uint64_t wanted = 1 + random() % (std::uint64_t{1} << random() % 22);
        std::uint64_t offset = heap->take(wanted);
        if (offset == k_no_block) offset = heap->take_new(wanted);
        if (offset == k_no_block && heap->trim() != 0) offset = heap->take_new(wanted);
        if (offset != k_no_block) {
          const Block block = heap->find(offset);
          ASSERT_TRUE(block);
          const std::uint64_t granted = heap->granted(block);
          ASSERT_GE(granted, wanted);
          ASSERT_EQ(heap->requested(block), wanted);
          ASSERT_EQ(offset % (wanted >= 4033 ? 4096 : 64), 0U);
          ASSERT_LE(offset + granted, bench.segment.geometry().data_bytes);
          const auto above = model.lower_bound(offset);
          ASSERT_TRUE(above == model.end() || offset + granted <= above->first);
          ASSERT_TRUE(above == model.begin() || offset >= std::prev(above)->first + std::prev(above)->second);
          ASSERT_EQ(heap->offset_of(heap->find_around(offset + granted - 1)), offset);
          ASSERT_FALSE(heap->find(offset + 1));
          model[offset] = granted;
          order.push_back(offset);
        }
      } else if (!order.empty()) {
        const std::size_t at = random() % order.size();
        const std::uint64_t offset = order[at];
        order[at] = order.back();
        order.pop_back();
        heap->give(heap->find(offset));
        ASSERT_FALSE(heap->find(offset));
        model.erase(offset);
      }
      ASSERT_EQ(heap->counts().current_count, model.size());
      if (turn % 16 == 0) expect_sound(heap);
    }
    for (const auto& [offset, granted] : model) heap->give(heap->find(offset));
    expect_sound(heap);
    EXPECT_EQ(heap->counts().current_bytes, 0U);
    EXPECT_EQ(heap->counts().requested_bytes, 0U);
    heap->trim();
    EXPECT_EQ(bench.granules.count_free(), bench.segment.geometry().granules);
    heap->destroy();
  }
}

TEST(Heap, LastFreedComesFirst) {
  HeapBench bench(16 << 20);
  Heap* heap = Heap::make(bench.segment, bench.granules, bench.join());
  for (const std::uint64_t size : {64U, 1000U, 5000U, 100000U, 4000000U}) {
    const std::uint64_t first = heap->take_new(size);
    const std::uint64_t second = heap->take_new(size);
    heap->give(heap->find(first));
    heap->give(heap->find(second));
    EXPECT_EQ(heap->take(size), second);
    heap->give(heap->find(second));
    expect_sound(heap);
  }
  heap->destroy();
}

TEST(Heap, IdleRunsAreStolenAndTheVictimFindsOut) {
  HeapBench bench(8 << 20);
  const Tenancy mine = bench.join();
  const Tenancy other = bench.join();
  Heap* heap = Heap::make(bench.segment, bench.granules, mine);
  const std::uint64_t kept = heap->take_new(100);
  const std::uint64_t large = heap->take_new(6 << 20);
  heap->give(heap->find(large));
  EXPECT_EQ(bench.granules.claim(other, (6 << 20) >> 12, false), k_none);
  EXPECT_EQ(bench.granules.steal_all_idle(other), std::uint32_t{(6 << 20) >> 12});
  const std::uint32_t taken = bench.granules.claim(other, (6 << 20) >> 12, false);
  EXPECT_NE(taken, k_none);
  EXPECT_EQ(heap->take(6 << 20), k_no_block);
  EXPECT_TRUE(heap->find(kept));
  expect_sound(heap);
  // Claimed again by the victim, over where the stolen run was.
  bench.granules.release(other, taken, (6 << 20) >> 12);
  const std::uint64_t again = heap->take_new(6 << 20);
  EXPECT_NE(again, k_no_block);
  expect_sound(heap);
  heap->destroy();
}

TEST(Granules, ThreadsNeverGetTheSame) {
  HeapBench bench(4 << 20);
  std::vector<std::atomic<int>> owners(bench.segment.geometry().granules);
  std::vector<std::thread> threads;
  std::atomic<int> clashes{0};
  for (int t = 1; t <= 3; ++t) {
    threads.emplace_back([&, t, tenancy = bench.join()] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int turn = 0; turn < 3000; ++turn) {
        const std::uint32_t count = 1 + random() % 300;
        const std::uint32_t first = bench.granules.claim(tenancy, count, turn % 2 == 0);
        if (first == k_none) continue;
        for (std::uint32_t i = 0; i < count; ++i) clashes += owners[first + i].exchange(t) != 0;
        for (std::uint32_t i = 0; i < count; ++i) owners[first + i] = 0;
        bench.granules.release(tenancy, first, count);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(clashes, 0);
  EXPECT_EQ(bench.granules.count_free(), bench.segment.geometry().granules);
}

// Two take blocks in and out of idle while a third steals all it can: no block has two owners.
TEST(Granules, StealingAgainstReuse) {
  HeapBench bench(2 << 20);
  std::vector<std::atomic<int>> owners(bench.segment.geometry().granules);
  std::atomic<int> clashes{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 1; t <= 2; ++t) {
    threads.emplace_back([&, t, tenancy = bench.join()] {
      Heap* heap = Heap::make(bench.segment, bench.granules, tenancy);
      std::mt19937 random(static_cast<unsigned>(t));
      for (int turn = 0; turn < 20000; ++turn) {
        const std::uint64_t size = (1 + random() % 20) * 40000;
        std::uint64_t offset = heap->take(size);
        if (offset == k_no_block) offset = heap->take_new(size);
        if (offset == k_no_block) continue;
        const auto first = static_cast<std::uint32_t>(offset >> 12);
        const auto count = static_cast<std::uint32_t>(heap->granted(heap->find(offset)) >> 12);
        for (std::uint32_t i = 0; i < count; ++i) clashes += owners[first + i].exchange(t) != 0;
        for (std::uint32_t i = 0; i < count; ++i) owners[first + i] = 0;
        heap->give(heap->find(offset));
      }
      heap->trim();
      heap->destroy();
    });
  }
  std::thread thief([&, tenancy = bench.join()] {
    while (!stop) bench.granules.steal_all_idle(tenancy);
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  thief.join();
  EXPECT_EQ(clashes, 0);
  EXPECT_EQ(bench.granules.count_free(), bench.segment.geometry().granules);
}

}  // namespace
}  // namespace rtpool::shared
