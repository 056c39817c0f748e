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
#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

// What the kernel says of memory. Bytes; 0 where it does not tell.
struct MemorySigns {
  bool group_stalls = false;    // tasks of the process' own memory cgroup have been waiting for memory
  bool machine_stalls = false;  // tasks of any cgroup have
  std::size_t machine = 0;
  std::size_t machine_available = 0;
  std::size_t own = 0;  // of the machine's, what this process' cgroup may have
  std::size_t own_available = 0;
};

// Whether giving memory back would help somebody. Where tasks of the machine wait while half of its memory can be had, they are
// in a cgroup that is at its own limit: nothing that others give back is theirs.
constexpr bool memory_is_short(const MemorySigns& signs) noexcept {
  const bool machine_is_full = signs.machine_available < signs.machine / 2 || signs.machine == 0;
  return signs.group_stalls || (signs.machine_stalls && machine_is_full) ||
         (signs.own_available != 0 && signs.own_available < signs.own / 8);
}

class MemoryPressure {
 public:
  MemoryPressure() = default;
  MemoryPressure(const MemoryPressure&) = delete;
  MemoryPressure& operator=(const MemoryPressure&) = delete;
  virtual ~MemoryPressure() = default;

  // Whether tasks of the process' own memory cgroup, or of a machine of which less than half can be had, have of late been
  // waiting for memory (pressure stall information, the share of the last 10 s), or less than an eighth of the machine's or the
  // cgroup's memory can still be had (`memory_is_short`). False where the kernel does not tell. Reads some small files.
  virtual bool now() noexcept = 0;

  // From here on `sleep_while` ends when such tasks begin to wait. errno value: the kernel has no such trigger, or none for this
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
