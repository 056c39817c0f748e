// Every schedule, within bounds, of shared segments: holders that drop a block, handles that arrive, granules that change
// hands, processes that join. As schedules_test.cpp, over the core's own code.
#include <gtest/gtest.h>

#include <cerrno>

#include "expect_all.hpp"
#include "scheduled.hpp"

// Everything of the core comes after the line above.
#include "shared/address_ranges.hpp"
#include "shared/recovery.hpp"

namespace rtpool::schedules {
namespace {

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
    new_.assign(segment.base(), segment.base() + segment.mapped_bytes());
  }
  ~SegmentState() { segment.unmap(); }
  // As it was made. To make one takes the kernel ten times as long as a schedule.
  void begin_anew() {
    std::memcpy(segment.base(), new_.data(), new_.size());
    for (Records& each : records) each = Records(segment, processes);
    ref = {};
    taken = 0;
  }
  static void count_taken(void* self, BlockRef) { ++static_cast<SegmentState*>(self)->taken; }
  RecordState state_of() const { return StateWord::state(segment.record(ref.record).state.load()); }

 private:
  std::vector<char> new_;
};

class SegmentSchedules : public testing::Test {
 protected:
  using Step = std::function<void(SegmentState&)>;
  static Outcome run(Step prepare, std::vector<Step> threads, Step end, Limits limits) {
    SegmentState state;
    Scenario scenario;
    scenario.begin = [&] {
      state.begin_anew();
      prepare(state);
    };
    for (const Step& thread : threads) scenario.threads.push_back([&] { thread(state); });
    scenario.end = [&] { end(state); };
    return explore(scenario, limits);
  }
  static void make_record(SegmentState& s) { expect(s.records[0].create(s.tenancy[0], {0, 4096}, &s.ref) == 0, "a record is made"); }
  // A slab of so many granules with a block that nobody holds any more and whose owner has not been there since.
  static void make_waiting(SegmentState& s, std::uint32_t granules) {
    expect(s.granules.claim(s.tenancy[0], granules, false) == 0, "there is a slab");
    make_record(s);
    BlockRange range;
    expect(s.records[1].acquire(s.tenancy[1], s.ref, false, &range) == 0, "a block in it goes to another process");
    expect(!s.records[0].drop(s.tenancy[0], s.ref), "its maker lets go of it");
    expect(!s.records[1].drop(s.tenancy[1], s.ref), "and so does the other");
  }
  static void take_back(SegmentState& s) {
    s.records[0].drain_returned(s.tenancy[0], SegmentState::count_taken, &s);
    s.records[0].scan_returned(s.tenancy[0], SegmentState::count_taken, &s);
  }
  // What recovery does with lent runs, by the second process.
  static std::uint32_t take_uncovered(SegmentState& s) {
    (void)s.granules.mark_lent(s.tenancy[1]);
    const Coverage coverage(s.segment, s.records[1], Coverage::By::all);
    const auto covered = [](const void* context, std::uint32_t first, std::uint32_t count) {
      return static_cast<const Coverage*>(context)->has_any(first, count);
    };
    return s.granules.settle_lent(s.tenancy[1], covered, &coverage);
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

// The owner lets go, lends the run, and perhaps takes it back and lends it anew with another block in it, while the last
// holder drops its block and takes what no record covers.
TEST_F(SegmentSchedules, ALentRunIsTakenOnlyWhenNoRecordCoversIt) {
  static bool alive;
  static bool owned;
  static std::uint32_t freed;
  const auto prepare = [](SegmentState& s) {
    alive = owned = false;
    freed = 0;
    expect(s.granules.claim(s.tenancy[0], 3, false) == 0, "there is a run");
    expect(s.records[0].create(s.tenancy[0], {0, 3 * 4096}, &s.ref) == 0, "with a block");
    BlockRange range;
    expect(s.records[1].acquire(s.tenancy[1], s.ref, false, &range) == 0, "that another process holds");
  };
  const auto owner = [](SegmentState& s) {
    if (s.records[0].drop(s.tenancy[0], s.ref)) {
      owned = true;
    } else {
      expect(s.granules.lend(s.tenancy[0], 0, 3), "a run in use can be lent");
      if (s.records[0].over(s.tenancy[0], 0, &s.ref)) owned = s.granules.take_lent(s.tenancy[0], 0, 3);
    }
    if (!owned) return;
    expect(s.records[0].create(s.tenancy[0], {0, 4096}, &s.ref) == 0, "the next block");
    expect(s.records[0].add_ticket(s.tenancy[0], s.ref) == 0, "goes under way");
    alive = true;
    (void)s.records[0].drop(s.tenancy[0], s.ref);
    expect(s.granules.lend(s.tenancy[0], 0, 3), "and its run is lent");
  };
  const auto holder = [](SegmentState& s) {
    const BlockRef ref = s.ref;
    (void)s.records[1].drop(s.tenancy[1], ref);
    freed = take_uncovered(s);
  };
  const auto end = [](SegmentState& s) {
    expect(!(owned && freed != 0), "one of both has it");
    expect(!alive || s.state_of() == RecordState::alive, "a handle keeps its block");
    expect(s.granules.count_free() == s.segment.geometry().granules - (freed == 0 ? 3 : 0), "and all of it");
    expect(freed != 0 || s.segment.granule(0).load() == (GranuleWord::head(s.tenancy[0], 3) | GranuleWord::k_lent),
           "what was looked at and not taken is lent as before");
  };
  expect_all("lent runs", run(prepare, {owner, holder}, end, {2}));
}

// A block that waits for its owner, which comes just when another process borrows it: one of both has it, the owner gets it
// in the end, once, and what named it before leads to nothing.
TEST_F(SegmentSchedules, AClosedBlockIsItsOwnersOrBorrowed) {
  static bool borrowed;
  const auto prepare = [](SegmentState& s) {
    borrowed = false;
    make_waiting(s, 1);
  };
  const auto owner = [](SegmentState& s) {
    BlockRef now = s.ref;
    if (s.records[0].over(s.tenancy[0], 0, &now)) ++s.taken;
    else s.records[0].drain_returned(s.tenancy[0], SegmentState::count_taken, &s);
  };
  const auto borrower = [](SegmentState& s) {
    BlockRef mine;
    BlockRange range;
    borrowed = s.records[1].borrow(s.tenancy[1], 1, 1 << 20, &mine, &range);
    if (!borrowed) return;
    expect(s.taken == 0, "its owner has not taken it");
    expect(range.offset == 0 && range.bytes == 4096, "it is all of the block");
    BlockRange earlier;
    expect(s.records[1].acquire(s.tenancy[1], s.ref, true, &earlier) == ESTALE, "an old handle does not lead to it");
    expect(s.taken == 0, "its owner does not take it while it is borrowed");
    (void)s.records[1].drop(s.tenancy[1], mine);
  };
  const auto end = [](SegmentState& s) {
    BlockRef now = s.ref;
    if (s.taken == 0 && s.records[0].over(s.tenancy[0], 0, &now)) ++s.taken;
    take_back(s);
    expect(s.state_of() == RecordState::free, "a block that nobody holds is free");
    expect(s.taken == 1, "its owner takes it back exactly once");
  };
  expect_all("borrowing", run(prepare, {owner, borrower}, end, {2}));
}

// Its owner lends the run of a borrowed block meanwhile, or takes it back.
TEST_F(SegmentSchedules, TheRunOfABorrowedBlockStays) {
  const auto prepare = [](SegmentState& s) { make_waiting(s, 2); };
  const auto owner = [](SegmentState& s) {
    expect(s.granules.lend(s.tenancy[0], 0, 2), "a run in use can be lent");
    (void)s.granules.take_lent(s.tenancy[0], 0, 2);
  };
  const auto borrower = [](SegmentState& s) {
    BlockRef mine;
    BlockRange range;
    expect(s.records[1].borrow(s.tenancy[1], 1, 1 << 20, &mine, &range), "it waits, so it can be borrowed");
    expect(take_uncovered(s) == 0, "its run is nobody's to take");
    expect(s.segment.granule(0).load() != 0 && s.segment.granule(1).load() != 0, "and stays whole");
    BlockRef now = s.ref;
    expect(!s.records[0].over(s.tenancy[0], 0, &now) && now == mine, "its owner knows it by its new name");
  };
  const auto end = [](SegmentState& s) {
    expect(GranuleWord::tenancy(s.segment.granule(0).load()) == s.tenancy[0], "the run is its owner's");
  };
  expect_all("runs of borrowed blocks", run(prepare, {owner, borrower}, end, {2}));
}

// Somebody asks about an address in no pool while one is closed and another takes its entry. 300 lies between the begin of
// either of the two and its own end, were it as long as the other.
TEST(AddressRangeSchedules, NoAddressIsFoundInAPoolItIsNotIn) {
  struct Range {
    std::uintptr_t begin, bytes;
  };
  static std::unique_ptr<AddressRanges> ranges;
  SharedPool* const before = reinterpret_cast<SharedPool*>(0x1000);
  SharedPool* const after = reinterpret_cast<SharedPool*>(0x2000);
  for (const auto& ranges_of_one : {std::pair<Range, Range>{{100, 100}, {1000, 300}}, {{1000, 300}, {100, 100}}}) {
    const Range closed = ranges_of_one.first;  // no structured binding: Clang 14 captures none
    const Range opened = ranges_of_one.second;
    Scenario scenario;
    scenario.begin = [=] {
      ranges = std::make_unique<AddressRanges>();
      expect(ranges->add(before, closed.begin, closed.bytes), "there is room");
    };
    scenario.threads.push_back([=] { expect(ranges->find(300) == nullptr, "an address in no pool is found in none"); });
    scenario.threads.push_back([=] {
      expect(ranges->remove(before), "it is there");
      expect(ranges->add(after, opened.begin, opened.bytes), "there is room");
    });
    scenario.end = [=] {
      expect(ranges->find(opened.begin) == after, "what is open is found");
      expect(ranges->find(closed.begin) == nullptr, "what is closed is not");
    };
    scenario.clean_up = [] { ranges.reset(); };
    expect_all("address ranges", explore(scenario, {.preemptions = 3}));
  }
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
