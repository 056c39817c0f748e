// Promises of objects/arenas: which pool serves, that everything goes back to where it came from, what is learned, and that a
// frozen pool makes nobody call the kernel twice.
#include "objects/arenas.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <thread>

#include "patience.hpp"
#include "pool_fixture.hpp"

namespace rtpool::objects {
namespace {

using pool::k_mib;
using pool::Pool;

constexpr std::size_t k_arena = k_mib;

// What the interpreter had before: counts, and knows what is its own.
struct Before {
  std::map<void*, std::size_t> alive;
  int takes = 0;
  int gives = 0;
  int strangers = 0;
  bool refuses = false;

  static void* take(void* context, std::size_t bytes) {
    auto& self = *static_cast<Before*>(context);
    ++self.takes;
    if (self.refuses) return nullptr;
    void* const arena = std::aligned_alloc(4096, bytes);
    self.alive[arena] = bytes;
    return arena;
  }
  static void give(void* context, void* arena, std::size_t bytes) {
    auto& self = *static_cast<Before*>(context);
    ++self.gives;
    const auto found = self.alive.find(arena);
    if (found == self.alive.end() || found->second != bytes) {
      ++self.strangers;
      return;
    }
    self.alive.erase(found);
    std::free(arena);
  }
};

class ArenasTest : public pool::PoolTest {
 protected:
  ArenasTest() { arenas_->set_source({&before_, Before::take, Before::give}); }
  ~ArenasTest() override {
    EXPECT_EQ(before_.strangers, 0);
    EXPECT_TRUE(before_.alive.empty());
  }
  void* take() {
    void* const arena = arenas_->take(k_arena);
    if (arena != nullptr) std::memset(arena, 0x77, k_arena);
    return arena;
  }
  void give(void* arena) { arenas_->give(arena, k_arena); }

  Before before_;
  std::unique_ptr<Arenas> arenas_ = std::make_unique<Arenas>();
};

TEST_F(ArenasTest, TheSourceServesWhileNobodyHasEntered) {
  Pool& pool = make();
  EXPECT_FALSE(arenas_->has_entered(pool));
  void* const arena = take();
  EXPECT_EQ(arenas_->requests(), 1U);
  EXPECT_EQ(arenas_->arena_bytes(), k_arena);
  EXPECT_FALSE(arenas_->serving());
  EXPECT_EQ(before_.takes, 1);
  EXPECT_FALSE(Arenas::contains(arena));
  give(arena);
  EXPECT_EQ(before_.gives, 1);
  give(nullptr);
}

TEST_F(ArenasTest, EverythingGoesBackToWhereItCameFrom) {
  Pool& pool = make();
  void* const old = take();
  ASSERT_TRUE(arenas_->enter(pool));
  void* const ours = take();
  EXPECT_TRUE(pool.in_object_arena(ours));
  EXPECT_TRUE(Arenas::contains(static_cast<char*>(ours) + k_arena - 1));
  give(old);  // made before
  EXPECT_EQ(before_.gives, 1);
  arenas_->leave(pool);
  void* const young = take();  // made after
  EXPECT_FALSE(pool.in_object_arena(young));
  give(ours);
  EXPECT_EQ(pool.stats().object_kept_bytes, k_arena);
  give(young);
  EXPECT_EQ(before_.gives, 2);
  arenas_->leave(pool);  // one too many does nothing
}

TEST_F(ArenasTest, TheLastOneToEnterServesAndKeptArenasOfTheOthersGoBeforeGrowth) {
  Pool& outer = make();
  Pool& inner = make();
  arenas_->enter(outer);
  void* const first = take();
  void* const kept = take();
  EXPECT_TRUE(outer.in_object_arena(first));
  give(kept);
  arenas_->enter(inner);
  EXPECT_EQ(take(), kept);
  void* const second = take();
  EXPECT_TRUE(inner.in_object_arena(second));
  // Sections of threads overlap: the one that entered first may leave first.
  arenas_->leave(outer);
  void* const third = take();
  EXPECT_TRUE(inner.in_object_arena(third));
  arenas_->leave(inner);
  for (void* arena : {first, kept, second, third}) give(arena);
  EXPECT_EQ(before_.takes, 0);
}

TEST_F(ArenasTest, APoolMayEnterManyTimes) {
  Pool& pool = make();
  unsigned entered = 0;
  while (arenas_->enter(pool)) ++entered;
  EXPECT_EQ(entered, Arenas::k_most_entered);
  for (unsigned i = 1; i < entered; ++i) arenas_->leave(pool);
  EXPECT_TRUE(arenas_->has_entered(pool));
  void* const arena = take();
  EXPECT_TRUE(pool.in_object_arena(arena));
  arenas_->leave(pool);
  EXPECT_FALSE(arenas_->has_entered(pool));
  give(arena);
}

TEST_F(ArenasTest, APoolThatIsFullPassesOnAndCounts) {
  pool::Options options;
  options.limit = 8 * k_mib;
  Pool& pool = make(options);
  arenas_->enter(pool);
  void* held[4];
  for (void*& arena : held) arena = take();
  EXPECT_EQ(before_.takes, 2);
  EXPECT_EQ(pool.stats().object_fallbacks, 2U);
  EXPECT_EQ(pool.stats().object_misses, 4U);
  EXPECT_EQ(arenas_->frozen_misses(), 0U);
  for (void* arena : held) give(arena);
  EXPECT_EQ(before_.gives, 2);
  arenas_->leave(pool);
}

TEST_F(ArenasTest, EveryRefusalOfTheKernelPassesOn) {
  for (int refused = 0; refused < 30; ++refused) {
    test::FakeMemory memory;
    pool::Options options;
    options.lock = options.strict = true;
    const pool::CreateResult made = Pool::create(options, memory);
    arenas_->enter(*made.pool);
    memory.fail_any_at = memory.all_calls + refused;
    void* held[6];
    for (void*& arena : held) {
      arena = take();
      ASSERT_NE(arena, nullptr);
    }
    EXPECT_EQ(before_.takes - before_.gives, static_cast<int>(made.pool->stats().object_fallbacks));
    for (void* arena : held) give(arena);
    EXPECT_TRUE(made.pool->check().ok);
    arenas_->leave(*made.pool);
    made.pool->drop_reference();
    if (memory.refusals == 0) return;
  }
  FAIL() << "never came to the end";
}

TEST_F(ArenasTest, NothingAtAllIsNothing) {
  pool::Options options;
  options.limit = k_mib;  // room for no arena
  Pool& pool = make(options);
  arenas_->enter(pool);
  const int watch = arenas_->begin_watch();
  before_.refuses = true;
  EXPECT_EQ(take(), nullptr);
  const Need need = arenas_->end_watch(watch);
  EXPECT_EQ(need.alive, 0U);
  arenas_->leave(pool);
}

TEST_F(ArenasTest, WhileFrozenAMissIsPaidOnce) {
  Pool& pool = make();
  void* const old = take();
  arenas_->enter(pool);
  give(take());
  give(take());
  pool.trim();
  EXPECT_EQ(pool.prepare_object_arenas(k_arena, 1), 1U);
  pool.trim();
  EXPECT_EQ(pool.prepare_object_arenas(k_arena, 2), 2U);
  pool.freeze(pool::OnMiss::raise);
  for (int iteration = 0; iteration < 5; ++iteration) {
    void* held[4];
    for (void*& arena : held) arena = take();
    for (void* arena : held) give(arena);
  }
  give(old);  // came empty in the loop: no call either
  EXPECT_EQ(before_.takes, 1 + 2);
  EXPECT_EQ(before_.gives, 0);
  EXPECT_EQ(arenas_->frozen_misses(), 2U);
  EXPECT_EQ(pool.stats().object_fallbacks, 2U);
  pool.unfreeze();
  arenas_->leave(pool);
  EXPECT_EQ(before_.gives, 3);
}

TEST_F(ArenasTest, KeptArenasOfTheSourceGoBackOnceNothingIsFrozen) {
  Pool& pool = make();
  void* const one = take();
  void* const two = take();
  arenas_->enter(pool);
  pool.freeze(pool::OnMiss::fallback);
  give(one);
  EXPECT_EQ(before_.gives, 0);
  pool.unfreeze();
  give(two);
  EXPECT_EQ(before_.gives, 2);
  arenas_->leave(pool);
}

TEST_F(ArenasTest, APoolLivesAsLongAsItsArenas) {
  const pool::CreateResult made = Pool::create({}, memory_);
  arenas_->enter(*made.pool);
  auto* const arena = static_cast<char*>(take());
  made.pool->drop_reference();
  EXPECT_EQ(Pool::find(arena), made.pool);  // the entry holds it
  arenas_->leave(*made.pool);
  EXPECT_EQ(Pool::find(arena), made.pool);  // the arena does
  EXPECT_EQ(arena[k_arena / 2], 0x77);
  give(arena);
  EXPECT_EQ(Pool::find(arena), nullptr);
}

TEST_F(ArenasTest, WatchesSayWhatWasNeeded) {
  pool::Options options;
  options.limit = 16 * k_mib;  // four arenas, the rest from the source
  Pool& pool = make(options);
  void* const unseen = take();
  arenas_->enter(pool);
  void* const before = take();
  const int watch = arenas_->begin_watch();
  ASSERT_GE(watch, 0);
  void* held[7];
  for (int round = 0; round < 3; ++round) {
    for (void*& arena : held) arena = take();
    for (void* arena : held) give(arena);
  }
  {
    const Arenas::Unwatched unwatched(*arenas_);
    void* many[9];
    for (void*& arena : many) arena = take();
    for (void* arena : many) give(arena);
  }
  void* const stays = take();
  const int other = arenas_->begin_watch();
  give(before);  // leaves room that the next one uses
  give(take());
  EXPECT_EQ(arenas_->look_at_watch(watch).most, 7U);
  const Need need = arenas_->end_watch(watch);
  EXPECT_EQ(need.most, 7U);
  EXPECT_EQ(need.alive, 0);
  EXPECT_EQ(need.bytes, k_arena);
  EXPECT_EQ(arenas_->look_at_watch(other).alive, -1);
  give(unseen);  // one of the source's that was there before
  EXPECT_EQ(arenas_->look_at_watch(other).alive, -2);
  EXPECT_EQ(arenas_->end_watch(other).most, 0U);
  EXPECT_EQ(arenas_->look_at_watch(other).bytes, 0U);
  give(stays);
  arenas_->leave(pool);
  int watches = 0;
  while (arenas_->begin_watch() >= 0) ++watches;
  EXPECT_EQ(watches, static_cast<int>(Arenas::k_most_watches));
  EXPECT_EQ(arenas_->end_watch(-1).most, 0U);
  EXPECT_EQ(arenas_->end_watch(1000).most, 0U);
}

TEST_F(ArenasTest, WhatIsKeptOfRoomMadeForLaterIsThereAlready) {
  Pool& pool = make();
  ASSERT_TRUE(arenas_->enter(pool));
  const int watch = arenas_->begin_watch();
  void* held[5];
  for (void*& arena : held) arena = take();
  for (void* arena : held) give(arena);
  void* kept = nullptr;
  {
    const Arenas::Unwatched unwatched(*arenas_);
    kept = take();
    void* many[7];
    for (void*& arena : many) arena = take();
    for (void* arena : many) give(arena);
  }
  Need need = arenas_->look_at_watch(watch);
  EXPECT_EQ(need.most, 5U);
  EXPECT_EQ(need.alive, 1);  // four more will do
  for (int i = 0; i < 4; ++i) held[i] = take();
  for (int i = 0; i < 4; ++i) give(held[i]);
  EXPECT_EQ(arenas_->look_at_watch(watch).most, 5U);
  give(kept);
  EXPECT_EQ(arenas_->end_watch(watch).alive, 0);
  arenas_->leave(pool);
}

TEST_F(ArenasTest, SmallerPiecesDoNotHideWhatIsNeededOfArenas) {
  constexpr std::size_t k_frames = 16 << 10;
  Pool& pool = make();
  ASSERT_TRUE(arenas_->enter(pool));
  const int watch = arenas_->begin_watch();
  void* const early = arenas_->take(k_frames);
  void* held[3];
  for (void*& arena : held) arena = take();
  void* const late = arenas_->take(k_frames);
  for (void* arena : held) give(arena);
  arenas_->give(late, k_frames);
  arenas_->give(early, k_frames);
  const Need need = arenas_->end_watch(watch);
  EXPECT_EQ(need.bytes, k_arena);
  EXPECT_EQ(need.most, 3U);
  EXPECT_EQ(need.alive, 0);
  arenas_->leave(pool);
}

TEST_F(ArenasTest, AForkFindsTheLockFree) {
  Arenas& ours = arenas();
  static Before before;
  ours.set_source({&before, Before::take, Before::give});
  Pool& pool = make();
  ASSERT_TRUE(ours.enter(pool));
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop.load()) ours.give(ours.take(k_arena), k_arena);
  });
  for (int i = 0; i < 40; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      test::end_if_hung(20);
      void* const arena = ours.take(k_arena);
      std::memset(arena, 1, k_arena);
      ours.give(arena, k_arena);
      ours.leave(pool);
      ::_exit(0);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  stop = true;
  busy.join();
  ours.leave(pool);
}

}  // namespace
}  // namespace rtpool::objects
