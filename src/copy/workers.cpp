#include "copy/workers.hpp"

#include <pthread.h>
#include <signal.h>

#include <condition_variable>
#include <mutex>
#include <new>

#include "base/check.hpp"

namespace rtpool::copy {
namespace {

constexpr std::size_t k_stack_bytes = std::size_t{256} << 10;

// WK-1: `job` is not null exactly while its owner is inside run_job; `busy` likewise, a little longer.
// WK-2: a helper touches a job only between `++active` and `--active`, and its owner returns only at active == 0.
// WK-3: `wanted` is 0 whenever `job` is null.
struct Workers {
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable idle;
  Job* job = nullptr;
  unsigned wanted = 0;  // helpers that may still join the job
  unsigned active = 0;  // helpers inside the job
  unsigned started = 0;
  bool busy = false;
};

void renew_in_child() noexcept;

// Static storage without a destructor: helpers rest on these objects until the process is gone.
alignas(Workers) unsigned char storage[sizeof(Workers)];

Workers& workers() noexcept {
  static Workers* const instance = [] {
    auto* const made = new (storage) Workers;
    const int error = ::pthread_atfork(nullptr, nullptr, renew_in_child);
    RTPOOL_CHECK(error == 0);
    return made;
  }();
  return *instance;
}

// The child has none of the helpers, and the state may have been copied in the middle of a change.
void renew_in_child() noexcept { new (storage) Workers; }

void take_parts(Job& job) noexcept {
  bool any = false;
  for (;;) {
    const unsigned part = job.next_part.fetch_add(1, std::memory_order_relaxed);
    if (part >= job.parts) break;
    job.run_part(job, part);
    any = true;
  }
  if (any) job.finish(job);
}

void* helper_main(void*) noexcept {
  Workers& self = workers();
  std::unique_lock<std::mutex> lock(self.mutex);
  for (;;) {
    self.wake.wait(lock, [&] { return self.wanted != 0; });
    --self.wanted;
    ++self.active;
    Job& job = *self.job;
    lock.unlock();
    take_parts(job);
    lock.lock();
    if (--self.active == 0) self.idle.notify_one();
  }
  return nullptr;
}

// Signals belong to the program's own threads: helpers block them all.
bool start_helper() noexcept {
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return false;
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, k_stack_bytes);
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool made = ::pthread_create(&thread, &attributes, helper_main, nullptr) == 0;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
  if (made) ::pthread_setname_np(thread, "rtpool-copy");
  return made;
}

}  // namespace

void run_job(Job& job, unsigned threads) noexcept {
  if (threads > job.parts) threads = job.parts;
  if (threads > k_max_threads) threads = k_max_threads;
  if (threads <= 1) {
    take_parts(job);
    return;
  }
  Workers& self = workers();
  const unsigned helpers = threads - 1;
  {
    const std::lock_guard<std::mutex> lock(self.mutex);
    if (!self.busy) {
      while (self.started < helpers && start_helper()) ++self.started;
      self.busy = true;
      self.job = &job;
      self.wanted = helpers < self.started ? helpers : self.started;
      for (unsigned i = 0; i < self.wanted; ++i) self.wake.notify_one();
    }
  }
  take_parts(job);
  std::unique_lock<std::mutex> lock(self.mutex);
  if (self.job != &job) return;
  self.job = nullptr;
  self.wanted = 0;
  self.idle.wait(lock, [&] { return self.active == 0; });
  self.busy = false;
}

unsigned helper_count() noexcept {
  Workers& self = workers();
  const std::lock_guard<std::mutex> lock(self.mutex);
  return self.started;
}

}  // namespace rtpool::copy
