// Every schedule, within bounds, of the lock-free structures: remote frees, the pending frees of the page store, the
// biased locks; pool_schedules_test.cpp has pools and their registry, shared_schedules_test.cpp shared segments. The code
// that runs is the core's own, compiled over atomics that the explorer controls. Deliberately wrong variants, here and there,
// show that it finds mistakes.
#include <gtest/gtest.h>

#include "expect_all.hpp"
#include "scheduled.hpp"

// Everything of the core comes after the line above.
#include "barrier_memory.hpp"
#include "blocks/heap_hit.hpp"
#include "fake_memory.hpp"
#include "pages/run_lock.hpp"

namespace rtpool::schedules {
namespace {

// --- heaps over a page store ------------------------------------------------------------------------------------------

struct StoreState {
  test::FakeMemory memory;
  pages::PageStore store;
  blocks::Heap* heap = nullptr;

  StoreState() {
    pages::GrowthOptions options;
    options.limit = std::size_t{2} << 20;
    options.prefault = false;
    EXPECT_EQ(store.initialise(memory, options, 1).error, 0);
    heap = new (store.take_record(sizeof(blocks::Heap), true)) blocks::Heap(store, 0, false, 0);
  }
  ~StoreState() { store.destroy(); }

  pages::PageIndex live_run(std::uint32_t pages) {
    pages::GrowthFailure failure;
    const pages::PageRuns::Taken run = store.take_or_grow(pages, &failure);
    heap->adopt_run(run, pages, std::size_t{pages} * os::k_page_size, heap->find_bin(pages));
    return run.first;
  }
  void expect_whole() {
    while (heap->drain(64)) {
    }
    expect(heap->live_count() == 0 && heap->live_bytes() == 0, "every block that was freed is taken back, once");
    expect(heap->validate() == nullptr, "the heap is whole");
    heap->flush();
    expect(store.largest_free() == store.free_bytes(), "all of it is one free run again");
    expect(store.free_bytes() == store.capacity(), "no page is lost");
    expect(store.validate() == nullptr, "the store is whole");
  }
};

class HeapSchedules : public testing::Test {
 protected:
  // `threads` get the state; `end` is run after them.
  static Outcome run(std::function<void(StoreState&)> prepare, std::vector<std::function<void(StoreState&)>> threads, Limits limits,
                     std::function<void()> end = [] {}) {
    static std::unique_ptr<StoreState> state;
    Scenario scenario;
    scenario.begin = [prepare] {
      state = std::make_unique<StoreState>();
      prepare(*state);
    };
    for (auto& thread : threads) scenario.threads.push_back([thread] { thread(*state); });
    scenario.end = [end] {
      state->expect_whole();
      end();
    };
    scenario.clean_up = [] { state.reset(); };
    return explore(scenario, limits);
  }
};

TEST_F(HeapSchedules, RemotelyFreedRunsComeBackOnce) {
  static pages::PageIndex a;
  static pages::PageIndex b;
  const auto prepare = [](StoreState& state) {
    a = state.live_run(2);
    b = state.live_run(3);
  };
  const auto free = [](StoreState& state, pages::PageIndex first) {
    std::size_t requested = 0;
    expect(state.heap->free_remote(first, &requested), "a live block can be freed");
  };
  const auto drain = [](StoreState& state) {
    state.heap->drain_runs(1);
    state.heap->drain_runs(64);
  };
  expect_all("remote runs", run(prepare, {[=](StoreState& s) { free(s, a); }, [=](StoreState& s) { free(s, b); }, drain}, {3}));
}

TEST_F(HeapSchedules, ADoubleFreeByTwoThreadsIsSeenByOne) {
  static pages::PageIndex a;
  static int freed;
  const auto prepare = [](StoreState& state) {
    a = state.live_run(2);
    freed = 0;
  };
  const auto free = [](StoreState& state) {
    std::size_t requested = 0;
    freed += state.heap->free_remote(a, &requested) ? 1 : 0;
    expect(freed <= 1, "a second free is none");
  };
  const auto drain = [](StoreState& state) { state.heap->drain_runs(64); };
  const Outcome outcome = run(prepare, {free, free, drain}, {});
  expect_all("double free", outcome);
}

TEST_F(HeapSchedules, RemotelyFreedSmallBlocksComeBackOnce) {
  static blocks::Slab* slab;
  static unsigned units[3];
  const auto prepare = [](StoreState& state) {
    pages::GrowthFailure failure;
    const unsigned cls = blocks::class_of(1000);
    expect(state.heap->add_slab(cls, true, &failure) && state.heap->refill(cls), "there is a slab");
    for (unsigned& unit : units) {
      auto* const block = static_cast<char*>(state.heap->pop_small(1000).block);
      state.heap->raise_peak();
      const auto page = static_cast<pages::PageIndex>(static_cast<std::size_t>(block - state.store.view().base) / os::k_page_size);
      slab = blocks::slab_of_page(state.store.view().descs[page], page);
      unit = static_cast<unsigned>(static_cast<std::size_t>(block - slab->base) / blocks::k_unit);
    }
  };
  const auto free = [](StoreState& state, unsigned which) {
    std::size_t requested = 0;
    expect(state.heap->free_remote(*slab, units[which], &requested), "a live block can be freed");
    expect(requested == 1000, "what was asked for is what the block was allocated with");
  };
  const auto first = [=](StoreState& s) {
    free(s, 0);
    free(s, 1);
  };
  const auto drain = [](StoreState& state) {
    state.heap->drain_class(slab->size_class, 1);
    state.heap->drain_class(slab->size_class, 64);
  };
  expect_all("remote small blocks", run(prepare, {first, [=](StoreState& s) { free(s, 2); }, drain}, {3}));
}

TEST_F(HeapSchedules, ADoubleFreeOfASmallBlockByTwoThreadsIsSeenByOne) {
  static blocks::Slab* slab;
  static unsigned unit;
  static int freed;
  const auto prepare = [](StoreState& state) {
    pages::GrowthFailure failure;
    const unsigned cls = blocks::class_of(4000);
    expect(state.heap->add_slab(cls, true, &failure) && state.heap->refill(cls), "there is a slab");
    auto* const block = static_cast<char*>(state.heap->pop_small(4000).block);
    state.heap->raise_peak();
    const auto page = static_cast<pages::PageIndex>(static_cast<std::size_t>(block - state.store.view().base) / os::k_page_size);
    slab = blocks::slab_of_page(state.store.view().descs[page], page);
    unit = static_cast<unsigned>(static_cast<std::size_t>(block - slab->base) / blocks::k_unit);
    freed = 0;
  };
  const auto free = [](StoreState& state) {
    std::size_t requested = 0;
    freed += state.heap->free_remote(*slab, unit, &requested) ? 1 : 0;
    expect(freed <= 1, "a second free is none");
  };
  const auto drain = [](StoreState& state) { state.heap->drain_class(slab->size_class, 64); };
  expect_all("double free of a small block", run(prepare, {free, free, drain}, {}));
}

// Threads with heaps of their own tell the owner later, in the end of all.
struct Outgoing {
  blocks::Slab* slab;
  unsigned units[3];
  blocks::Heap* heaps[2];
  int freed;

  void prepare(StoreState& state) {
    pages::GrowthFailure failure;
    const unsigned cls = blocks::class_of(4000);
    expect(state.heap->add_slab(cls, true, &failure) && state.heap->refill(cls), "there is a slab");
    for (unsigned& unit : units) {
      auto* const block = static_cast<char*>(state.heap->pop_small(4000).block);
      state.heap->raise_peak();
      const auto page = static_cast<pages::PageIndex>(static_cast<std::size_t>(block - state.store.view().base) / os::k_page_size);
      slab = blocks::slab_of_page(state.store.view().descs[page], page);
      unit = static_cast<unsigned>(static_cast<std::size_t>(block - slab->base) / blocks::k_unit);
    }
    for (unsigned i = 0; i < 2; ++i) {
      heaps[i] = new (state.store.take_record(sizeof(blocks::Heap), true)) blocks::Heap(state.store, i + 1, false, 0);
    }
    freed = 0;
  }
  // As PoolImpl::release_of_other.
  void free(StoreState& state, unsigned heap, unsigned which) {
    blocks::State& block = slab->states()[units[which]];
    const std::uint16_t was = block.load(std::memory_order_relaxed);
    if ((was & blocks::k_live) == 0) return;
    static_cast<void>(heaps[heap]->free_later(*state.heap, *slab, block, units[which], blocks::class_bytes(slab->size_class), 4000));
    ++freed;
  }
  void send(unsigned heap) {
    while (heaps[heap]->send_outgoing() != nullptr) --freed;
  }
};

TEST_F(HeapSchedules, OutgoingBlocksComeBackOnce) {
  static Outgoing outgoing;
  const auto frees = [](unsigned heap, std::initializer_list<unsigned> which) {
    return [heap, which = std::vector(which)](StoreState& state) {
      for (const unsigned one : which) outgoing.free(state, heap, one);
      outgoing.send(heap);
    };
  };
  const auto drain = [](StoreState& state) {
    state.heap->drain_class(outgoing.slab->size_class, 1);
    state.heap->drain_class(outgoing.slab->size_class, 64);
  };
  const auto all = [] { expect(outgoing.freed == 3, "each is freed"); };
  expect_all("outgoing blocks", run([](StoreState& state) { outgoing.prepare(state); }, {frees(0, {0, 1}), frees(1, {2}), drain}, {2}, all));
}

TEST_F(HeapSchedules, ADoubleFreeOfAnOutgoingBlockIsToldToOne) {
  static Outgoing outgoing;
  const auto free = [](unsigned heap) {
    return [heap](StoreState& state) {
      outgoing.free(state, heap, 0);
      outgoing.send(heap);
    };
  };
  const auto prepare = [](StoreState& state) {
    outgoing.prepare(state);
    for (unsigned which = 1; which < 3; ++which) outgoing.free(state, 0, which);
    outgoing.send(0);
    outgoing.freed = 0;
  };
  expect_all("double free of an outgoing block",
             run(prepare, {free(0), free(1)}, {}, [] { expect(outgoing.freed == 1, "one of the two is a free"); }));
}

// What is taken back is handed out again, while others go on freeing blocks of the slab.
TEST_F(HeapSchedules, SmallBlocksAreHandedOutOnceWhileOthersFree) {
  static blocks::Slab* slab;
  static unsigned units[2];
  static char* first;
  const auto prepare = [](StoreState& state) {
    pages::GrowthFailure failure;
    const unsigned cls = blocks::class_of(4000);
    expect(state.heap->add_slab(cls, true, &failure), "there is a slab");
    while (state.heap->refill(cls)) {
      while (auto* const block = static_cast<char*>(state.heap->pop_small(4000).block)) {
        state.heap->raise_peak();
        const auto page = static_cast<pages::PageIndex>(static_cast<std::size_t>(block - state.store.view().base) / os::k_page_size);
        slab = blocks::slab_of_page(state.store.view().descs[page], page);
        units[0] = units[1];
        units[1] = static_cast<unsigned>(static_cast<std::size_t>(block - slab->base) / blocks::k_unit);
      }
    }
    first = slab->base;
  };
  const auto free = [](unsigned which) {
    return [which](StoreState& state) {
      std::size_t requested = 0;
      expect(state.heap->free_remote(*slab, units[which], &requested), "a live block can be freed");
    };
  };
  const auto owner = [](StoreState& state) {
    const unsigned cls = blocks::class_of(4000);
    char* had[2] = {};
    for (char*& block : had) {
      state.heap->drain_class(cls, 1);
      if (!state.heap->refill(cls)) continue;
      block = static_cast<char*>(state.heap->pop_small(4000).block);
      const auto unit = static_cast<unsigned>(static_cast<std::size_t>(block - first) / blocks::k_unit);
      expect(unit == units[0] || unit == units[1], "what was freed is handed out");
    }
    expect(had[0] == nullptr || had[0] != had[1], "once");
    for (char* const block : had) {
      if (block != nullptr) state.heap->free_small(*slab, static_cast<unsigned>(static_cast<std::size_t>(block - first) / blocks::k_unit));
    }
  };
  const auto outcome = [&] {
    static std::unique_ptr<StoreState> state;
    Scenario scenario;
    scenario.begin = [&] {
      state = std::make_unique<StoreState>();
      prepare(*state);
    };
    scenario.threads = {[&] { free(0)(*state); }, [&] { free(1)(*state); }, [&] { owner(*state); }};
    scenario.end = [] {
      while (state->heap->drain(64)) {
      }
      expect(state->heap->validate() == nullptr, "the heap is whole");
      expect(state->heap->live_count() == 16 - 2, "what was freed is no longer alive");
    };
    scenario.clean_up = [] { state.reset(); };
    return explore(scenario, {2});
  };
  expect_all("small blocks handed out again", outcome());
}

TEST_F(HeapSchedules, PendingFreesAreDrainedWhole) {
  static pages::PageIndex runs[3];
  const auto prepare = [](StoreState& state) {
    pages::GrowthFailure failure;
    for (pages::PageIndex& run : runs) run = state.store.take_or_grow(3, &failure).first;
  };
  const auto taker = [](StoreState& state) {
    const pages::PageRuns::Taken run = state.store.take(4);
    if (run.first != pages::k_no_page) state.store.give(run.first, 4, false);
  };
  const auto giver = [](unsigned which) {
    return [which](StoreState& state) { state.store.give_soon(runs[which], 3, false); };
  };
  const auto two = [=](StoreState& state) {
    giver(1)(state);
    giver(2)(state);
  };
  expect_all("pending frees", run(prepare, {taker, giver(0), two}, {2}));
}

// --- the biased lock, with stores that others see late ----------------------------------------------------------------

struct LockState {
  blocks::HeapLockGuard guard;
  blocks::HeapLock lock{guard};
  std::atomic<int> point{0};
  bool owner_inside = false;
  bool stranger_inside = false;
};

Outcome explore_lock(bool with_barrier, bool slow, bool symmetric) {
  static std::unique_ptr<LockState> state;
  Scenario scenario;
  scenario.begin = [symmetric] {
    state = std::make_unique<LockState>();
    state->lock.initialise(symmetric, 0);
  };
  const auto stay = [](bool* inside, const bool* other) {
    *inside = true;
    expect(!*other, "HL-1: owner and stranger exclude each other");
    (void)state->point.load();
    expect(!*other, "HL-1: owner and stranger exclude each other");
    *inside = false;
  };
  scenario.threads.push_back([stay, slow] {
    for (int i = 0; i < 2; ++i) {
      if (!slow && state->lock.enter_fast()) {
        stay(&state->owner_inside, &state->stranger_inside);
        state->lock.leave_fast();
        continue;
      }
      if (!slow) state->lock.leave_fast();
      state->lock.enter();
      stay(&state->owner_inside, &state->stranger_inside);
      state->lock.leave();
    }
  });
  scenario.threads.push_back([stay, with_barrier] {
    state->lock.begin_stop();
    if (with_barrier) flush_all_stores();
    state->lock.await();
    stay(&state->stranger_inside, &state->owner_inside);
    state->lock.resume();
  });
  scenario.end = [] {};
  scenario.clean_up = [] { state.reset(); };
  return explore(scenario, {3, true});
}

TEST(HeapLockSchedules, OwnerAndStrangerExcludeEachOther) {
  expect_all("heap lock, fast", explore_lock(true, false, false));
  expect_all("heap lock, slow", explore_lock(true, true, false));
  expect_all("heap lock, symmetric", explore_lock(false, true, true));
}

// The explorer's own test: what a processor's store buffer does to the lock without its barrier.
TEST(HeapLockSchedules, WithoutTheBarrierTheExplorerFindsThemTogether) {
  const Outcome outcome = explore_lock(false, false, false);
  EXPECT_EQ(outcome.broken, "HL-1: owner and stranger exclude each other");
  EXPECT_FALSE(outcome.schedule.empty());
}

// --- the store's lock, biased to a thread that finds itself alone, until it is not ------------------------------------

struct RunLockState {
  BarrierMemory memory;
  std::atomic<std::uint64_t> kernel_calls{0};
  pages::RunLock lock;
  std::atomic<int> point{0};
  int inside = 0;
};

Outcome explore_run_lock(bool with_barrier, bool shared, unsigned preemptions) {
  static std::unique_ptr<RunLockState> state;
  Scenario scenario;
  scenario.begin = [with_barrier] {
    state = std::make_unique<RunLockState>();
    state->memory.flushes = with_barrier;
    state->lock.initialise(state->memory, state->kernel_calls);
  };
  const auto turn = [] {
    state->lock.lock();
    expect(++state->inside == 1, "RL-1: one thread at a time");
    (void)state->point.load();
    expect(state->inside-- == 1, "RL-1: one thread at a time");
    state->lock.unlock();
  };
  scenario.threads.push_back([turn] {
    state->lock.favour_this_thread();
    turn();
    turn();
  });
  scenario.threads.push_back([turn, shared] {
    if (shared) state->lock.share();
    turn();
  });
  scenario.end = [] {
    state->lock.lock();
    state->lock.unlock();
  };
  scenario.clean_up = [] { state.reset(); };
  return explore(scenario, {preemptions, true});
}

TEST(RunLockSchedules, OneThreadIsInsideAtATime) {
  expect_all("run lock, biased", explore_run_lock(true, false, 2));
  expect_all("run lock, biased until shared", explore_run_lock(true, true, 2));
}

TEST(RunLockSchedules, WithoutTheBarrierTheExplorerFindsTwoInside) {
  EXPECT_EQ(explore_run_lock(false, false, 2).broken, "RL-1: one thread at a time");
}

// The explorer's own test: a push that loads and stores instead of comparing and swapping loses an element.
TEST(ExplorerTest, FindsAPushWithoutCompareAndSwap) {
  static std::unique_ptr<std::atomic<int>> head;
  static int next[3];
  const auto outcome_of = [](bool right) {
    const auto push = [right](int element) {
      int first = head->load(std::memory_order_relaxed);
      if (!right) {
        next[element] = first;
        head->store(element);
        return;
      }
      do {
        next[element] = first;
      } while (!head->compare_exchange_weak(first, element));
    };
    Scenario scenario;
    scenario.begin = [] { head = std::make_unique<std::atomic<int>>(0); };
    scenario.threads = {[push] { push(1); }, [push] { push(2); }};
    scenario.end = [] {
      int elements = 0;
      for (int at = head->load(); at != 0; at = next[at]) ++elements;
      expect(elements == 2, "nothing is lost");
    };
    return explore(scenario, {});
  };
  EXPECT_EQ(outcome_of(false).broken, "nothing is lost");
  EXPECT_EQ(outcome_of(true).broken, "");
}

}  // namespace
}  // namespace rtpool::schedules
