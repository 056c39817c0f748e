// Linux: pthreads, futex, /proc/pressure/memory and the cgroup's memory.pressure.
#include "os/background.hpp"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "os/errno.hpp"
#include "os/text_file.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_stack = std::size_t{64} << 10;  // beyond what libc needs itself
constexpr double k_stalled_percent = 1.0;

bool stalled(const char* path) noexcept {
  char text[256];
  if (!read_text_file(path, text, sizeof text)) return false;
  const char* const average = std::strstr(text, "some avg10=");
  return average != nullptr && std::strtod(average + 11, nullptr) >= k_stalled_percent;
}

}  // namespace

int start_background_thread(void (*run)() noexcept) noexcept {
  const KeepErrno keep;
  pthread_attr_t attributes;
  if (const int error = ::pthread_attr_init(&attributes); error != 0) return error;
  const long least = ::sysconf(_SC_THREAD_STACK_MIN);
  (void)::pthread_attr_setstacksize(&attributes, static_cast<std::size_t>(least > 0 ? least : PTHREAD_STACK_MIN) + k_stack);
  (void)::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  // Not the caller's real-time policy: what nobody waits for must not take turns from what somebody does.
  const sched_param ordinary{};
  (void)::pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
  (void)::pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
  (void)::pthread_attr_setschedparam(&attributes, &ordinary);
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  (void)::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = ::pthread_create(
      &thread, &attributes,
      [](void* function) -> void* {
        reinterpret_cast<void (*)() noexcept>(function)();
        return nullptr;
      },
      reinterpret_cast<void*>(run));
  (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  (void)::pthread_attr_destroy(&attributes);
  return error;
}

void sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanoseconds most) noexcept {
  const KeepErrno keep;
  const timespec span{static_cast<time_t>(most / 1'000'000'000), static_cast<long>(most % 1'000'000'000)};
  (void)::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, most == k_for_ever ? nullptr : &span, nullptr, 0);
}

void wake_sleepers(const std::atomic<std::uint32_t>& word) noexcept {
  const KeepErrno keep;
  (void)::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

bool memory_pressure() noexcept {
  const KeepErrno keep;
  if (stalled("/proc/pressure/memory")) return true;
  char group[512];
  if (!read_text_file("/proc/self/cgroup", group, sizeof group)) return false;
  const char* const path = std::strncmp(group, "0::", 3) == 0 ? group : std::strstr(group, "\n0::");
  if (path == nullptr) return false;
  const char* const name = std::strstr(path, "::") + 2;
  char file[640];
  std::snprintf(file, sizeof file, "/sys/fs/cgroup%.*s/memory.pressure", static_cast<int>(std::strcspn(name, "\n")), name);
  return stalled(file);
}

Nanoseconds process_time() noexcept {
  timespec used{};
  (void)::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<Nanoseconds>(used.tv_sec) * 1'000'000'000 + used.tv_nsec;
}

}  // namespace rtpool::os
