// PageRuns: O(1) lists of free runs. Promises PR-1..PR-4, PD-1..PD-3 after every operation, and that no page is lost.
#include "pages/page_runs.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>
#include <vector>

namespace rtpool::pages {
namespace {

class PageRunsTest : public testing::Test {
 protected:
  static constexpr PageIndex k_pages = 64 * k_frame_pages;
  PageRunsTest() : descs_(k_descs_before + k_pages) { attach(); }
  void attach() { runs_.attach(&desc(0)); }
  PageDesc& desc(PageIndex page) { return descs_[k_descs_before + page]; }
  void expect_valid() { ASSERT_EQ(runs_.validate(k_pages), nullptr); }

  std::vector<PageDesc> descs_;
  PageRuns runs_;
};

TEST(PageRunLists, EveryRunInOrAboveItsSearchListFits) {
  for (std::uint32_t pages = 1; pages < 200'000; pages += 1 + pages / 97) {
    const unsigned above = PageRuns::list_above(pages);
    EXPECT_LE(PageRuns::list_of(pages), above);
    if (pages > 1) {
      EXPECT_LE(PageRuns::list_of(pages - 1), PageRuns::list_of(pages));
    }
    // The smallest run of the search list is at least as long as asked.
    std::uint32_t smallest = pages;
    while (smallest > 1 && PageRuns::list_of(smallest - 1) == above) --smallest;
    EXPECT_GE(PageRuns::list_of(smallest) == above ? smallest : pages, pages);
  }
  EXPECT_LT(PageRuns::list_above(k_max_pages), PageRuns::k_lists);
}

TEST_F(PageRunsTest, TakesExactlyAndMergesBothSides) {
  runs_.give(0, k_pages, true, k_pages);
  const auto a = runs_.take(10);
  const auto b = runs_.take(20);
  const auto c = runs_.take(30);
  EXPECT_TRUE(a.zero);
  EXPECT_EQ(b.first, a.first + 10);
  expect_valid();
  runs_.give(a.first, 10, false, k_pages);
  runs_.give(c.first, 30, false, k_pages);
  expect_valid();
  runs_.give(b.first, 20, false, k_pages);
  expect_valid();
  EXPECT_EQ(runs_.free_pages(), k_pages);
  EXPECT_EQ(runs_.largest(), k_pages);
  EXPECT_FALSE(runs_.take(k_pages).zero);  // a run is known to be zero only if all of it is
}

TEST_F(PageRunsTest, TakesFromTheEnd) {
  runs_.give(0, 100, true, k_pages);
  const auto end = runs_.take_end(30);
  EXPECT_EQ(end.first, 70U);
  EXPECT_TRUE(end.zero);
  expect_valid();
  EXPECT_EQ(runs_.take_end(70).first, 0U);
  EXPECT_EQ(runs_.take_end(1).first, k_no_page);
  runs_.give(0, 70, false, k_pages);
  runs_.give(70, 30, false, k_pages);
  expect_valid();
  EXPECT_EQ(runs_.largest(), 100U);
}

TEST_F(PageRunsTest, AbsentRunsAreOutOfReachUntilAWindowTakesThem) {
  runs_.give(0, 100, false, k_pages);
  runs_.give(100, 200, true, k_pages, true);
  runs_.give(300, 50, false, k_pages);
  expect_valid();
  EXPECT_EQ(runs_.take(101).first, k_no_page);
  EXPECT_EQ(runs_.absent_pages(), 200U);
  // All three are one piece; of the windows the one with the fewest absent pages is found.
  EXPECT_EQ(runs_.find_window(351, k_pages).first, k_no_page);
  EXPECT_EQ(runs_.search_window(351, k_pages).first, k_no_page);
  EXPECT_EQ(runs_.find_window(350, k_pages).first, 0U);
  const PageRuns::Window window = runs_.find_window(150, k_pages);
  EXPECT_EQ(window.first, 0U);
  EXPECT_EQ(window.absent, 50U);
  runs_.take_window(window, k_pages);
  expect_valid();
  EXPECT_EQ(runs_.absent_pages(), 150U);
  EXPECT_FALSE(runs_.join(0, 150));
  EXPECT_EQ(desc(0).pages, 150U);
  expect_valid();
  runs_.give(0, 150, false, k_pages);
  expect_valid();
}

TEST_F(PageRunsTest, WindowsMayBeginInsideARun) {
  runs_.give(0, 300, true, k_pages, true);
  runs_.give(300, 50, false, k_pages);
  const PageRuns::Window window = runs_.find_window(60, k_pages);
  EXPECT_EQ(window.first, 290U);
  EXPECT_EQ(window.absent, 10U);
  EXPECT_EQ(window.holder, 0U);
  runs_.take_window(window, k_pages);
  expect_valid();
  EXPECT_EQ(runs_.absent_pages(), 290U);
  EXPECT_EQ(runs_.free_pages(), 0U);
}

TEST_F(PageRunsTest, GrowsARunIntoItsRightNeighbour) {
  runs_.give(0, 100, false, k_pages);
  const auto run = runs_.take(10);
  EXPECT_FALSE(runs_.take_right_neighbour(run.first, 10, 91, k_pages));
  EXPECT_TRUE(runs_.take_right_neighbour(run.first, 10, 90, k_pages));
  EXPECT_EQ(desc(run.first).pages, 100U);
  EXPECT_EQ(runs_.free_pages(), 0U);
  expect_valid();
}

TEST_F(PageRunsTest, WholeUnitsAreTheLastOfTheLongestRunThatHasSome) {
  runs_.give(10, 700, false, k_pages);  // longer than a frame, without a whole one
  runs_.give(1024, 1100, false, k_pages);
  runs_.give(4000, 1500, false, k_pages);
  const auto expect = [&](std::uint32_t most, PageIndex run, PageIndex first, PageIndex end) {
    const PageRuns::Units units = runs_.whole_units(k_frame_pages, most, PageRuns::k_looks);
    EXPECT_EQ(units.run, run);
    EXPECT_EQ(units.first, first);
    EXPECT_EQ(units.end, end);
  };
  expect(1, 4000, 4608, 5120);
  expect(k_frame_pages + 1, 4000, 4096, 5120);
  expect(k_pages, 4000, 4096, 5120);
  runs_.take_whole(4000);
  expect(1, 1024, 1536, 2048);
  EXPECT_EQ(runs_.whole_units(k_frame_pages, 1, 0).run, k_no_page);
  runs_.take_whole(1024);
  EXPECT_EQ(runs_.whole_units(k_frame_pages, 1, PageRuns::k_looks).run, k_no_page);
  expect_valid();
}

TEST_F(PageRunsTest, HighestUnitsAreThoseOfTheLastRunThatHasSome) {
  runs_.give(1024, 1100, false, k_pages);
  runs_.give(2560, 600, false, k_pages);
  runs_.give(3600, 700, false, k_pages);  // no whole frame
  PageRuns::Units units = runs_.highest_units(k_frame_pages, 1, PageRuns::k_looks);
  EXPECT_EQ(units.run, 2560U);
  EXPECT_EQ(units.first, 2560U);
  EXPECT_EQ(units.end, 3072U);
  runs_.take_whole(2560);
  units = runs_.highest_units(k_frame_pages, k_pages, PageRuns::k_looks);
  EXPECT_EQ(units.run, 1024U);
  EXPECT_EQ(units.first, 1024U);
  EXPECT_EQ(units.end, 2048U);
  EXPECT_EQ(runs_.highest_units(k_frame_pages, 1, 0).run, k_no_page);
}

TEST_F(PageRunsTest, ARestLiesBesideWhatIsAbsentOfItsFrame) {
  const auto rest = [&](std::uint32_t grain, std::uint32_t most) {
    const PageRuns::Units units = runs_.rest_of_frame(grain, most, PageRuns::k_looks, k_pages);
    return std::tuple(units.run, units.first, units.end);
  };
  const std::tuple<PageIndex, PageIndex, PageIndex> none{k_no_page, 0, 0};
  runs_.give(0, k_frame_pages, true, k_pages, true);  // a whole frame, and behind it another one
  runs_.give(k_frame_pages, 100, false, k_pages);
  EXPECT_EQ(rest(1, 50), none);
  runs_.give(1100, 200, true, k_pages, true);  // inside a frame, with something free on both sides
  runs_.give(1000, 100, false, k_pages);
  runs_.give(1300, 1000, false, k_pages);
  EXPECT_EQ(rest(1, 50), std::tuple(1300U, 1300U, 1350U));
  EXPECT_EQ(rest(16, 50), std::tuple(1300U, 1300U, 1360U));
  EXPECT_EQ(rest(1, 5000), none);  // it would be a twentieth
  EXPECT_EQ(rest(1, 1000), std::tuple(1300U, 1300U, 1536U));  // as far as the frame goes
  runs_.take_whole(1300);
  EXPECT_EQ(rest(1, 50), std::tuple(1000U, 1050U, 1100U));
  EXPECT_EQ(rest(1, 200), std::tuple(1000U, 1024U, 1100U));
  runs_.take_whole(1000);
  EXPECT_EQ(rest(1, 50), none);
}

TEST_F(PageRunsTest, BehavesAsAMap) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    for (PageDesc& one : descs_) one.set(RunState::none);
    attach();
    runs_.give(0, k_pages, true, k_pages);
    std::mt19937 random(seed);
    std::map<PageIndex, std::uint32_t> taken;
    std::uint64_t held = 0;
    for (int step = 0; step < 3000; ++step) {
      if (random() % 2 == 0 || taken.empty()) {
        const std::uint32_t pages = 1U << (random() % 11);
        const std::uint32_t wanted = pages + random() % pages;
        const auto run = random() % 3 == 0 ? runs_.take_end(wanted) : runs_.take(wanted);
        if (run.first == k_no_page) continue;
        const std::uint32_t got = desc(run.first).pages;
        const auto after = taken.lower_bound(run.first);
        if (after != taken.end()) {
          ASSERT_LE(run.first + got, after->first);
        }
        if (after != taken.begin()) {
          ASSERT_GE(run.first, std::prev(after)->first + std::prev(after)->second);
        }
        taken[run.first] = got;
        held += got;
      } else {
        const auto it = std::next(taken.begin(), static_cast<long>(random() % taken.size()));
        runs_.give(it->first, it->second, false, k_pages);
        held -= it->second;
        taken.erase(it);
      }
      ASSERT_EQ(runs_.validate(k_pages), nullptr);
      ASSERT_EQ(runs_.free_pages() + held, k_pages);
    }
  }
}

}  // namespace
}  // namespace rtpool::pages
