// Every schedule, within bounds, of the lock-free structures: remote frees, the pending frees of the page store, the
// biased heap lock, heaps that change hands, records and granules of shared segments. The code that runs is the core's
// own, compiled over atomics that the explorer controls. Two deliberately wrong variants show that it finds mistakes.
#include <gtest/gtest.h>

#include "explorer.hpp"
#include "scheduled.hpp"

// Everything of the core comes after the line above.
#include "blocks/heap_hit.hpp"
#include "fake_memory.hpp"
#include "pool/pool_impl.hpp"
#include "shared/recovery.hpp"

namespace rtpool::schedules {
namespace {

void expect_all(const char* name, const Outcome& outcome) {
  std::printf("[ SCHEDULES] %s: %llu schedules, %llu choices, at most %u accesses%s\n", name,
              static_cast<unsigned long long>(outcome.schedules), static_cast<unsigned long long>(outcome.points), outcome.longest,
              outcome.exhausted ? "" : ", not exhaustive");
  testing::Test::RecordProperty("schedules", std::to_string(outcome.schedules));
  std::string order;
  for (const unsigned char step : outcome.schedule) order += std::to_string(step) + " ";
  EXPECT_EQ(outcome.broken, "") << "in the order " << order;
  EXPECT_TRUE(outcome.exhausted) << "stopped after " << outcome.schedules;
  EXPECT_GT(outcome.schedules, 1U);
}

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
    heap->adopt_run(run, pages, std::size_t{pages} * os::k_page_size);
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
  static Outcome run(std::function<void(StoreState&)> prepare, std::vector<std::function<void(StoreState&)>> threads, Limits limits) {
    static std::unique_ptr<StoreState> state;
    Scenario scenario;
    scenario.begin = [prepare] {
      state = std::make_unique<StoreState>();
      prepare(*state);
    };
    for (auto& thread : threads) scenario.threads.push_back([thread] { thread(*state); });
    scenario.end = [] { state->expect_whole(); };
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
    std::uint32_t slack = 0;
    expect(state.heap->free_remote(first, &slack), "a live block can be freed");
  };
  const auto drain = [](StoreState& state) {
    state.heap->drain(1);
    state.heap->drain(64);
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
    std::uint32_t slack = 0;
    freed += state.heap->free_remote(a, &slack) ? 1 : 0;
  };
  const auto drain = [](StoreState& state) { state.heap->drain(64); };
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
    std::uint32_t slack = 0;
    expect(state.heap->free_remote(*slab, units[which], &slack), "a live block can be freed");
    expect(slack == 1024 - 1000, "the slack is what the block was allocated with");
  };
  const auto first = [=](StoreState& s) {
    free(s, 0);
    free(s, 1);
  };
  const auto drain = [](StoreState& state) {
    state.heap->drain(1);
    state.heap->drain(64);
  };
  expect_all("remote small blocks", run(prepare, {first, [=](StoreState& s) { free(s, 2); }, drain}, {3}));
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

// --- heaps that change hands ------------------------------------------------------------------------------------------

// A kernel whose barrier is the explorer's.
class BarrierMemory final : public os::Memory {
 public:
  int process_barrier() noexcept override {
    flush_all_stores();
    return 0;
  }
  bool process_barrier_available() noexcept override { return true; }
  int reserve(std::size_t b, std::size_t a, void** o) noexcept override { return under_.reserve(b, a, o); }
  int release(void* a, std::size_t b) noexcept override { return under_.release(a, b); }
  int commit(void* a, std::size_t b) noexcept override { return under_.commit(a, b); }
  int decommit(void* a, std::size_t b) noexcept override { return under_.decommit(a, b); }
  int commit_huge(void* a, std::size_t b, std::size_t p) noexcept override { return under_.commit_huge(a, b, p); }
  int guard(void* a, std::size_t b) noexcept override { return under_.guard(a, b); }
  int prefault(void*, std::size_t) noexcept override { return 0; }
  int lock(void*, std::size_t) noexcept override { return 0; }
  int unlock(void*, std::size_t) noexcept override { return 0; }
  int advise_huge(void*, std::size_t, bool) noexcept override { return 0; }
  int discard(void* a, std::size_t b, bool l) noexcept override { return under_.discard(a, b, l); }
  int resident(const void* a, std::size_t b, std::size_t* o) noexcept override { return under_.resident(a, b, o); }
  std::size_t physical_memory() noexcept override { return std::size_t{2} << 20; }
  std::size_t available_memory() noexcept override { return 0; }
  std::size_t lockable_memory() noexcept override { return 0; }
  char transparent_huge_pages() noexcept override { return 'm'; }
  std::size_t free_huge_pages(std::size_t) noexcept override { return 0; }

 private:
  test::FakeMemory under_;
};

// A thread's end, as the destructor of its pthread key does it; freed blocks that go on afterwards find no heap.
void end_thread(pool::PoolImpl& pool, blocks::Heap& heap) {
  pool::t_cache = {};
  pool.abandon(heap);
}

TEST(PoolSchedules, AHeapHasOneOwnerWhileThreadsEndAndBegin) {
  static BarrierMemory memory;
  static pool::Pool* made;
  static pool::ThreadCache caches[4];  // thread-local storage of each thread; the last: outside
  static blocks::Heap* heaps[3];
  static blocks::Heap* left;
  static void* block;
  Scenario scenario;
  scenario.begin = [] {
    pool::t_cache = {};
    for (pool::ThreadCache& cache : caches) cache = {};
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
  scenario.switched = [](unsigned from, unsigned to) {
    caches[from == k_outside ? 3 : from] = pool::t_cache;
    pool::t_cache = caches[to == k_outside ? 3 : to];
  };
  expect_all("heap adoption", explore(scenario, {1}));
}

// --- shared segments --------------------------------------------------------------------------------------------------

using namespace shared;

struct SegmentState {
  Segment segment;
  Processes processes{segment};
  Granules granules{segment};
  Records records[2] = {Records(segment, processes), Records(segment, processes)};
  Tenancy tenancy[2];
  BlockRef ref;
  unsigned taken = 0;  // blocks their owner took back

  SegmentState() {
    SegmentOptions options;
    options.size = std::size_t{32} << 10;
    options.prefault = false;
    EXPECT_EQ(Segment::create(os::shared_memory(), options, &segment), 0);
    EXPECT_EQ(processes.join(&tenancy[0]), 0);
    EXPECT_EQ(processes.join(&tenancy[1]), 0);
  }
  ~SegmentState() { segment.unmap(); }
  static void count_taken(void* self, BlockRef) { ++static_cast<SegmentState*>(self)->taken; }
  RecordState state_of() const { return StateWord::state(segment.record(ref.record).state.load()); }
};

class SegmentSchedules : public testing::Test {
 protected:
  using Step = std::function<void(SegmentState&)>;
  static Outcome run(Step prepare, std::vector<Step> threads, Step end, Limits limits) {
    static std::unique_ptr<SegmentState> state;
    Scenario scenario;
    scenario.begin = [prepare] {
      state = std::make_unique<SegmentState>();
      prepare(*state);
    };
    for (auto& thread : threads) scenario.threads.push_back([thread] { thread(*state); });
    scenario.end = [end] { end(*state); };
    scenario.clean_up = [] { state.reset(); };
    return explore(scenario, limits);
  }
  static void make_record(SegmentState& s) { expect(s.records[0].create(s.tenancy[0], {0, 4096}, &s.ref) == 0, "a record is made"); }
  static void take_back(SegmentState& s) {
    s.records[0].drain_returned(s.tenancy[0], SegmentState::count_taken, &s);
    s.records[0].scan_returned(s.tenancy[0], SegmentState::count_taken, &s);
  }
  static void expect_taken_back_once(SegmentState& s) {
    take_back(s);
    expect(s.state_of() == RecordState::free, "a block that nobody holds is free");
    expect(s.taken == 1, "its owner takes it back exactly once");
  }
};

TEST_F(SegmentSchedules, OwnerDropsWhileAHandleArrives) {
  const auto prepare = [](SegmentState& s) {
    make_record(s);
    expect(s.records[0].add_ticket(s.tenancy[0], s.ref) == 0, "a handle goes under way");
  };
  const auto owner = [](SegmentState& s) {
    if (s.records[0].drop(s.tenancy[0], s.ref)) ++s.taken;
    s.records[0].drain_returned(s.tenancy[0], SegmentState::count_taken, &s);
  };
  const auto receiver = [](SegmentState& s) {
    BlockRange range;
    expect(s.records[1].acquire(s.tenancy[1], s.ref, false, &range) == 0, "a handle that is under way keeps its block");
    s.records[1].take_ticket(s.tenancy[0], s.ref);
    expect(range.offset == 0 && range.bytes == 4096, "and leads to it");
    expect(s.taken == 0, "a block that is held is not taken back");
    (void)s.records[1].drop(s.tenancy[1], s.ref);
  };
  expect_all("a handle arrives", run(prepare, {owner, receiver}, expect_taken_back_once, {3}));
}

TEST_F(SegmentSchedules, TwoHoldersDropAtOnce) {
  const auto prepare = [](SegmentState& s) {
    make_record(s);
    BlockRange range;
    expect(s.records[1].acquire(s.tenancy[1], s.ref, false, &range) == 0, "a block can be held");
  };
  const auto owner = [](SegmentState& s) {
    if (s.records[0].drop(s.tenancy[0], s.ref)) ++s.taken;
  };
  const auto holder = [](SegmentState& s) { (void)s.records[1].drop(s.tenancy[1], s.ref); };
  const auto third = [](SegmentState& s) { s.records[1].try_close(s.ref.record); };
  expect_all("two holders drop", run(prepare, {owner, holder, third}, expect_taken_back_once, {2}));
}

TEST_F(SegmentSchedules, AnOldHandleDoesNotDisturbTheNextBlock) {
  const auto owner = [](SegmentState& s) {
    if (s.records[0].drop(s.tenancy[0], s.ref)) ++s.taken;
    s.records[0].drain_returned(s.tenancy[0], SegmentState::count_taken, &s);
    BlockRef next;
    expect(s.records[0].create(s.tenancy[0], {4096, 4096}, &next) == 0, "the next record is made");
    if (s.records[0].drop(s.tenancy[0], next)) ++s.taken;
    s.records[0].drain_returned(s.tenancy[0], SegmentState::count_taken, &s);
  };
  const auto stale = [](SegmentState& s) {
    BlockRange range;
    const BlockRef ref = s.ref;
    if (s.records[1].acquire(s.tenancy[1], ref, false, &range) != 0) return;
    expect(range.offset == 0, "an acquired block is the one that was asked for");
    (void)s.records[1].drop(s.tenancy[1], ref);
  };
  const auto end = [](SegmentState& s) {
    take_back(s);
    expect(s.taken == 2, "both blocks are taken back, once each");
  };
  expect_all("an old handle", run(make_record, {owner, stale}, end, {3}));
}

TEST_F(SegmentSchedules, GranulesHaveOneOwner) {
  static std::uint32_t got[2];
  const auto prepare = [](SegmentState& s) {
    // Three free granules for two processes that want two each.
    expect(s.granules.claim(s.tenancy[0], s.segment.geometry().granules - 3, false) == 0, "all but three are taken");
  };
  const auto claims = [](unsigned who) {
    return [who](SegmentState& s) { got[who] = s.granules.claim(s.tenancy[who], 2, who == 1); };
  };
  const auto end = [](SegmentState& s) {
    const unsigned served = (got[0] != k_none ? 1 : 0) + (got[1] != k_none ? 1 : 0);
    expect(served <= 1, "two runs of two do not fit into three granules");
    expect(s.granules.count_free() == 3 - served * 2, "who got nothing keeps nothing");
  };
  expect_all("granules", run(prepare, {claims(0), claims(1)}, end, {4}));
}

TEST_F(SegmentSchedules, AnIdleRunIsTakenByItsOwnerOrStolen) {
  static bool woke;
  static std::uint32_t stolen;
  const auto prepare = [](SegmentState& s) {
    expect(s.granules.claim(s.tenancy[0], 3, false) == 0, "there is a run");
    expect(s.granules.offer_idle(s.tenancy[0], 0, 3), "that its owner does not use");
  };
  const auto owner = [](SegmentState& s) { woke = s.granules.take_idle(s.tenancy[0], 0, 3); };
  const auto thief = [](SegmentState& s) { stolen = s.granules.steal_all_idle(s.tenancy[1]); };
  const auto end = [](SegmentState& s) {
    expect(woke == (stolen == 0), "one of both has it");
    expect(s.granules.count_free() == s.segment.geometry().granules - (woke ? 3 : 0), "and all of it");
  };
  expect_all("idle runs", run(prepare, {owner, thief}, end, {4}));
}

TEST_F(SegmentSchedules, ProcessesGetSlotsOfTheirOwn) {
  static Tenancy got[2];
  const auto joins = [](unsigned who) {
    return [who](SegmentState& s) { expect(s.processes.join(&got[who]) == 0, "there is room"); };
  };
  const auto end = [](SegmentState& s) {
    expect(got[0].slot != got[1].slot && got[0].slot > 1 && got[1].slot > 1, "two processes have two slots");
    expect(s.processes.current(got[0]) && s.processes.current(got[1]), "and hold them");
  };
  expect_all("joining", run([](SegmentState&) {}, {joins(0), joins(1)}, end, {3}));
}

}  // namespace
}  // namespace rtpool::schedules
