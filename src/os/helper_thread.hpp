// A thread of rtpool's own beside the program's, and how such a thread sleeps and is woken. No signal comes to it, and its
// scheduling policy is the ordinary one, whatever that of its maker is: what nobody waits for must not take turns from what
// somebody does.
//
// Thread rule: start and join by the same owner; the others any thread. Cost: kernel calls, some 50 us to start. Failure: an
// errno value. After a fork the child has no such thread: it calls `forget`. `errno` is left alone.
#pragma once

#include <atomic>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

class HelperThread {
 public:
  // `name` is what ps and top show, at most 15 bytes. The thread runs `function(argument)` and ends.
  int start(const char* name, void (*function)(void*), void* argument) noexcept;
  // One that nobody joins.
  static int start_detached(void (*function)(void*), void* argument) noexcept;
  // Waits until the kernel, too, has it no more.
  void join() noexcept;
  void forget() noexcept { running_ = false; }
  bool running() const noexcept { return running_; }

 private:
  std::uint64_t thread_ = 0;
  bool running_ = false;
};

inline constexpr Nanoseconds k_for_ever = -1;

// Sleeps while `word` is `seen`, at most for `most` nanoseconds (k_for_ever: until woken). May return earlier.
void sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds most) noexcept;
void wake_sleepers(const std::atomic<std::uint32_t>& word) noexcept;

}  // namespace rtpool::os
