// A process killed at any step: the survivors' data stay, nothing is lost, nothing stays locked.
//
// The child works through everything a process does with a pool and is killed at step 1, 2, 3, ... until it gets through.
// After each kill the parent recovers; its own blocks must be as they were, and when it has freed them too the pool must
// be empty.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <vector>

#include "bytes.hpp"
#include "shared/step.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

unsigned g_steps_until_death = 0;

void die_at_zero(Step) {
  if (g_steps_until_death != 0 && --g_steps_until_death == 0) ::raise(SIGKILL);
}

// What parent and child tell each other, in memory both see.
struct Board {
  BlockRef sent[4];
  BlockRef lent[3];  // nobody else holds them
  Tenancy sender;
};

constexpr std::size_t k_pool = 4 << 20;

// Everything a process does; small pool, so that it also comes to recovery and stealing.
int work(SharedPool* pool, const Board* board) {
  std::vector<void*> blocks;
  for (const std::size_t size : {64UL, 700UL, 5000UL, 40000UL, 300000UL}) {
    for (int i = 0; i < 3; ++i) blocks.push_back(pool->allocate(size));
  }
  BlockRef refs[3];
  BlockRange range;
  Tenancy me;
  for (int i = 0; i < 3; ++i) {
    if (pool->share(blocks[static_cast<std::size_t>(i * 5)], &refs[i], &range) != 0) return 2;
    if (pool->depart(refs[i], &me) != 0) return 3;
  }
  for (const BlockRef& ref : board->sent) {
    if (pool->arrive(ref, board->sender, &range) != 0) return 4;
  }
  for (const BlockRef& ref : board->lent) {
    if (pool->arrive(ref, board->sender, &range) != 0) return 8;
    pool->drop(ref, pool->lineage());
  }
  if (pool->depart(board->sent[0], &me) != 0) return 5;
  for (const BlockRef& ref : board->sent) pool->drop(ref, pool->lineage());
  if (pool->arrive(refs[0], me, &range) != 0) return 6;
  pool->drop(refs[0], pool->lineage());
  for (const BlockRef& ref : refs) pool->drop(ref, pool->lineage());
  for (std::size_t i = 0; i < blocks.size(); i += 2) pool->release(blocks[i]);
  // Full: takes what the parent keeps idle, and what it had lent.
  std::vector<void*> fill;
  while (void* block = pool->allocate(200000)) fill.push_back(block);
  if (fill.empty()) return 7;
  for (void* block : fill) pool->release(block);
  for (std::size_t i = 1; i < blocks.size(); i += 2) pool->release(blocks[i]);
  (void)pool->recover();
  (void)pool->trim();
  return 0;
}

TEST(Recovery, KilledAtEachStep) {
  auto* const board = new (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Board;
  unsigned at = 0;
  for (bool through = false; !through; ++at) {
    ASSERT_LT(at, 20000U);
    // The first steps one by one; the thousands of alike steps of filling and freeing in larger strides.
    const unsigned kill_at = at < 400 ? at + 1 : 400 + (at - 400) * 37;
    SharedPool* pool = make_pool(k_pool);
    ASSERT_NE(pool, nullptr);
    std::vector<unsigned char*> mine;
    for (const std::size_t size : {100UL, 9000UL, 200000UL}) {
      mine.push_back(static_cast<unsigned char*>(pool->allocate(size)));
      std::memset(mine.back(), static_cast<int>(size % 251), size);
    }
    pool->release(pool->allocate(1000000));  // idle: to be stolen
    unsigned char* sent[4];
    for (int i = 0; i < 4; ++i) {
      BlockRange range;
      sent[i] = static_cast<unsigned char*>(pool->allocate(3000));
      std::memset(sent[i], 0x40 + i, 3000);
      ASSERT_EQ(pool->share(sent[i], &board->sent[i], &range), 0);
      ASSERT_EQ(pool->depart(board->sent[i], &board->sender), 0);
    }
    for (int i = 0; i < 3; ++i) {
      BlockRange range;
      void* const block = pool->allocate(i == 0 ? 5000 : 500'000);
      ASSERT_EQ(pool->share(block, &board->lent[i], &range), 0);
      ASSERT_EQ(pool->depart(board->lent[i], &board->sender), 0);
      pool->release(block);
      pool->drop(board->lent[i], pool->lineage());
    }
    const int status = in_child([&] {
      g_steps_until_death = kill_at;
      step_hook = die_at_zero;
      const int answer = work(pool, board);
      step_hook = nullptr;
      return answer;
    });
    through = WIFEXITED(status);
    if (through) ASSERT_EQ(WEXITSTATUS(status), 0) << "at " << kill_at;
    else ASSERT_EQ(WTERMSIG(status), SIGKILL) << "at " << kill_at;

    const pool::CheckResult check = pool->check();
    ASSERT_TRUE(check.ok) << "at " << kill_at << ": " << check.invariant << " " << check.text;
    std::size_t k = 0;
    for (const std::size_t size : {100UL, 9000UL, 200000UL}) {
      ASSERT_TRUE(test::all_are(static_cast<unsigned char>(size % 251), mine[k], size)) << "at " << kill_at;
      pool->release(mine[k++]);
    }
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(test::all_are(static_cast<unsigned char>(0x40 + i), sent[i], 3000)) << "at " << kill_at;
      pool->drop(board->sent[i], pool->lineage());
      pool->release(sent[i]);
    }
    (void)pool->reclaim(0);  // handles the child did not take, or sent
    expect_empty(pool);
    ASSERT_FALSE(::testing::Test::HasFailure()) << "at " << kill_at;
    EXPECT_EQ(pool->stats().processes, 1U);
    pool->close();
    pool->drop_reference();
  }
  RecordProperty("steps", static_cast<int>(at));
  ::munmap(board, 4096);
}

// A process dies while it recovers another dead one, at each step of that.
TEST(Recovery, KilledWhileRecovering) {
  bool through = false;
  for (unsigned at = 1; !through; ++at) {
    ASSERT_LT(at, 5000U);
    SharedPool* pool = make_pool(1 << 20);
    const int first = in_child([&] {
      for (int i = 0; i < 5; ++i) {
        void* const block = pool->allocate(20000);
        BlockRef ref;
        BlockRange range;
        Tenancy me;
        if (pool->share(block, &ref, &range) != 0 || (i % 2 == 0 && pool->depart(ref, &me) != 0)) return 1;
      }
      ::raise(SIGKILL);
      return 0;
    });
    ASSERT_TRUE(WIFSIGNALED(first));
    const int second = in_child([&] {
      g_steps_until_death = at;
      step_hook = die_at_zero;
      const bool done = pool->recover();
      step_hook = nullptr;
      return done ? 0 : 1;
    });
    through = WIFEXITED(second);
    EXPECT_TRUE(pool->recover());
    EXPECT_EQ(pool->stats().shared_count, 3U);  // what is under way stays
    (void)pool->reclaim(0);
    expect_empty(pool);
    ASSERT_FALSE(::testing::Test::HasFailure()) << "at " << at;
    pool->close();
    pool->drop_reference();
  }
}

// --- processes that stand still -----------------------------------------------------------------------------------------

struct Crossing {
  std::atomic<unsigned> standing{0};
  std::atomic<bool> given{false};
  std::atomic<bool> opened{false};
  std::atomic<bool> let_go{false};
  std::atomic<bool> go{false};
  BlockRef ref;
  Tenancy sender;
};

Crossing* g_crossing = nullptr;
Step g_stand_at = Step::count;

void await(const std::atomic<bool>& flag) {
  while (!flag.load()) ::usleep(100);
}

void stand_still(Step at) {
  if (at != g_stand_at) return;
  g_stand_at = Step::count;
  g_crossing->standing.fetch_add(1);
  await(g_crossing->go);
}

// One process has let go of a block and not yet closed it, another one recovers, so that the check can do neither before
// it looks: the segment is whole all the same (SH-4).
TEST(Recovery, ABlockThatIsAboutToBeClosedIsNoDamage) {
  void* const memory = ::mmap(nullptr, sizeof(Crossing), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  g_crossing = new (memory) Crossing;
  SharedPool* const pool = make_pool(1 << 20);
  const pid_t holder = start_child([&] {
    await(g_crossing->given);
    BlockRange range;
    if (pool->arrive(g_crossing->ref, g_crossing->sender, &range) != 0) return 1;
    g_crossing->opened = true;
    await(g_crossing->let_go);
    g_stand_at = Step::drop_cleared;
    step_hook = stand_still;
    pool->drop(g_crossing->ref, pool->lineage());
    return 0;
  });
  const pid_t recoverer = start_child([&] {
    await(g_crossing->opened);
    g_stand_at = Step::recovery_marked;
    step_hook = stand_still;
    return pool->recover() ? 0 : 1;
  });
  void* const block = pool->allocate(5000);
  BlockRange range;
  EXPECT_EQ(pool->share(block, &g_crossing->ref, &range), 0);
  EXPECT_EQ(pool->depart(g_crossing->ref, &g_crossing->sender), 0);
  g_crossing->given = true;
  await(g_crossing->opened);
  pool->drop(g_crossing->ref, pool->lineage());
  pool->release(block);
  while (g_crossing->standing.load() < 1) ::usleep(100);
  g_crossing->let_go = true;
  while (g_crossing->standing.load() < 2) ::usleep(100);
  const pool::CheckResult check = pool->check();
  EXPECT_TRUE(check.ok) << check.invariant << ": " << check.text;
  g_crossing->go = true;
  EXPECT_EQ(end_of(holder), 0);
  EXPECT_EQ(end_of(recoverer), 0);
  expect_empty(pool);
  pool->close();
  pool->drop_reference();
  ::munmap(memory, sizeof(Crossing));
}

void let_the_other_go(Step at) {
  if (at != Step::recovery_refused) return;
  g_crossing->go = true;
  await(g_crossing->opened);
}

// What a process needs comes back through the one that recovers just now.
TEST(Recovery, OneThatNeedsMemoryWaitsForOneThatRecovers) {
  void* const memory = ::mmap(nullptr, sizeof(Crossing), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  g_crossing = new (memory) Crossing;
  SharedPool* const pool = make_pool(1 << 20);
  const int dead = in_child([&] {
    if (pool->allocate(1 << 20) == nullptr) return 1;
    ::raise(SIGKILL);
    return 0;
  });
  ASSERT_TRUE(WIFSIGNALED(dead));
  const pid_t recoverer = start_child([&] {
    g_stand_at = Step::recovery_locked;
    step_hook = stand_still;
    const bool recovered = pool->recover();
    g_crossing->opened = true;
    return recovered ? 0 : 1;
  });
  while (g_crossing->standing.load() < 1) ::usleep(100);
  step_hook = let_the_other_go;
  void* const all = pool->allocate(1 << 20);
  step_hook = nullptr;
  EXPECT_NE(all, nullptr);
  pool->release(all);
  EXPECT_EQ(end_of(recoverer), 0);
  expect_empty(pool);
  pool->close();
  pool->drop_reference();
  ::munmap(memory, sizeof(Crossing));
}

}  // namespace
}  // namespace rtpool::shared
