// Every schedule, within bounds, of pools: heaps that change hands as threads end and begin, and the registry's slots. As
// schedules_test.cpp, over the core's own code.
#include <gtest/gtest.h>

#include <cstdio>

#include "expect_all.hpp"
#include "scheduled.hpp"

// Everything of the core comes after the line above.
#include "barrier_memory.hpp"
#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"

namespace rtpool::schedules {
namespace {

pool::ThreadCache g_caches[4];  // thread-local storage of each thread; the last: outside

void switch_caches(unsigned from, unsigned to) {
  g_caches[from == k_outside ? 3 : from] = pool::t_cache;
  pool::t_cache = g_caches[to == k_outside ? 3 : to];
}

// --- heaps that change hands ------------------------------------------------------------------------------------------

// A thread's end, as the destructor of its pthread key does it; freed blocks that go on afterwards find no heap.
void end_thread(pool::PoolImpl& pool, blocks::Heap& heap) {
  pool::t_cache = {};
  pool.abandon(heap);
}

TEST(PoolSchedules, AHeapHasOneOwnerWhileThreadsEndAndBegin) {
  static BarrierMemory memory;
  static pool::Pool* made;
  static blocks::Heap* heaps[3];
  static blocks::Heap* left;
  static void* block;
  Scenario scenario;
  scenario.begin = [] {
    pool::t_cache = {};
    for (pool::ThreadCache& cache : g_caches) cache = {};
    pool::Options options;
    options.prefault = false;
    made = pool::Pool::create(options, memory).pool;
    block = made->allocate(200);
    left = pool::find_heap(pool::impl(*made));
    heaps[0] = heaps[1] = heaps[2] = nullptr;
    pool::t_cache = {};  // from here on the heap is the first thread's
  };
  scenario.threads.push_back([] { end_thread(pool::impl(*made), *left); });
  const auto allocates = [](unsigned me) {
    return [me] {
      void* const mine = made->allocate(200);
      expect(mine != nullptr && mine != block, "a live block is not handed out again");
      heaps[me] = pool::t_cache.heap;
      if (me == 2) made->release(block);
      made->release(mine);
    };
  };
  scenario.threads.push_back(allocates(1));
  scenario.threads.push_back(allocates(2));
  scenario.end = [] {
    expect(heaps[1] != heaps[2], "two threads have two heaps");
    const pool::CheckResult check = made->check();
    expect(check.ok, "the pool is whole");
    if (!check.ok) std::printf("%s: %s\n", check.invariant, check.text);
    expect(made->live_blocks() == 0, "nothing is left alive");
  };
  scenario.clean_up = [] {
    pool::t_cache = {};
    made->drop_reference();
  };
  scenario.switched = switch_caches;
  expect_all("heap adoption", explore(scenario, {1}));
}

// --- a pool that is frozen ----------------------------------------------------------------------------------------------

TEST(PoolSchedules, NothingGrowsOnceFreezeHasReturned) {
  static BarrierMemory memory;
  static pool::Pool* made;
  static std::size_t frozen_at;
  Scenario scenario;
  scenario.begin = [] {
    pool::t_cache = {};
    for (pool::ThreadCache& cache : g_caches) cache = {};
    pool::Options options;
    options.prefault = false;
    options.limit = std::size_t{64} << 20;
    made = pool::Pool::create(options, memory).pool;
    made->release(made->allocate(200));
    g_caches[0] = pool::t_cache;  // the first thread has a heap, and of it nothing that serves what it asks for
    pool::t_cache = {};
  };
  scenario.threads.push_back([] {
    if (void* const block = made->allocate(std::size_t{5} << 20); block != nullptr) made->release(block);
  });
  scenario.threads.push_back([] {
    made->freeze(pool::OnMiss::raise);
    frozen_at = made->stats().capacity_bytes;
  });
  scenario.end = [] { expect(made->stats().capacity_bytes == frozen_at, "a frozen pool does not grow"); };
  scenario.clean_up = [] {
    pool::t_cache = {};
    made->unfreeze();
    made->drop_reference();
  };
  scenario.switched = switch_caches;
  expect_all("freezing", explore(scenario, {1}));
}

// --- a fork ------------------------------------------------------------------------------------------------------------

// What the child would find: another thread, with a heap or without, frees a block of the forking thread's.
void free_during_a_fork(const char* name, bool with_heap, std::size_t size) {
  static BarrierMemory memory;
  static pool::Pool* made;
  static void* block;
  static bool other_has_heap;
  static std::size_t bytes;
  other_has_heap = with_heap;
  bytes = size;
  Scenario scenario;
  scenario.begin = [] {
    for (pool::ThreadCache& cache : g_caches) cache = {};
    pool::t_cache = {};
    pool::Options options;
    options.prefault = false;
    options.zero_on_free = true;  // with a heap, too, the way of a free is the slow one
    made = pool::Pool::create(options, memory).pool;
    if (other_has_heap) {
      made->release(made->allocate(bytes));
      g_caches[0] = pool::t_cache;
      pool::t_cache = {};
    }
    block = made->allocate(bytes);
    g_caches[1] = pool::t_cache;
    pool::t_cache = {};
  };
  scenario.threads.push_back([] { made->release(block); });
  scenario.threads.push_back([] {
    pool::PoolImpl& self = pool::impl(*made);
    self.stop_for_fork();
    const std::uint64_t alive = made->usable_size(block) != 0 ? 1 : 0;
    expect(made->live_blocks() == alive, "what is freed is counted");
    self.for_each_heap([&](blocks::Heap& each) { self.send_outgoing(each); });  // as the child does
    blocks::Heap& heap = *pool::find_heap(self);
    while (heap.drain(1)) {
    }
    expect(heap.live_count() == alive, "what is freed comes back to its heap");
    self.resume_after_fork(false);
  });
  scenario.end = [] { expect(made->live_blocks() == 0, "nothing is left alive"); };
  scenario.clean_up = [] {
    pool::t_cache = {};
    made->drop_reference();
  };
  scenario.switched = switch_caches;
  expect_all(name, explore(scenario, {2}));
}

TEST(PoolSchedules, WhatIsFreedDuringAForkIsFreedOrAliveInTheChild) {
  free_during_a_fork("a small block freed during a fork", false, 200);
  free_during_a_fork("the same by a thread with a heap", true, 200);
  free_during_a_fork("a run freed during a fork", false, 20'000);
}

// --- the registry's slots ---------------------------------------------------------------------------------------------

// What the scenario below runs on.
struct Slots {
  void (*leave)(pool::PoolImpl& pool);
  void (*enter)(pool::PoolImpl& pool);
  pool::PoolImpl* (*find)(const void* address);
};

// The registry's slot as it once was: the size is read first and the begin after it, with nothing that says whether they are of
// one pool. A slot that is used again in between gives an old size with a new begin.
struct SlotWithoutVersion {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::size_t> bytes{0};  // 0: empty
  std::atomic<pool::PoolImpl*> pool{nullptr};

  void enter(pool::PoolImpl& entered) {
    begin.store(reinterpret_cast<std::uintptr_t>(entered.store_.view().base), std::memory_order_relaxed);
    pool.store(&entered, std::memory_order_release);
    bytes.store(entered.store_.reserved(), std::memory_order_release);
  }
  void leave() {
    bytes.store(0, std::memory_order_release);
    pool.store(nullptr, std::memory_order_release);
  }
  pool::PoolImpl* find(const void* address) const {
    const auto value = reinterpret_cast<std::uintptr_t>(address);
    const std::size_t size = bytes.load(std::memory_order_acquire);
    if (value - begin.load(std::memory_order_relaxed) < size) return pool.load(std::memory_order_acquire);
    return nullptr;
  }
};

// A slot that another pool takes while somebody looks: what is read of it is all of one pool.
Outcome explore_slots(const Slots& slots) {
  static BarrierMemory memory;
  static pool::PoolImpl* large;
  static pool::PoolImpl* small;
  static const char* outside;
  Scenario scenario;
  scenario.begin = [=] {
    pool::t_cache = {};
    pool::Options options;
    options.prefault = false;
    options.limit = std::size_t{8} << 20;
    large = &pool::impl(*pool::Pool::create(options, memory).pool);
    options.limit = std::size_t{2} << 20;
    small = &pool::impl(*pool::Pool::create(options, memory).pool);
    outside = static_cast<const char*>(small->arena_begin()) + small->arena_reserved();
    for (pool::PoolImpl* const each : {large, small}) {
      pool::registry_leave(*each, [](pool::PoolImpl&) noexcept {});
      each->slot_ = pool::k_no_slot;
    }
    slots.enter(*large);
  };
  scenario.threads.push_back([=] {
    slots.leave(*large);
    slots.enter(*small);
  });
  scenario.threads.push_back([=] {
    expect(slots.find(outside) != small, "an address outside of a pool is not in it");
    pool::PoolImpl* const found = slots.find(small->arena_begin());
    expect(found == nullptr || found == small, "an address of a pool is in no other");
  });
  scenario.end = [] {};
  scenario.clean_up = [=] {
    pool::t_cache = {};
    for (pool::PoolImpl* const each : {large, small}) {
      slots.leave(*each);
      each->slot_ = pool::registry_enter(*each);
      each->drop_reference();
    }
  };
  return explore(scenario, {1});
}

TEST(RegistrySchedules, AnAddressOutsideOfAPoolIsNotFoundInIt) {
  const Slots slots{
      [](pool::PoolImpl& pool) {
        if (pool.slot_ != pool::k_no_slot) pool::registry_leave(pool, [](pool::PoolImpl&) noexcept {});
        pool.slot_ = pool::k_no_slot;
      },
      [](pool::PoolImpl& pool) { pool.slot_ = pool::registry_enter(pool); },
      pool::registry_find,
  };
  expect_all("registry slots", explore_slots(slots));
}

// The explorer finds what was wrong with slots that do not say whose they are.
TEST(RegistrySchedules, ASlotWithoutAVersionIsFoundOut) {
  static SlotWithoutVersion slot;
  const Slots slots{
      [](pool::PoolImpl&) { slot.leave(); },
      [](pool::PoolImpl& pool) { slot.enter(pool); },
      [](const void* address) { return slot.find(address); },
  };
  EXPECT_EQ(explore_slots(slots).broken, "an address outside of a pool is not in it");
}

}  // namespace
}  // namespace rtpool::schedules
