// The OS contract for work that nobody waits for: a thread of the process' own that sleeps without being woken, and what tells
// it to hurry.
//
// Thread rule: any thread. `errno` is left alone.
#pragma once

#include <atomic>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

inline constexpr Nanoseconds k_for_ever = -1;

// Starts a detached thread with all signals blocked, a small stack and the ordinary scheduling policy, whatever the caller's
// is. 0 or an errno value. Some 50 us.
int start_background_thread(void (*run)() noexcept) noexcept;

// Sleeps while `word` is `seen`, at most for `most` nanoseconds (k_for_ever: until woken). May return earlier.
void sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds most) noexcept;
void wake_sleepers(const std::atomic<std::uint32_t>& word) noexcept;

// Whether tasks of this machine or of the process' own memory cgroup have of late been waiting for memory (pressure stall
// information, the share of the last 10 s). False where the kernel does not tell. Reads two small files.
bool memory_pressure() noexcept;

// Processor time that this process has used.
Nanoseconds process_time() noexcept;

}  // namespace rtpool::os
