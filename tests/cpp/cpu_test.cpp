// What the machine is asked, and what is answered where it does not say.
#include "os/cpu.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace rtpool::os {
namespace {

class CacheTree : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/rtpool-cpu-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void add(int index, const char* level, const char* type, const char* size, const char* line) {
    const std::filesystem::path folder = root_ / ("index" + std::to_string(index));
    std::filesystem::create_directory(folder);
    std::ofstream(folder / "level") << level << '\n';
    std::ofstream(folder / "type") << type << '\n';
    std::ofstream(folder / "size") << size << '\n';
    std::ofstream(folder / "coherency_line_size") << line << '\n';
  }

  std::filesystem::path root_;
};

TEST_F(CacheTree, AreReadFromSysfs) {
  add(0, "1", "Data", "48K", "64");
  add(1, "1", "Instruction", "32K", "64");
  add(2, "2", "Unified", "2048K", "64");
  add(3, "3", "Unified", "105M", "64");
  CacheSizes sizes;
  ASSERT_TRUE(read_cache_sizes(root_.c_str(), &sizes));
  EXPECT_EQ(sizes.level1, std::size_t{48} << 10);
  EXPECT_EQ(sizes.level2, std::size_t{2} << 20);
  EXPECT_EQ(sizes.level3, std::size_t{105} << 20);
  EXPECT_EQ(sizes.last_level(), sizes.level3);
  EXPECT_EQ(sizes.line, 64U);
}

TEST_F(CacheTree, WithoutALastLevelEndAtTheSecond) {
  add(0, "1", "Data", "32K", "128");
  add(1, "2", "Unified", "1M", "128");
  CacheSizes sizes;
  ASSERT_TRUE(read_cache_sizes(root_.c_str(), &sizes));
  EXPECT_EQ(sizes.level3, 0U);
  EXPECT_EQ(sizes.last_level(), std::size_t{1} << 20);
  EXPECT_EQ(sizes.line, 128U);
}

TEST_F(CacheTree, ThatSaysNothingChangesNothing) {
  CacheSizes sizes;
  EXPECT_FALSE(read_cache_sizes(root_.c_str(), &sizes));
  add(0, "1", "Data", "unknown", "none");
  EXPECT_FALSE(read_cache_sizes(root_.c_str(), &sizes));
  EXPECT_EQ(sizes.last_level(), CacheSizes{}.last_level());
}

// Small cores first, as boards number them: a big one has twice the caches.
TEST_F(CacheTree, OfCoresThatDifferTheLargestCount) {
  const std::filesystem::path cpus = root_;
  const auto add_core = [&](int core, const char* capacity, const char* level2) {
    root_ = cpus / ("cpu" + std::to_string(core)) / "cache";
    std::filesystem::create_directories(root_);
    add(0, "1", "Data", "32K", "64");
    add(1, "2", "Unified", level2, "64");
    if (capacity != nullptr) std::ofstream(root_.parent_path() / "cpu_capacity") << capacity << '\n';
    root_ = cpus;
  };
  CacheSizes sizes;
  EXPECT_FALSE(read_caches_of_cores(root_.c_str(), &sizes));
  for (int core = 0; core < 4; ++core) add_core(core, "414", "128K");
  add_core(4, "1024", "512K");
  add_core(5, "1024", "4096K");  // of a kind seen before: not looked at
  ASSERT_TRUE(read_caches_of_cores(root_.c_str(), &sizes));
  EXPECT_EQ(sizes.level1, std::size_t{32} << 10);
  EXPECT_EQ(sizes.level2, std::size_t{512} << 10);
  EXPECT_EQ(sizes.level3, 0U);
}

TEST_F(CacheTree, OfCoresWithoutACapacityTheFirstSpeaksForAll) {
  for (const char* core : {"cpu0", "cpu1"}) std::filesystem::create_directories(root_ / core / "cache");
  const std::filesystem::path cpus = root_;
  root_ = cpus / "cpu0" / "cache";
  add(0, "1", "Data", "48K", "64");
  root_ = cpus;
  CacheSizes sizes;
  ASSERT_TRUE(read_caches_of_cores(root_.c_str(), &sizes));
  EXPECT_EQ(sizes.level1, std::size_t{48} << 10);
}

TEST(Cpu, CacheSizesOfThisMachineArePlausible) {
  const CacheSizes& sizes = cache_sizes();
  EXPECT_GE(sizes.last_level(), std::size_t{64} << 10);
  EXPECT_LE(sizes.last_level(), std::size_t{4} << 30);
  EXPECT_GE(sizes.line, 16U);
}

TEST(Cpu, WiderSetsIncludeNarrowerOnes) {
  const CpuFeatures& features = cpu_features();
  EXPECT_TRUE(features.avx2 || !features.avx512f);
  EXPECT_TRUE(features.sse2 || !features.avx2);
#ifdef __x86_64__
  EXPECT_TRUE(features.sse2);
#endif
}

TEST(Cpu, QuotasAreRoundedUpToCores) {
  EXPECT_EQ(cores_of_quota("max 100000\n"), 0U);
  EXPECT_EQ(cores_of_quota("100000 100000\n"), 1U);
  EXPECT_EQ(cores_of_quota("150000 100000\n"), 2U);
  EXPECT_EQ(cores_of_quota("5000 100000\n"), 1U);
  EXPECT_EQ(cores_of_quota(""), 0U);
  EXPECT_EQ(cores_of_quota("100000"), 0U);
  EXPECT_EQ(cores_of_quota("100000 0"), 0U);
}

TEST(Cpu, UsableCoresFollowTheAffinityOfTheThread) {
  EXPECT_GE(usable_cores(), 1U);
  std::thread([] {
    cpu_set_t mask;
    ASSERT_EQ(::sched_getaffinity(0, sizeof mask, &mask), 0);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) ++first;
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    ASSERT_EQ(::sched_setaffinity(0, sizeof mask, &mask), 0);
    EXPECT_EQ(usable_cores(), 1U);
  }).join();
}

}  // namespace
}  // namespace rtpool::os
