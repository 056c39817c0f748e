// Promises of os/kernel_pages: residency of any range, and which setting decides about transparent huge pages of 2 MiB.
#include "os/kernel_pages.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "os/memory.hpp"

namespace rtpool::os {
namespace {

TEST(KernelPages, AreWholePagesOfTheCore) {
  EXPECT_EQ(page_size(), static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
  EXPECT_EQ(page_size() % k_page_size, 0U);
  EXPECT_LE(page_size(), k_largest_kernel_page);
  EXPECT_EQ(memory().page_size(), page_size());
}

TEST(KernelPages, ResidencyIsCountedInBytesOfTheRange) {
  const std::size_t page = page_size();
  const std::size_t bytes = 5000 * page;  // more than one call asks for
  auto* const base = static_cast<char*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(base, MAP_FAILED);
  ::madvise(base, bytes, MADV_NOHUGEPAGE);
  static_cast<volatile char*>(base)[2 * page] = 1;
  static_cast<volatile char*>(base)[4500 * page + 7] = 1;
  std::size_t resident = 0;
  ASSERT_EQ(count_resident(base, bytes, &resident), 0);
  EXPECT_EQ(resident, 2 * page);
  ASSERT_EQ(memory().resident(base, bytes, &resident), 0);
  EXPECT_EQ(resident, 2 * page);
  // A range that begins and ends inside of pages.
  ASSERT_EQ(count_resident(base + 2 * page + 100, 200, &resident), 0);
  EXPECT_EQ(resident, 200U);
  ASSERT_EQ(count_resident(base + page + 100, page, &resident), 0);
  EXPECT_EQ(resident, 100U);
  ASSERT_EQ(count_resident(base + 2 * page, 0, &resident), 0);
  EXPECT_EQ(resident, 0U);
  ::munmap(base, bytes);
  EXPECT_EQ(count_resident(base, page, &resident), ENOMEM);
}

TEST(KernelPages, PhysicalMemoryIsWhatTheMachineHas) {
  std::FILE* const file = std::fopen("/proc/meminfo", "re");
  ASSERT_NE(file, nullptr);
  unsigned long kib = 0;
  ASSERT_EQ(std::fscanf(file, "MemTotal: %lu", &kib), 1);
  std::fclose(file);
  const std::size_t told = memory().physical_memory();
  EXPECT_LE(told, std::size_t{kib} << 10);
  EXPECT_EQ(told % page_size(), 0U);
  if (memory().available_memory() > told) GTEST_SKIP() << "a cgroup limits this process";
  EXPECT_GE(told, (std::size_t{kib} << 10) / 100 * 99);
}

// A folder as /sys/kernel/mm/transparent_hugepage.
class HugePageSettings : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(::mkdtemp(folder_.data()), nullptr); }
  ~HugePageSettings() override { (void)!std::system(("rm -r " + folder_).c_str()); }
  void write(const char* name, const char* text) const {
    const std::string path = folder_ + "/" + name;
    ::mkdir(path.substr(0, path.rfind('/')).c_str(), 0700);
    std::FILE* const file = std::fopen(path.c_str(), "we");
    ASSERT_NE(file, nullptr);
    std::fputs(text, file);
    std::fclose(file);
  }
  void expect(std::size_t page, const char* file, const char* chosen, const char* larger = "") const {
    const HugePageSetting setting = read_huge_page_setting(folder_.c_str(), "enabled", page);
    const auto path_of = [&](const char* name) { return name[0] == '\0' ? std::string() : folder_ + "/" + name; };
    EXPECT_EQ(setting.path, path_of(file));
    EXPECT_STREQ(setting.chosen, chosen);
    EXPECT_EQ(setting.larger, path_of(larger));
  }
  std::string folder_ = "/tmp/rtpool-huge-XXXXXX";
};

TEST_F(HugePageSettings, WithPagesOf4KiBTheOneSettingDecides) {
  write("enabled", "always [madvise] never\n");
  expect(4096, "enabled", "madvise");
  write("hpage_pmd_size", "2097152\n");
  expect(4096, "enabled", "madvise");
  write("hugepages-2048kB/enabled", "always [inherit] madvise never\n");
  expect(4096, "enabled", "madvise");
  write("hugepages-2048kB/enabled", "always inherit madvise [never]\n");
  expect(4096, "hugepages-2048kB/enabled", "never");
}

TEST_F(HugePageSettings, WithLargerPagesOnlyTheSettingFor2MiBCounts) {
  write("enabled", "[always] madvise never\n");
  expect(16384, "", "");
  expect(65536, "", "");
  write("hpage_pmd_size", "33554432\n");
  expect(16384, "", "");
  write("hugepages-2048kB/enabled", "always inherit madvise [never]\n");
  expect(16384, "hugepages-2048kB/enabled", "never");
  write("hugepages-2048kB/enabled", "always [inherit] madvise never\n");
  expect(16384, "enabled", "always");
  write("hugepages-2048kB/enabled", "always inherit [madvise] never\n");
  expect(16384, "hugepages-2048kB/enabled", "madvise");
}

// A mapping that asks for huge pages gets the largest that there are.
TEST_F(HugePageSettings, WithLargerPagesLargerOnesComeUnlessTheirOwnSettingForbidsIt) {
  constexpr const char* k_own = "hugepages-2048kB/enabled";
  constexpr const char* k_larger = "hugepages-32768kB/enabled";
  write("enabled", "[always] madvise never\n");
  write("hpage_pmd_size", "33554432\n");
  write(k_own, "always inherit madvise [never]\n");
  write(k_larger, "always [inherit] madvise never\n");
  expect(16384, k_own, "never", k_larger);
  write(k_own, "always inherit [madvise] never\n");
  expect(16384, k_own, "madvise", k_larger);
  write("enabled", "always [madvise] never\n");
  expect(16384, k_own, "madvise", k_larger);
  write("enabled", "always madvise [never]\n");
  expect(16384, k_own, "madvise");
  write(k_larger, "[always] inherit madvise never\n");
  expect(16384, k_own, "madvise", k_larger);
  write(k_larger, "always inherit madvise [never]\n");
  expect(16384, k_own, "madvise");
  write("enabled", "[always] madvise never\n");
  write(k_own, "always [inherit] madvise never\n");
  expect(16384, "enabled", "always");
}

TEST_F(HugePageSettings, KernelsWithoutAnyHaveNone) { expect(4096, "", ""); }

}  // namespace
}  // namespace rtpool::os
