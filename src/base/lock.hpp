// A mutex that passes the priority of its highest waiter on to its holder (PTHREAD_PRIO_INHERIT).
//
// Uncontended lock and unlock stay in user space. Thread rule: as std::mutex. Cost: one atomic exchange each way; the
// kernel is entered only when threads collide. Failure: none; where priority inheritance is missing it is a plain mutex.
#pragma once

#include <pthread.h>

namespace rtpool::base {

class PriorityMutex {
 public:
  PriorityMutex() noexcept { initialise(); }
  ~PriorityMutex() { ::pthread_mutex_destroy(&mutex_); }
  PriorityMutex(const PriorityMutex&) = delete;
  PriorityMutex& operator=(const PriorityMutex&) = delete;

  void lock() noexcept { ::pthread_mutex_lock(&mutex_); }
  bool try_lock() noexcept { return ::pthread_mutex_trylock(&mutex_) == 0; }
  void unlock() noexcept { ::pthread_mutex_unlock(&mutex_); }

  // In a forked child only: the mutex was held by a thread id that does not exist there. Makes it new and free.
  void reset_after_fork() noexcept { initialise(); }

 private:
  void initialise() noexcept {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    if (::pthread_mutex_init(&mutex_, &attributes) != 0) ::pthread_mutex_init(&mutex_, nullptr);
    ::pthread_mutexattr_destroy(&attributes);
  }

  pthread_mutex_t mutex_;
};

template <class Mutex>
class [[nodiscard]] Guard {
 public:
  explicit Guard(Mutex& mutex) noexcept : mutex_(mutex) { mutex_.lock(); }
  ~Guard() { mutex_.unlock(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace rtpool::base
