// Linux: pthreads and the futex.
#include "os/helper_thread.hpp"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "os/errno.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_stack_bytes = std::size_t{192} << 10;  // beyond what libc needs itself

struct Start {
  void (*function)(void*);
  void* argument;
};

void* begin(void* value) noexcept {
  const Start start = *static_cast<Start*>(value);
  std::free(value);
  start.function(start.argument);
  return nullptr;
}

// Makes the thread; its maker's signals and policy are not for it.
int create(const char* name, void (*function)(void*), void* argument, int detached, pthread_t* thread) noexcept {
  const KeepErrno keep;
  auto* const start = static_cast<Start*>(std::malloc(sizeof(Start)));
  if (start == nullptr) return ENOMEM;
  *start = {function, argument};
  pthread_attr_t attributes;
  int error = ::pthread_attr_init(&attributes);
  if (error == 0) {
    const long least = ::sysconf(_SC_THREAD_STACK_MIN);
    (void)::pthread_attr_setstacksize(&attributes, static_cast<std::size_t>(least > 0 ? least : PTHREAD_STACK_MIN) + k_stack_bytes);
    (void)::pthread_attr_setdetachstate(&attributes, detached);
    const sched_param ordinary{};
    (void)::pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    (void)::pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
    (void)::pthread_attr_setschedparam(&attributes, &ordinary);
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    (void)::pthread_sigmask(SIG_SETMASK, &all, &before);
    error = ::pthread_create(thread, &attributes, begin, start);
    (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    (void)::pthread_attr_destroy(&attributes);
  }
  if (error != 0) {
    std::free(start);
    return error;
  }
  // A detached one may have ended by now.
  if (detached == PTHREAD_CREATE_JOINABLE) (void)::pthread_setname_np(*thread, name);
  return 0;
}

}  // namespace

int HelperThread::start(const char* name, void (*function)(void*), void* argument) noexcept {
  pthread_t thread{};
  const int error = create(name, function, argument, PTHREAD_CREATE_JOINABLE, &thread);
  if (error != 0) return error;
  static_assert(sizeof(pthread_t) <= sizeof(std::uint64_t));
  thread_ = static_cast<std::uint64_t>(thread);
  running_ = true;
  return 0;
}

int HelperThread::start_detached(void (*function)(void*), void* argument) noexcept {
  pthread_t thread{};
  return create("", function, argument, PTHREAD_CREATE_DETACHED, &thread);
}

void HelperThread::join() noexcept {
  const KeepErrno keep;
  if (running_) (void)::pthread_join(static_cast<pthread_t>(thread_), nullptr);
  running_ = false;
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

}  // namespace rtpool::os
