#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "os/kernel_pages.hpp"
#include "os/libc_malloc.hpp"
#include "os/thread_stack.hpp"

namespace rtpool::os {
namespace {

// Not inlined: its frame is to lie below the caller's, and to be gone afterwards.
__attribute__((noinline)) void touch_below(std::size_t bytes) noexcept {
  auto* const room = static_cast<volatile char*>(__builtin_alloca(bytes));
  // From the top down, as the kernel lets the main thread's stack grow.
  const std::size_t page = page_size();
  for (std::size_t at = bytes; at > page; at -= page) room[at - 1] = 0;
  room[0] = 0;
}

// What libc leaves of a stack when its thread has ended (PTHREAD_STACK_MIN).
constexpr std::size_t k_kept_of_stack = std::size_t{16} << 10;
constexpr std::size_t k_heap_of_thread = std::size_t{64} << 10;

// Where threads wait for each other.
struct Gate {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  std::size_t arrived = 0;
  std::size_t expected = SIZE_MAX;  // not known yet
};

// One that ended before the others have what they need would leave its own to them.
void* rehearse(void* context) noexcept {
  touch_below(k_kept_of_stack);
  touch_libc_heap(k_heap_of_thread);
  Gate& gate = *static_cast<Gate*>(context);
  ::pthread_mutex_lock(&gate.mutex);
  ++gate.arrived;
  ::pthread_cond_broadcast(&gate.changed);
  while (gate.arrived < gate.expected) ::pthread_cond_wait(&gate.changed, &gate.mutex);
  ::pthread_mutex_unlock(&gate.mutex);
  return nullptr;
}

}  // namespace

bool own_stack(std::uintptr_t* lowest, std::uintptr_t* end) noexcept {
  pthread_attr_t attributes;
  if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return false;
  void* begin = nullptr;
  std::size_t bytes = 0;
  const bool known = ::pthread_attr_getstack(&attributes, &begin, &bytes) == 0;
  ::pthread_attr_destroy(&attributes);
  *lowest = reinterpret_cast<std::uintptr_t>(begin);
  *end = *lowest + bytes;
#if !defined(__GLIBC__)
  // Of the main thread's musl tells what it has grown to so far.
  rlimit limit{};
  const bool main_thread = ::syscall(SYS_gettid) == ::getpid();
  if (known && main_thread && ::getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur > bytes) {
    *lowest = *end - limit.rlim_cur;
  }
#endif
  return known;
}

std::size_t touch_stack(std::size_t bytes) noexcept {
  std::uintptr_t lowest = 0;
  std::uintptr_t end = 0;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (!own_stack(&lowest, &end) || here - lowest >= end - lowest) return 0;
  const std::size_t touched = std::min(bytes, (here - lowest) / 4 * 3);
  if (touched >= page_size()) touch_below(touched);
  return touched;
}

std::size_t rehearse_threads(std::size_t threads, std::size_t stack_bytes) noexcept {
  constexpr std::size_t k_most = 16;
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return 0;
  if (stack_bytes != 0) (void)::pthread_attr_setstacksize(&attributes, stack_bytes);
  Gate gate;
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  (void)::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t begun[k_most];
  std::size_t count = 0;
  while (count < threads && count < k_most && ::pthread_create(&begun[count], &attributes, rehearse, &gate) == 0) ++count;
  ::pthread_mutex_lock(&gate.mutex);
  gate.expected = count;
  ::pthread_cond_broadcast(&gate.changed);
  ::pthread_mutex_unlock(&gate.mutex);
  (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  for (std::size_t i = 0; i < count; ++i) ::pthread_join(begun[i], nullptr);
  (void)::pthread_attr_destroy(&attributes);
  return count;
}

}  // namespace rtpool::os
