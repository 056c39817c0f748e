// Promises of os/usage.hpp against the kernel itself: exact readings; a watch that sees each fault and switch.
#include "os/usage.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace rtpool::os {
namespace {

constexpr std::size_t k_page = 4096;

void fault(std::size_t pages) {
  void* const p = ::mmap(nullptr, pages * k_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(p, MAP_FAILED);
  ::madvise(p, pages * k_page, MADV_NOHUGEPAGE);
  for (std::size_t i = 0; i < pages; ++i) static_cast<volatile char*>(p)[i * k_page] = 1;
  ::munmap(p, pages * k_page);
}

void sleep_a_little() {
  const timespec t{0, 2'000'000};
  ::nanosleep(&t, nullptr);
}

TEST(Usage, ReadCountsFaultsAndSwitchesOfThisThread) {
  const auto usage = make_usage();
  ASSERT_NE(usage, nullptr);
  UsageCounts before;
  UsageCounts after;
  ASSERT_EQ(usage->read(&before), 0);
  fault(50);
  sleep_a_little();
  ASSERT_EQ(usage->read(&after), 0);
  EXPECT_GE(after.minor_faults - before.minor_faults, 50U);
  EXPECT_GE(after.voluntary_switches - before.voluntary_switches, 1U);
}

TEST(Usage, AWatchSeesEachFaultAndSwitch) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's shadow memory faults as well";
#endif
  const auto usage = make_usage();
  UsageEvents before;
  UsageEvents after;
  EXPECT_FALSE(usage->poll(&before));
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  EXPECT_EQ(usage->watch(), 0);
  // Nothing but the calls under test between two polls: the test library faults by itself when its code is first used.
  UsageEvents quiet;
  UsageEvents slept;
  bool complete = true;
  for (int round = 0; round < 2; ++round) {
    complete = usage->poll(&before);
    complete = usage->poll(&quiet) && complete;
    fault(50);
    complete = usage->poll(&after) && complete;
    sleep_a_little();
    complete = usage->poll(&slept) && complete;
  }
  EXPECT_TRUE(complete);
  EXPECT_EQ(quiet.faults, before.faults);
  EXPECT_EQ(after.faults - quiet.faults, 50U);
  EXPECT_GE(slept.voluntary_switches - after.voluntary_switches, 1U);
  usage->unwatch();
  usage->unwatch();
  EXPECT_FALSE(usage->poll(&after));
}

TEST(Usage, AnOverrunRingSaysSoOnceAndGoesOn) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's shadow memory faults as well";
#endif
  const auto usage = make_usage();
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  UsageEvents events;
  bool complete = true;
  // Below the kernel's sample rate, but more than the ring holds between two polls.
  for (int i = 0; i < 100; ++i) {
    fault(100);
    sleep_a_little();
  }
  complete = usage->poll(&events);
  fault(1);
  complete = usage->poll(&events) && complete;
  EXPECT_FALSE(complete);
  const std::uint64_t faults = events.faults;
  fault(1);
  EXPECT_TRUE(usage->poll(&events));
  EXPECT_EQ(events.faults, faults + 1);
}

TEST(Usage, AForkedChildHasNoWatchAndMayMakeOne) {
  const auto usage = make_usage();
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  const pid_t child = ::fork();
  if (child == 0) {
    UsageEvents events;
    if (usage->poll(&events)) ::_exit(1);
    if (usage->watch() != 0) ::_exit(2);
    if (!usage->poll(&events)) ::_exit(3);
    usage->unwatch();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  UsageEvents events;
  EXPECT_TRUE(usage->poll(&events));
}

}  // namespace
}  // namespace rtpool::os
