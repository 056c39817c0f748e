// The kernel's trigger, a sleep that it may end, and descriptors that a program closes under us.
#include <gtest/gtest.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>

#include "os/helper_thread.hpp"
#include "os/memory_pressure.hpp"

namespace rtpool::os {
namespace {

std::set<int> descriptors() {
  std::set<int> found;
  DIR* const folder = ::opendir("/proc/self/fd");
  while (const dirent* const entry = ::readdir(folder)) {
    if (entry->d_name[0] != '.' && std::atoi(entry->d_name) != ::dirfd(folder)) found.insert(std::atoi(entry->d_name));
  }
  ::closedir(folder);
  return found;
}

// 0: there is a trigger for this process.
int watched() {
  const int error = memory_pressure().watch();
  if (error == 0) memory_pressure().unwatch();
  return error;
}

class MemoryPressureTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const int error = watched(); error != 0) GTEST_SKIP() << "no trigger for this process: " << std::strerror(error);
    before_ = descriptors();
  }
  void TearDown() override { memory_pressure().unwatch(); }
  std::set<int> before_;
};

TEST_F(MemoryPressureTest, TakesDescriptorsOnlyWhileItWatches) {
  ASSERT_EQ(memory_pressure().watch(), 0);
  ASSERT_EQ(memory_pressure().watch(), 0);
  const std::set<int> during = descriptors();
  EXPECT_GE(during.size(), before_.size() + 2);
  EXPECT_LE(during.size(), before_.size() + 3);
  for (const int file : during) {
    if (before_.count(file) != 0) continue;
    EXPECT_NE(::fcntl(file, F_GETFD) & FD_CLOEXEC, 0) << "a program that is started has none of them";
  }
  memory_pressure().unwatch();
  EXPECT_EQ(descriptors(), before_);
}

TEST_F(MemoryPressureTest, IsWokenWhetherItWatchesOrNot) {
  for (const bool watches : {false, true}) {
    if (watches) {
      ASSERT_EQ(memory_pressure().watch(), 0);
    }
    for (int turn = 0; turn < 3; ++turn) {
      std::atomic<std::uint32_t> word{0};
      std::thread wakes([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        word = 1;
        memory_pressure().wake(word);
      });
      while (word == 0) (void)memory_pressure().sleep_while(word, 0, k_for_ever);
      wakes.join();
    }
  }
}

TEST_F(MemoryPressureTest, SleepsNoLongerThanAsked) {
  ASSERT_EQ(memory_pressure().watch(), 0);
  const std::atomic<std::uint32_t> word{0};
  for (int i = 0; i < 3; ++i) (void)memory_pressure().sleep_while(word, 0, 1'000'000);
}

// Programs that become a service close all descriptors, and open their own in place of ours.
TEST_F(MemoryPressureTest, WhatWasPutInPlaceOfItsDescriptorsIsLeftAlone) {
  ASSERT_EQ(memory_pressure().watch(), 0);
  std::set<int> stolen;
  for (const int file : descriptors()) {
    if (before_.count(file) == 0) stolen.insert(file);
  }
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  ASSERT_EQ(::write(pipe[1], "12345678", 8), 8);
  for (const int file : stolen) ASSERT_EQ(::dup2(pipe[0], file), file);
  std::atomic<std::uint32_t> word{0};
  memory_pressure().wake(word);
  (void)memory_pressure().sleep_while(word, 0, 1'000'000);
  memory_pressure().unwatch();
  for (const int file : stolen) {
    EXPECT_NE(::fcntl(file, F_GETFD), -1) << "another's descriptor was closed";
    ::close(file);
  }
  char read[9] = "";
  EXPECT_EQ(::read(pipe[0], read, 8), 8);
  EXPECT_STREQ(read, "12345678") << "something was read from another's descriptor";
  ::close(pipe[0]);
  ::close(pipe[1]);
  ASSERT_EQ(memory_pressure().watch(), 0);
}

constexpr std::size_t k_gib = std::size_t{1} << 30;

TEST(MemoryIsShort, WhereTheOwnGroupStalls) { EXPECT_TRUE(memory_is_short({true, false, 24 * k_gib, 23 * k_gib, k_gib, k_gib / 2})); }

TEST(MemoryIsShort, WhereTheMachineStallsForWantOfMemory) {
  EXPECT_TRUE(memory_is_short({false, true, 24 * k_gib, 11 * k_gib, 24 * k_gib, 11 * k_gib}));
  EXPECT_TRUE(memory_is_short({false, true, 24 * k_gib, k_gib, k_gib, k_gib / 2})) << "a roomy group in a full machine";
  EXPECT_TRUE(memory_is_short({false, true, 0, 0, 0, 0})) << "what the kernel does not tell";
}

TEST(MemoryIsShort, NotForAGroupOfOthersThatIsAtItsLimit) {
  EXPECT_FALSE(memory_is_short({false, true, 24 * k_gib, 23 * k_gib, 24 * k_gib, 23 * k_gib}));
  EXPECT_FALSE(memory_is_short({false, true, 24 * k_gib, 12 * k_gib, k_gib, k_gib / 2}));
}

TEST(MemoryIsShort, WhereAnEighthIsLeft) {
  EXPECT_TRUE(memory_is_short({false, false, 24 * k_gib, 20 * k_gib, 8 * k_gib, k_gib - 1}));
  EXPECT_FALSE(memory_is_short({false, false, 24 * k_gib, 20 * k_gib, 8 * k_gib, k_gib}));
}

// The kernel allows an ordinary user triggers whose windows are multiples of two seconds (Linux 6.4).
TEST(MemoryPressureUserTest, AnOrdinaryUserHasATriggerToo) {
  if (::geteuid() != 0) GTEST_SKIP() << "is an ordinary user";
  if (watched() != 0) GTEST_SKIP() << "there is no trigger for anybody";
  struct stat told {};
  if (::stat("/proc/pressure/memory", &told) != 0 || (told.st_mode & S_IWOTH) == 0) GTEST_SKIP() << "an older kernel";
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::setuid(65534) != 0 ? 100 : watched());
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << std::strerror(WEXITSTATUS(status));
}

}  // namespace
}  // namespace rtpool::os
