// The OS contract for everything that decides when a thread runs: policy, affinity, locked memory, C-states.
//
// Every function returns an errno value, 0 for success. Thread rule: functions that speak of a thread mean the calling
// one; the others concern the process and may be called by any thread. Cost: kernel calls; none belongs in a loop.
// Tests replace this class by a fake that refuses (tests/cpp/fake_scheduling.hpp).
#pragma once

#include <sched.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "os/memory.hpp"

namespace rtpool::os {

enum class Policy : std::uint8_t { other, batch, idle, fifo, round_robin, deadline, unknown };

struct ThreadScheduling {
  Policy policy = Policy::other;
  int priority = 0;            // 1 to 99 for fifo and round_robin
  int nice = 0;                // for other and batch
  bool reset_on_fork = false;  // children of a real-time thread begin as `other`
};

// What the children of a thread, the threads and processes that it starts, begin with instead of its own settings.
struct ChildSettings {
  bool affinity = false;
  cpu_set_t own_affinity{};
  cpu_set_t child_affinity{};
  bool scheduling = false;
  ThreadScheduling own_scheduling;
  ThreadScheduling child_scheduling;
};

// What was locked in memory before `Scheduling::lock_process`; only `unlock_process` looks inside.
class LockedMemory {
 public:
  virtual ~LockedMemory() = default;
};

class Scheduling {
 public:
  Scheduling() = default;
  Scheduling(const Scheduling&) = delete;
  Scheduling& operator=(const Scheduling&) = delete;
  virtual ~Scheduling() = default;

  virtual int thread_scheduling(ThreadScheduling* out) noexcept = 0;
  // EPERM: RLIMIT_RTPRIO is lower and CAP_SYS_NICE is missing, or the cgroup has no real-time time. `deadline` and
  // `unknown` cannot be set back by this contract: EINVAL.
  virtual int set_thread_scheduling(const ThreadScheduling& wanted) noexcept = 0;
  virtual int thread_affinity(cpu_set_t* out) noexcept = 0;
  // EINVAL: none of the processors is online and allowed by the cgroup.
  virtual int set_thread_affinity(const cpu_set_t& wanted) noexcept = 0;

  // From now on the children of the calling thread begin with `wanted`, as long as its own settings are those that
  // `wanted` names; `before` tells what was in force. An errno value other than 0: only children by fork do, of those that
  // the kernel does not see to (ThreadScheduling::reset_on_fork).
  virtual int exchange_child_settings(const ChildSettings& wanted, ChildSettings* before) noexcept = 0;
  // Whether the calling thread may set `reset_on_fork` back.
  virtual bool may_clear_reset_on_fork() noexcept = 0;

  // Locks all memory of the process, present and future (mlockall), and remembers what was locked before. All of it becomes
  // resident but what lies in `absent` (by address, disjoint): that is locked when it comes to be, if it does.
  // ENOMEM or EPERM: RLIMIT_MEMLOCK is below the address space in use and CAP_IPC_LOCK is missing.
  virtual int lock_process(std::span<const AddressRange> absent, std::unique_ptr<LockedMemory>* before) noexcept = 0;
  // Unlocks everything except what was locked before `lock_process`.
  virtual int unlock_process(const LockedMemory& before) noexcept = 0;

  // Bounds the wake-up latency of the processors' idle states to `microseconds` while the returned descriptor is open
  // (/dev/cpu_dma_latency). A forked child does not hold it. EACCES or ENOENT: no permission, no such device.
  virtual int hold_wakeup_latency(std::int32_t microseconds, int* descriptor) noexcept = 0;
  virtual int release_wakeup_latency(int descriptor) noexcept = 0;

  // RLIMIT_RTPRIO; 99 with CAP_SYS_NICE.
  virtual int allowed_priority() noexcept = 0;
};

// The kernel itself. One instance, never destroyed.
Scheduling& scheduling() noexcept;

}  // namespace rtpool::os
