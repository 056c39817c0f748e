// Linux: FUTEX_LOCK_PI.
#include "os/priority_lock.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace rtpool::os {

std::uint32_t PriorityLock::ask_thread() noexcept {
  thread_ = static_cast<std::uint32_t>(::syscall(SYS_gettid));
  return thread_;
}

void PriorityLock::lock_slow() noexcept {
  const int saved = errno;
  for (;;) {
    if (::syscall(SYS_futex, &word_, FUTEX_LOCK_PI_PRIVATE, 0, nullptr, nullptr, 0) == 0) break;
    if (errno == EINTR || errno == EAGAIN) continue;
    std::uint32_t free = 0;
    if (word_.compare_exchange_strong(free, thread(), std::memory_order_acquire, std::memory_order_relaxed)) break;
    const timespec pause{0, 50'000};
    ::nanosleep(&pause, nullptr);
  }
  // The kernel took the lock for us: order what follows after what its last holder wrote.
  (void)word_.load(std::memory_order_acquire);
  errno = saved;
}

void PriorityLock::unlock_slow() noexcept {
  const int saved = errno;
  (void)word_.fetch_or(0, std::memory_order_release);
  if (::syscall(SYS_futex, &word_, FUTEX_UNLOCK_PI_PRIVATE, 0, nullptr, nullptr, 0) != 0) {
    word_.store(0, std::memory_order_release);
  }
  errno = saved;
}

}  // namespace rtpool::os
