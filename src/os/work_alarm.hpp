// A sleep that ends when the process has worked: used so much processor time, in whichever threads. A process that waits is
// not woken for it.
//
// The kernel keeps a timer on the process's time and sends the sleeper a signal, which is blocked in its thread, as all are in
// a HelperThread, and so comes to no handler: it is taken by the wait itself. Nobody else ever sees one. (A program that uses
// the same number, the real-time signal 62, between its own processes gets what is its own, and refuses the alarm.)
//
// Thread rule: `sleep_while` by one thread at a time, with all signals blocked; `wake` by any, while that thread lives. Cost:
// some kernel calls. `errno` is left alone.
#pragma once

#include <atomic>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

class WorkAlarm {
 public:
  enum class Ended { woken, worked, refused };  // refused: there is no such timer for us, now or ever

  // Sleeps while `word` is `seen` and the process has not used `work` nanoseconds of processor time since. May return earlier.
  Ended sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds work) noexcept;
  // Ends a sleep; who calls has changed the word before.
  void wake() noexcept;

  constexpr WorkAlarm() = default;
  WorkAlarm(const WorkAlarm&) = delete;
  WorkAlarm& operator=(const WorkAlarm&) = delete;

 private:
  std::atomic<int> sleeper_{0};  // the kernel's number of the thread
};

}  // namespace rtpool::os
