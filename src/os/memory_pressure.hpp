// The OS contract for the shortage of memory: whether there is any, and a sleep that ends when there comes to be.
//
// Between `watch` and `unwatch` the kernel tells the sleeper. That takes descriptors of the process, some of which may be taken
// from under us (programs that close all they do not know), so they are only used in ways that do no harm to whatever has
// their number by then, and given up when they are not what they were.
//
// Thread rule: `watch`, `unwatch` and `sleep_while` by one thread, `wake` by any. `errno` is left alone. Tests replace this class
// by a fake (tests/cpp/fake_pressure.hpp).
#pragma once

#include <atomic>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

class MemoryPressure {
 public:
  MemoryPressure() = default;
  MemoryPressure(const MemoryPressure&) = delete;
  MemoryPressure& operator=(const MemoryPressure&) = delete;
  virtual ~MemoryPressure() = default;

  // Whether tasks of this machine, or of the process' own memory cgroup, have of late been waiting for memory (pressure stall
  // information, the share of the last 10 s), or less than an eighth of the machine's or the cgroup's memory can still be had.
  // False where the kernel does not tell. Reads some small files.
  virtual bool now() noexcept = 0;

  // From here on `sleep_while` ends when tasks begin to wait. errno value: the kernel has no such trigger, or none for this
  // process (before Linux 6.4 without CAP_SYS_RESOURCE). Watching already: 0.
  virtual int watch() noexcept = 0;
  virtual void unwatch() noexcept = 0;
  // As os::sleep_while; true: it ended because there is pressure.
  virtual bool sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds most) noexcept = 0;
  virtual void wake(const std::atomic<std::uint32_t>& word) noexcept = 0;
};

// The kernel itself. One instance, never destroyed.
MemoryPressure& memory_pressure() noexcept;

}  // namespace rtpool::os
