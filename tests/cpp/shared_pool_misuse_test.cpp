// What a shared pool answers to wrong calls of its own process, and to whatever others write into its segment.
#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

struct Shared {
  char* block;
  BlockRef ref;
};

// A block of 5000 bytes that this process holds, and a handle of it.
Shared shared_block(SharedPool* pool) {
  Shared shared;
  shared.block = static_cast<char*>(pool->allocate(5000));
  BlockRange range;
  EXPECT_EQ(pool->share(shared.block, &shared.ref, &range), 0);
  return shared;
}

TEST(SharedPoolMisuse, MisuseIsReportedAndSurvived) {
  SharedPool* pool = make_pool(1 << 20);
  char* const block = static_cast<char*>(pool->allocate(100));
  int foreign = 0;
  ::testing::internal::CaptureStderr();
  pool->release(block + 64);
  pool->release(&foreign);
  pool->release(block);
  pool->release(block);
  const std::string told = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(told.find("no live block"), std::string::npos);
  EXPECT_EQ(pool->stats().common.misuses, 3U);
  expect_empty(pool);
  let_go(pool);
}

TEST(SharedPoolMisuse, FreeingTwiceTakesNoHoldOfAHandle) {
  SharedPool* pool = make_pool(4 << 20);
  const auto [block, ref] = shared_block(pool);
  pool->release(block);
  pool->release(block);
  EXPECT_EQ(pool->resize(block, 100), nullptr);
  EXPECT_EQ(pool->usable_size(block), 0U);
  EXPECT_EQ(pool->stats().common.misuses, 2U);
  EXPECT_EQ(pool->stats().common.current_count, 1U);  // the handle's
  pool->drop(ref, pool->lineage());
  expect_empty(pool);
  let_go(pool);
}

// Somebody clears who holds a block and closes it: its maker, which has it still, does not take it for free.
TEST(SharedPoolMisuse, BlocksThatAreHeldAreNotTakenBackWhateverOthersWrite) {
  SharedPool* pool = make_pool(4 << 20);
  const auto [block, ref] = shared_block(pool);
  Record& record = pool->segment().record(ref.record);
  for (Word& word : record.bits) word.store(0);
  for (Word& word : record.tickets) word.store(0);
  (void)pool->check();
  (void)pool->recover();
  EXPECT_GE(pool->usable_size(block), 5000U);
  for (unsigned i = 0; i < 8; ++i) EXPECT_NE(pool->allocate(5000), block);
  let_go(pool);
}

// Whatever stands in the shared part: no crash, no endless loop, `check` finds what it can.
TEST(SharedPoolMisuse, NoiseInTheSegmentIsSurvived) {
  for (unsigned seed = 0; seed < 150; ++seed) {
    const int status = in_child([&] {
      SharedPool* pool = make_pool(2 << 20, "", true);
      std::mt19937_64 random(seed);
      std::vector<BlockRef> refs;
      BlockRange range;
      Tenancy me;
      std::vector<void*> blocks;
      for (int i = 0; i < 20; ++i) {
        BlockRef ref;
        blocks.push_back(pool->allocate(1 + random() % 20000));
        if (i % 3 == 0 && pool->share(blocks.back(), &ref, &range) == 0) refs.push_back(ref);
      }
      const Geometry& g = pool->geometry();
      Segment& segment = pool->segment();
      // The words that others write: everything between the header and the data, our own slot's life left alone.
      auto* const words = reinterpret_cast<std::uint64_t*>(segment.base());
      const std::uint64_t first = g.processes_offset / 8 + 16 * 4;
      const std::uint64_t last = g.data_offset / 8;
      const int changes = seed % 3 == 0 ? 20000 : 40;
      for (int i = 0; i < changes; ++i) {
        const std::uint64_t value = seed % 2 == 0 ? random() : random() % 1024 * (std::uint64_t{1} << random() % 64);
        words[first + random() % (last - first)] = value;
      }
      FILE* const quiet = std::freopen("/dev/null", "w", stderr);
      for (int turn = 0; turn < 300; ++turn) {
        BlockRef ref{static_cast<std::uint32_t>(random() % (g.records + 5)), static_cast<std::uint32_t>(random() % 3)};
        if (turn % 2 == 0) ref.generation = StateWord::generation(segment.record(ref.record % g.records).state.load());
        if (pool->arrive(ref, Tenancy{static_cast<std::uint32_t>(random() % 256), 1}, &range) == 0) {
          if (range.bytes == 0 || range.offset + range.bytes > g.data_bytes) return 1;
          if (pool->depart(ref, &me) == 0 && turn % 3 == 0) pool->drop(ref, pool->lineage());
        }
        void* const block = pool->allocate(1 + random() % 300000);
        if (block != nullptr && turn % 4 != 0) pool->release(block);
      }
      for (const BlockRef& ref : refs) pool->drop(ref, pool->lineage());
      for (void* block : blocks) pool->release(block);
      (void)pool->stats();
      (void)pool->reclaim(0);
      (void)pool->recover();
      (void)pool->trim();
      (void)pool->check();
      if (quiet != nullptr) let_go(pool);
      return 0;
    });
    ASSERT_EQ(status, 0) << "seed " << seed;
  }
}

TEST(SharedPoolMisuse, ForeignFilesAreRefused) {
  int fd = -1;
  os::SharedMemory& real = os::shared_memory();
  ASSERT_EQ(real.create_nameless(os::SegmentId{{1}}, 1 << 20, 4096, &fd), 0);
  EXPECT_EQ(SharedPool::attach_fd(fd, Options{}, test::machine_shared_memory()).error, EBADMSG);
  ASSERT_EQ(real.create_nameless(os::SegmentId{{1}}, 100, 4096, &fd), 0);
  EXPECT_EQ(SharedPool::attach_fd(fd, Options{}, test::machine_shared_memory()).error, EBADMSG);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(SharedPool::attach_fd(ends[0], Options{}, test::machine_shared_memory()).error, EBADMSG);
  // One that others may write.
  const std::string name = own_name("open");
  ASSERT_EQ(real.create_named(1 << 20, &fd), 0);
  ASSERT_EQ(real.publish(fd, name.c_str()), 0);
  ASSERT_EQ(::chmod(("/dev/shm/rtpool." + name).c_str(), 0666), 0);
  Options options;
  std::strcpy(options.name, name.c_str());
  EXPECT_EQ(SharedPool::attach_name(options, test::machine_shared_memory()).error, EACCES);
  EXPECT_EQ(real.unlink_named(name.c_str()), 0);
  real.close(fd);
}

}  // namespace
}  // namespace rtpool::shared
