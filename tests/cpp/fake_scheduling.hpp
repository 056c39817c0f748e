// A scheduler in memory that refuses what a test tells it to refuse and writes down every call.
#pragma once

#include <cerrno>
#include <string>
#include <vector>

#include "os/scheduling.hpp"

namespace rtpool::test {

class FakeScheduling final : public os::Scheduling {
 public:
  FakeScheduling() { CPU_ZERO(&affinity); CPU_SET(0, &affinity); CPU_SET(1, &affinity); }

  int thread_scheduling(os::ThreadScheduling* out) noexcept override {
    *out = scheduling;
    return 0;
  }
  int set_thread_scheduling(const os::ThreadScheduling& wanted) noexcept override {
    calls.emplace_back("scheduling");
    if (refuse_scheduling != 0 && wanted.policy == os::Policy::fifo) return refuse_scheduling;
    scheduling = wanted;
    return 0;
  }
  int thread_affinity(cpu_set_t* out) noexcept override {
    *out = affinity;
    return 0;
  }
  int set_thread_affinity(const cpu_set_t& wanted) noexcept override {
    calls.emplace_back("affinity");
    if (refuse_affinity != 0) return refuse_affinity;
    affinity = wanted;
    return 0;
  }
  int exchange_child_settings(const os::ChildSettings& wanted, os::ChildSettings* before) noexcept override {
    *before = children;
    children = wanted;
    const bool any = wanted.affinity || wanted.scheduling;
    if (any) calls.emplace_back("children");
    return any ? refuse_children : 0;
  }
  bool may_clear_reset_on_fork() noexcept override { return privileged; }
  int lock_process(std::span<const os::AddressRange>, std::unique_ptr<os::LockedMemory>* before) noexcept override {
    calls.emplace_back("lock");
    if (refuse_lock != 0) return refuse_lock;
    locked = true;
    *before = std::make_unique<os::LockedMemory>();
    return 0;
  }
  int unlock_process(const os::LockedMemory&) noexcept override {
    calls.emplace_back("unlock");
    locked = false;
    return 0;
  }
  int hold_wakeup_latency(std::int32_t microseconds, int* descriptor) noexcept override {
    calls.emplace_back("latency");
    if (refuse_latency != 0) return refuse_latency;
    latency = microseconds;
    *descriptor = 7;
    return 0;
  }
  int release_wakeup_latency(int descriptor) noexcept override {
    calls.emplace_back("release latency");
    latency = descriptor == 7 ? -1 : -2;
    return 0;
  }
  int allowed_priority() noexcept override { return 99; }

  os::ThreadScheduling scheduling;
  cpu_set_t affinity;
  bool locked = false;
  std::int32_t latency = -1;
  os::ChildSettings children;
  bool privileged = true;
  int refuse_scheduling = 0;
  int refuse_affinity = 0;
  int refuse_lock = 0;
  int refuse_latency = 0;
  int refuse_children = 0;
  std::vector<std::string> calls;
};

}  // namespace rtpool::test
