// Promises of os/usage.hpp against the kernel itself: exact readings; a watch that sees each fault and switch.
#include "os/usage.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/sanitizers.hpp"

namespace rtpool::os {
namespace {

const std::size_t k_page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

class Told final : public WatchListener {
 public:
  Told() { samples.reserve(100'000); }
  void faulted(const FaultSample& sample) noexcept override { samples.push_back(sample); }
  void mapped(const MappedFile& file) noexcept override {
    files.push_back(file);
    names.emplace_back(file.name);
  }

  std::vector<FaultSample> samples;
  std::vector<MappedFile> files;
  std::vector<std::string> names;
};

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
#ifdef RTPOOL_THREAD_SANITIZER
  GTEST_SKIP() << "the sanitizer's shadow memory faults as well";
#endif
  const auto usage = make_usage();
  UsageEvents before;
  UsageEvents after;
  EXPECT_FALSE(usage->poll(&before, nullptr));
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  EXPECT_EQ(usage->watch(), 0);
  // Nothing but the calls under test between two polls: the test library faults by itself when its code is first used.
  UsageEvents quiet;
  UsageEvents slept;
  bool complete = true;
  for (int round = 0; round < 2; ++round) {
    complete = usage->poll(&before, nullptr);
    complete = usage->poll(&quiet, nullptr) && complete;
    fault(50);
    complete = usage->poll(&after, nullptr) && complete;
    sleep_a_little();
    complete = usage->poll(&slept, nullptr) && complete;
  }
  EXPECT_TRUE(complete);
  EXPECT_EQ(quiet.faults, before.faults);
  EXPECT_EQ(after.faults - quiet.faults, 50U);
  EXPECT_GE(slept.voluntary_switches - after.voluntary_switches, 1U);
  usage->unwatch();
  usage->unwatch();
  EXPECT_FALSE(usage->poll(&after, nullptr));
}

TEST(Usage, AnOverrunRingSaysSoOnceAndGoesOn) {
#ifdef RTPOOL_THREAD_SANITIZER
  GTEST_SKIP() << "the sanitizer's shadow memory faults as well";
#endif
  const auto usage = make_usage();
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  UsageEvents events;
  bool complete = true;
  // More than the ring holds between two polls.
  for (int i = 0; i < 100; ++i) {
    fault(100);
    sleep_a_little();
  }
  complete = usage->poll(&events, nullptr);
  fault(1);
  complete = usage->poll(&events, nullptr) && complete;
  EXPECT_FALSE(complete);
  EXPECT_GT(events.lost, 0U);
  EXPECT_EQ(events.overruns, 1U);
  // What was lost and what was seen is all there was; a fault or two belong to this test.
  EXPECT_NEAR(static_cast<double>(events.faults + events.lost), 10'001.0, 250.0);
  const std::uint64_t faults = events.faults;
  fault(1);
  EXPECT_TRUE(usage->poll(&events, nullptr));
  EXPECT_EQ(events.faults, faults + 1);
}

TEST(Usage, AFaultIsToldWithItsAddressAndInstruction) {
#ifdef RTPOOL_THREAD_SANITIZER
  GTEST_SKIP() << "the sanitizer's shadow memory faults as well";
#endif
  const auto usage = make_usage();
  EXPECT_EQ(usage->scope(), WatchScope::none);
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  EXPECT_NE(usage->scope(), WatchScope::none);
  auto* const fresh = static_cast<char*>(
      ::mmap(nullptr, 64 * k_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(static_cast<void*>(fresh), MAP_FAILED);
  ::madvise(fresh, 64 * k_page, MADV_NOHUGEPAGE);
  UsageEvents events;
  Told told;
  ASSERT_TRUE(usage->poll(&events, nullptr));
  for (std::size_t i = 0; i < 64; ++i) static_cast<volatile char*>(fresh)[i * k_page + 8 * i] = 1;
  EXPECT_TRUE(usage->poll(&events, &told));
  std::size_t found = 0;
  for (const FaultSample& sample : told.samples) {
    const std::uintptr_t at = sample.address - reinterpret_cast<std::uintptr_t>(fresh);
    if (at >= 64 * k_page) continue;
    EXPECT_EQ(at, found * k_page + 8 * found);
    ++found;
    // The instruction stands in this program.
    EXPECT_LT(sample.instruction - reinterpret_cast<std::uintptr_t>(&fault), std::uintptr_t{1} << 31);
  }
  EXPECT_EQ(found, 64U);
  ::munmap(fresh, 64 * k_page);
}

TEST(Usage, FilesMappedMeanwhileAreTold) {
  const auto usage = make_usage();
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  UsageEvents events;
  Told told;
  ASSERT_TRUE(usage->poll(&events, nullptr));
  const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  void* const view = ::mmap(nullptr, k_page, PROT_READ, MAP_PRIVATE, file, 0);
  void* const nameless = ::mmap(nullptr, k_page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_TRUE(usage->poll(&events, &told));
  ASSERT_EQ(told.files.size(), 1U);
  EXPECT_EQ(told.files[0].begin, reinterpret_cast<std::uintptr_t>(view));
  EXPECT_EQ(told.files[0].end - told.files[0].begin, k_page);
  EXPECT_FALSE(told.files[0].executable);
  EXPECT_NE(told.names[0].find(program_invocation_short_name), std::string::npos) << told.names[0];
  ::munmap(view, k_page);
  ::munmap(nameless, k_page);
  ::close(file);
}

// What a user may lock for rings is limited: later watches get smaller rings, and see as much.
TEST(Usage, ManyWatchesOfAnOrdinaryUserGetSmallerRings) {
  if (::getuid() != 0) GTEST_SKIP() << "needs root to become a user who may lock no memory";
  if (const int error = make_usage()->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0 || ::setuid(65534) != 0) ::_exit(100);
    std::vector<std::unique_ptr<Usage>> watches;
    int error = 0;
    while (error == 0 && watches.size() < 99) {
      watches.push_back(make_usage());
      error = watches.back()->watch();
    }
    watches.pop_back();
    if (error != EPERM && error != ENOMEM) ::_exit(101);
    UsageEvents before;
    UsageEvents after;
    fault(1);
    watches.back()->poll(&before, nullptr);
    fault(10);
    if (!watches.back()->poll(&after, nullptr) || after.faults - before.faults < 10) ::_exit(102);
    ::_exit(static_cast<int>(watches.size()));
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  const int watches = WEXITSTATUS(status);
  if (watches == 101) GTEST_SKIP() << "memory is not limited here";
  EXPECT_LT(watches, 100);
  // 516 KiB a processor hold no more than three large ones each.
  EXPECT_GT(watches, 3 * static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
}

TEST(Usage, AForkedChildHasNoWatchAndMayMakeOne) {
  const auto usage = make_usage();
  if (const int error = usage->watch()) GTEST_SKIP() << "perf_event refused: " << error;
  const pid_t child = ::fork();
  if (child == 0) {
    UsageEvents events;
    if (usage->poll(&events, nullptr)) ::_exit(1);
    if (usage->watch() != 0) ::_exit(2);
    if (!usage->poll(&events, nullptr)) ::_exit(3);
    usage->unwatch();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  UsageEvents events;
  EXPECT_TRUE(usage->poll(&events, nullptr));
}

}  // namespace
}  // namespace rtpool::os
