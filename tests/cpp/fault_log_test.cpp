// Promises of realtime/fault_log.hpp: FL-1, FL-2, whatever the addresses; fixed room.
#include "realtime/fault_log.hpp"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>

namespace rtpool::realtime {
namespace {

class FaultLogTest : public ::testing::Test {
 protected:
  std::uint64_t total() const {
    std::uint64_t sum = log->unplaced();
    for (std::size_t i = 0; i < log->count(); ++i) sum += log->entry(i).count;
    return sum;
  }
  void expect_distinct() const {
    std::map<std::pair<std::uintptr_t, std::uintptr_t>, int> seen;
    for (std::size_t i = 0; i < log->count(); ++i) {
      const FaultEntry& entry = log->entry(i);
      const std::uintptr_t granule = log->granule() != 0 ? entry.address / log->granule() : 0;
      EXPECT_EQ((++seen[{entry.instruction, granule}]), 1);
    }
  }
  std::unique_ptr<FaultLog> log = std::make_unique<FaultLog>();
};

TEST_F(FaultLogTest, CountsByInstructionAndPage) {
  log->expect(7, true);
  log->faulted({0x1000, 1});
  log->faulted({0x1FFF, 1});
  log->faulted({0x1000, 2});
  log->expect(9, true);
  log->faulted({0x1800, 1});
  ASSERT_EQ(log->count(), 2U);
  EXPECT_EQ(log->entry(0).count, 3U);
  EXPECT_EQ(log->entry(0).first, 7U);
  EXPECT_EQ(log->entry(0).address, 0x1000U);
  EXPECT_EQ(log->entry(1).count, 1U);
  log->clear();
  EXPECT_EQ(log->count(), 0U);
  log->faulted({0x1000, 1});
  EXPECT_EQ(log->entry(0).count, 1U);
}

TEST_F(FaultLogTest, FaultsThatAreNotToBeKeptAreNot) {
  log->expect(0, false);
  log->faulted({0x1000, 1});
  log->mapped({0x1000, 0x2000, true, "/lib/late.so"});
  EXPECT_EQ(log->count(), 0U);
  EXPECT_NE(log->late_file(0x1000), nullptr);
}

TEST_F(FaultLogTest, EverNewPagesJoinAndStayCounted) {
  for (std::uint64_t page = 0; page < 100'000; ++page) {
    log->expect(page, true);
    log->faulted({0x7F0000000000 + page * 4096, 1 + page % 3});
    ASSERT_LE(log->count(), FaultLog::k_entries);
  }
  EXPECT_EQ(total(), 100'000U);
  EXPECT_EQ(log->unplaced(), 0U);
  expect_distinct();
  EXPECT_GT(log->granule(), 4096U);
  EXPECT_LT(log->granule(), 2U << 20);  // no coarser than it must be
  std::uint64_t first = UINT64_MAX;
  for (std::size_t i = 0; i < log->count(); ++i) first = std::min(first, log->entry(i).first);
  EXPECT_EQ(first, 0U);
}

TEST_F(FaultLogTest, AJoinedEntryStandsWithItsEarliestFault) {
  log->expect(5, true);
  log->faulted({0x3000, 1});
  log->expect(2, true);
  log->faulted({0x4000, 1});
  for (std::uint64_t i = 0; log->granule() == 4096; ++i) {
    log->expect(100 + i, true);
    log->faulted({0x100000 + i * 0x10000, 2});
  }
  const FaultEntry* joined = nullptr;
  for (std::size_t i = 0; i < log->count(); ++i) {
    if (log->entry(i).instruction == 1) joined = &log->entry(i);
  }
  ASSERT_NE(joined, nullptr);
  EXPECT_EQ(joined->count, 2U);
  EXPECT_EQ(joined->first, 2U);
  EXPECT_EQ(joined->address, 0x4000U);
}

TEST_F(FaultLogTest, MoreInstructionsThanRoomAreCountedApart) {
  for (std::uint64_t i = 0; i < 3 * FaultLog::k_entries; ++i) log->faulted({i << 40, i});
  EXPECT_EQ(total(), 3 * FaultLog::k_entries);
  EXPECT_EQ(log->unplaced(), 2 * FaultLog::k_entries);
  EXPECT_EQ(log->granule(), 0U);
  expect_distinct();
  log->clear();
  EXPECT_EQ(log->granule(), 4096U);
  EXPECT_EQ(total(), 0U);
}

TEST_F(FaultLogTest, AgreesWithAModelUnderRandomFaults) {
  std::mt19937_64 random(1);
  std::map<std::uintptr_t, std::uint64_t> model;  // by instruction
  for (int i = 0; i < 200'000; ++i) {
    const std::uintptr_t instruction = random() % 50;
    log->faulted({(random() & 0xFFFFFFFF) << (random() % 16), instruction});
    ++model[instruction];
  }
  std::map<std::uintptr_t, std::uint64_t> got;
  for (std::size_t i = 0; i < log->count(); ++i) got[log->entry(i).instruction] += log->entry(i).count;
  EXPECT_EQ(got, model);
  expect_distinct();
}

TEST_F(FaultLogTest, TheFileMappedLastOverAnAddressAnswers) {
  EXPECT_EQ(log->late_file(0x1000), nullptr);
  log->mapped({0x1000, 0x3000, false, "/data/a"});
  log->mapped({0x2000, 0x3000, true, "/lib/b.so"});
  log->mapped({0x1000, 0x3000, false, "/data/c"});
  EXPECT_STREQ(log->late_file(0x1000)->name, "/data/c");
  EXPECT_STREQ(log->late_file(0x2FFF)->name, "/lib/b.so");
  EXPECT_TRUE(log->late_file(0x2FFF)->executable);
  EXPECT_EQ(log->late_file(0x3000), nullptr);
  for (std::uintptr_t i = 0; i < 2 * FaultLog::k_late_files; ++i) log->mapped({i << 20, (i << 20) + 1, false, "/x"});
  EXPECT_EQ(log->forgotten_files(), FaultLog::k_late_files + 2);
}

}  // namespace
}  // namespace rtpool::realtime
