// Promises of os/scheduling.hpp against the kernel itself. What this machine does not permit is skipped by name.
#include "os/scheduling.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "base/sanitizers.hpp"
#include "os/memory.hpp"

namespace rtpool::os {
namespace {

std::size_t locked_kib() {
  std::FILE* const file = std::fopen("/proc/self/status", "re");
  char line[256];
  std::size_t kib = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "VmLck: %zu", &kib) == 1) break;
  }
  std::fclose(file);
  return kib;
}

TEST(Scheduling, PriorityIsSetAndSetBack) {
  ThreadScheduling before;
  ASSERT_EQ(scheduling().thread_scheduling(&before), 0);
  ThreadScheduling wanted = before;
  wanted.policy = Policy::fifo;
  wanted.priority = 3;
  if (const int error = scheduling().set_thread_scheduling(wanted)) GTEST_SKIP() << "SCHED_FIFO refused: " << error;
  ThreadScheduling now;
  ASSERT_EQ(scheduling().thread_scheduling(&now), 0);
  EXPECT_EQ(now.policy, Policy::fifo);
  EXPECT_EQ(now.priority, 3);
  ASSERT_EQ(scheduling().set_thread_scheduling(before), 0);
  ASSERT_EQ(scheduling().thread_scheduling(&now), 0);
  EXPECT_EQ(now.policy, before.policy);
  EXPECT_EQ(now.nice, before.nice);
  wanted.priority = 1000;
  EXPECT_EQ(scheduling().set_thread_scheduling(wanted), EINVAL);
  wanted.policy = Policy::deadline;
  EXPECT_EQ(scheduling().set_thread_scheduling(wanted), EINVAL);
}

TEST(Scheduling, AffinityIsSetAndSetBack) {
  cpu_set_t before;
  ASSERT_EQ(scheduling().thread_affinity(&before), 0);
  cpu_set_t none;
  CPU_ZERO(&none);
  EXPECT_EQ(scheduling().set_thread_affinity(none), EINVAL);
  cpu_set_t one;
  CPU_ZERO(&one);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_SET(first, &one);
  ASSERT_EQ(scheduling().set_thread_affinity(one), 0);
  ASSERT_EQ(scheduling().set_thread_affinity(before), 0);
  cpu_set_t now;
  ASSERT_EQ(scheduling().thread_affinity(&now), 0);
  EXPECT_TRUE(CPU_EQUAL(&now, &before));
}

TEST(Scheduling, UnlockingLeavesLockedWhatWasLockedBefore) {
#ifdef RTPOOL_SANITIZED
  GTEST_SKIP() << "the sanitizers' runtime makes mlock do nothing";
#endif
  constexpr std::size_t k_bytes = 16 * 4096;
  void* const mine = ::mmap(nullptr, k_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mine, MAP_FAILED);
  ASSERT_EQ(::mlock(mine, k_bytes), 0);
  const std::size_t before = locked_kib();
  ASSERT_GE(before, k_bytes / 1024);
  std::unique_ptr<LockedMemory> state;
  if (const int error = scheduling().lock_process({}, &state)) {
    ::munlock(mine, k_bytes);
    GTEST_SKIP() << "mlockall refused: " << error;
  }
  EXPECT_GT(locked_kib(), before);
  // A section inside the section: leaving it must not unlock anything.
  std::unique_ptr<LockedMemory> inner;
  ASSERT_EQ(scheduling().lock_process({}, &inner), 0);
  ASSERT_EQ(scheduling().unlock_process(*inner), 0);
  EXPECT_GT(locked_kib(), before);
  ASSERT_EQ(scheduling().unlock_process(*state), 0);
  EXPECT_EQ(locked_kib(), before);
  void* const later = ::mmap(nullptr, k_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(locked_kib(), before);
  ::munmap(later, k_bytes);
  ::munmap(mine, k_bytes);
}

// Free memory that went back stays away; what is made of it later is locked then.
TEST(Scheduling, WhatIsAbsentStaysSo) {
#ifdef RTPOOL_SANITIZED
  GTEST_SKIP() << "the sanitizers' runtime makes mlock do nothing";
#endif
  constexpr std::size_t k_part = 64 << 10;
  auto* const mine = static_cast<char*>(::mmap(nullptr, 5 * k_part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(mine, MAP_FAILED);
  const auto part = [&](std::size_t from, std::size_t to) {
    const auto begin = reinterpret_cast<std::uintptr_t>(mine);
    return AddressRange{begin + from * k_part, begin + to * k_part};
  };
  const auto resident = [&](std::size_t which) {
    std::size_t bytes = 0;
    EXPECT_EQ(memory().resident(mine + which * k_part, k_part, &bytes), 0);
    return bytes;
  };
  const AddressRange absent[] = {part(0, 1), part(2, 3), part(3, 4)};
  std::unique_ptr<LockedMemory> state;
  if (const int error = scheduling().lock_process(absent, &state)) {
    ::munmap(mine, 5 * k_part);
    GTEST_SKIP() << "mlockall refused: " << error;
  }
  EXPECT_EQ(resident(0) + resident(2) + resident(3), 0U);
  EXPECT_EQ(resident(1) + resident(4), 2 * k_part);
  EXPECT_EQ(memory().prefault(mine + 2 * k_part, k_part), 0);
  EXPECT_EQ(resident(2), k_part);
  EXPECT_EQ(::madvise(mine + 2 * k_part, k_part, MADV_DONTNEED), -1);  // locked
  EXPECT_EQ(memory().discard(mine + 2 * k_part, k_part, false), 0);    // and goes back all the same
  EXPECT_EQ(resident(2), 0U);
  auto* const later = static_cast<char*>(::mmap(nullptr, k_part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::size_t bytes = 0;
  EXPECT_EQ(memory().resident(later, k_part, &bytes), 0);
  EXPECT_EQ(bytes, k_part);
  ::munmap(later, k_part);
  ASSERT_EQ(scheduling().unlock_process(*state), 0);
  EXPECT_EQ(::madvise(mine + 4 * k_part, k_part, MADV_DONTNEED), 0);
  ::munmap(mine, 5 * k_part);
}

TEST(Scheduling, WakeupLatencyIsHeldByADescriptor) {
  int descriptor = -1;
  if (const int error = scheduling().hold_wakeup_latency(0, &descriptor)) GTEST_SKIP() << "refused: " << error;
  EXPECT_GE(descriptor, 0);
  EXPECT_EQ(scheduling().release_wakeup_latency(descriptor), 0);
}

TEST(Scheduling, AllowedPriorityIsInRange) {
  EXPECT_GE(scheduling().allowed_priority(), 0);
  EXPECT_LE(scheduling().allowed_priority(), 99);
}

}  // namespace
}  // namespace rtpool::os
