// Blocks whose maker has let go of them and sleeps: free for everybody once the last process has dropped them.
#include <cerrno>
#include <vector>

#include "bytes.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

TEST(Lending, WhatAnIdleMakerMadeIsFreeForOthers) {
  for (const std::size_t size : {std::size_t{64}, std::size_t{5000}, std::size_t{20'000}, std::size_t{300'000}}) {
    Pair pair(4 << 20);
    const std::size_t count = std::min<std::size_t>((3 << 20) / size, 200);
    const pid_t maker = start_child([&] {
      for (std::size_t i = 0; i < count; ++i) {
        if (!pair.make_and_send(size)) return 1;
      }
      Pair::wait(pair.to_maker);  // idle: never looks at the pool meanwhile
      // It finds out, and goes on: the memory is somebody else's now.
      if (pair.pool->allocate(size) != nullptr) return 2;
      if (!pair.pool->check().ok) return 3;
      Pair::tell(pair.to_other);
      Pair::wait(pair.to_maker);
      for (std::size_t i = 0; i < count; ++i) {
        if (pair.pool->allocate(size) == nullptr) return 4;
      }
      return pair.pool->check().ok ? 0 : 5;
    });
    std::vector<BlockRef> refs(count);
    for (BlockRef& ref : refs) {
      BlockRange range;
      ASSERT_TRUE(pair.receive(&ref, &range));
      ASSERT_TRUE(test::all_are(0x5a, pair.pool->data() + range.offset, size));
    }
    EXPECT_EQ(pair.pool->stats().common.current_count, count);
    for (const BlockRef& ref : refs) pair.pool->drop(ref, pair.pool->lineage());
    EXPECT_EQ(pair.pool->stats().common.current_bytes, 0U);
    void* const all = pair.pool->allocate(4 << 20);
    EXPECT_NE(all, nullptr) << "nobody holds anything, size " << size;
    EXPECT_TRUE(pair.pool->check().ok);
    Pair::tell(pair.to_maker);
    ASSERT_TRUE(Pair::wait(pair.to_other));
    pair.pool->release(all);
    Pair::tell(pair.to_maker);
    EXPECT_EQ(end_of(maker), 0) << "size " << size;
    expect_empty(pair.pool);
  }
}

TEST(Lending, HandlesThatWereGivenUpAreNobodysEither) {
  Pair pair(2 << 20);
  const pid_t maker = start_child([&] {
    if (!pair.make_and_send(1 << 20)) return 1;
    Pair::wait(pair.to_maker);
    return 0;
  });
  Sent sent;
  ASSERT_EQ(::read(pair.to_other[0], &sent, sizeof sent), static_cast<ssize_t>(sizeof sent));
  EXPECT_EQ(pair.pool->allocate(2 << 20), nullptr) << "under way";
  EXPECT_EQ(pair.pool->stats().common.current_count, 1U);
  EXPECT_EQ(pair.pool->reclaim(0), 1U);
  EXPECT_EQ(pair.pool->stats().common.current_bytes, 0U);
  EXPECT_GE(pair.pool->trim(), std::size_t{1} << 20);
  void* const all = pair.pool->allocate(2 << 20);
  EXPECT_NE(all, nullptr);
  pair.pool->release(all);
  Pair::tell(pair.to_maker);
  EXPECT_EQ(end_of(maker), 0);
  expect_empty(pair.pool);
}

TEST(Lending, WhatTheMakerStillHasStays) {
  Pair pair(1 << 20);
  const pid_t maker = start_child([&] {
    // In one slab: a block of its own, one it opened again, one it let go of.
    auto* const own = static_cast<unsigned char*>(pair.pool->allocate(5000));
    std::memset(own, 0x77, 5000);
    BlockRef again;
    BlockRange range;
    void* const shared = pair.pool->allocate(5000);
    if (pair.pool->share(shared, &again, &range) != 0) return 1;
    pair.pool->release(shared);  // only the handle keeps it
    if (!pair.make_and_send(5000)) return 2;
    Pair::wait(pair.to_maker);
    for (int i = 0; i < 5000; ++i) {
      if (own[i] != 0x77) return 3;
    }
    pair.pool->release(own);
    if (pair.pool->hold(again, &range) != 0) return 4;
    pair.pool->drop(again, pair.pool->lineage());
    pair.pool->drop(again, pair.pool->lineage());
    Pair::tell(pair.to_other);
    Pair::wait(pair.to_maker);
    return 0;
  });
  BlockRef ref;
  BlockRange range;
  ASSERT_TRUE(pair.receive(&ref, &range));
  pair.pool->drop(ref, pair.pool->lineage());
  std::vector<void*> fill;
  while (void* block = pair.pool->allocate(5000)) {
    std::memset(block, 1, 5000);
    fill.push_back(block);
  }
  for (void* block : fill) pair.pool->release(block);
  EXPECT_EQ(pair.pool->stats().common.current_count, 2U);
  Pair::tell(pair.to_maker);
  ASSERT_TRUE(Pair::wait(pair.to_other));
  void* const all = pair.pool->allocate(1 << 20);
  EXPECT_NE(all, nullptr);
  pair.pool->release(all);
  Pair::tell(pair.to_maker);
  EXPECT_EQ(end_of(maker), 0);
  expect_empty(pair.pool);
}

// Records are few: those of closed blocks serve others also while their owners sleep, and the owners find out.
TEST(Lending, RecordsOfAnIdleMakerServeOthers) {
  Pair pair(4 << 20);
  const std::uint32_t records = pair.pool->geometry().records;
  const pid_t maker = start_child([&] {
    void* const kept = pair.pool->allocate(64);  // in the slab of all the others, so that these stay this process's
    for (std::uint32_t i = 0; i < records; ++i) {
      if (!pair.make_and_send(64)) return 1;
    }
    Pair::wait(pair.to_maker);
    pair.pool->release(kept);
    const Stats before = pair.pool->stats();
    (void)pair.pool->recover();
    return before.own_count == 0 && pair.pool->check().ok && pair.pool->stats().own_count == 0 ? 0 : 2;
  });
  for (std::uint32_t i = 0; i < records; ++i) {
    BlockRef ref;
    BlockRange range;
    ASSERT_TRUE(pair.receive(&ref, &range));
    pair.pool->drop(ref, pair.pool->lineage());
  }
  void* const mine = pair.pool->allocate(100);
  std::vector<BlockRef> refs(records);
  std::vector<void*> blocks;
  for (BlockRef& ref : refs) {
    BlockRange range;
    blocks.push_back(pair.pool->allocate(100));
    ASSERT_EQ(pair.pool->share(blocks.back(), &ref, &range), 0);
  }
  BlockRef one_more;
  BlockRange range;
  EXPECT_EQ(pair.pool->share(mine, &one_more, &range), ENOSPC) << "all of these are alive";
  Pair::tell(pair.to_maker);
  EXPECT_EQ(end_of(maker), 0);
  for (std::uint32_t i = 0; i < records; ++i) {
    pair.pool->release(blocks[i]);
    pair.pool->drop(refs[i], pair.pool->lineage());
  }
  pair.pool->release(mine);
  expect_empty(pair.pool);
}

}  // namespace
}  // namespace rtpool::shared
