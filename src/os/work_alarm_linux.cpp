// Linux: a timer on CLOCK_PROCESS_CPUTIME_ID. By system calls: older libcs keep the functions in a library of its own.
#include "os/work_alarm.hpp"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "os/errno.hpp"

namespace rtpool::os {
namespace {

// One that next to nobody uses: the last real-time signals are Valgrind's and QEMU's, the first ones libc's and run times'.
constexpr int k_signal = 62;

// As the kernel has it; libcs name the thread differently.
struct TimerEvent {
  void* value;
  int signal;
  int notify;
  int thread;
  int unused[11];
};
static_assert(sizeof(TimerEvent) == 64);
constexpr int k_notify_thread = 4;  // SIGEV_THREAD_ID

enum class Taken { nothing, timer, wake, foreign };

// Takes the signal, which is waited for until `most` (nullptr: for ever). One that was sent to the whole process, and so is
// somebody else's, is sent again.
Taken take_signal(int timer, const timespec* most) noexcept {
  const std::uint64_t set = std::uint64_t{1} << (k_signal - 1);
  siginfo_t info;
  if (::syscall(SYS_rt_sigtimedwait, &set, &info, most, sizeof set) != k_signal) return Taken::nothing;
  if (info.si_code == SI_TIMER && info.si_timerid == timer) return Taken::timer;
  if (info.si_code == SI_TKILL && info.si_pid == ::getpid()) return Taken::wake;
  (void)::syscall(SYS_rt_sigqueueinfo, ::getpid(), k_signal, &info);
  return Taken::foreign;
}

}  // namespace

WorkAlarm::Ended WorkAlarm::sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds work) noexcept {
  const KeepErrno keep;
  const auto self = static_cast<int>(::syscall(SYS_gettid));
  TimerEvent event{};
  event.signal = k_signal;
  event.notify = k_notify_thread;
  event.thread = self;
  int timer = 0;
  if (::syscall(SYS_timer_create, CLOCK_PROCESS_CPUTIME_ID, &event, &timer) != 0) return Ended::refused;
  const itimerspec when{{0, 0}, {static_cast<time_t>(work / 1'000'000'000), static_cast<long>(work % 1'000'000'000)}};
  Ended ended = Ended::refused;
  if (::syscall(SYS_timer_settime, timer, 0, &when, nullptr) == 0) {
    ended = Ended::woken;
    // Who wakes changes the word and then looks for a sleeper: one of the two sees the other.
    sleeper_.store(self, std::memory_order_seq_cst);
    if (word.load(std::memory_order_seq_cst) == seen) {
      const Taken taken = take_signal(timer, nullptr);
      if (taken == Taken::timer) ended = Ended::worked;
      if (taken == Taken::foreign) ended = Ended::refused;
    }
    sleeper_.store(0, std::memory_order_seq_cst);
  }
  (void)::syscall(SYS_timer_delete, timer);
  const timespec now{0, 0};
  Taken late = ended == Ended::refused ? Taken::nothing : Taken::wake;
  while (late == Taken::wake || late == Taken::timer) late = take_signal(timer, &now);
  return ended;
}

void WorkAlarm::wake() noexcept {
  const KeepErrno keep;
  if (const int thread = sleeper_.load(std::memory_order_seq_cst); thread != 0) {
    (void)::syscall(SYS_tgkill, ::getpid(), thread, k_signal);
  }
}

}  // namespace rtpool::os
