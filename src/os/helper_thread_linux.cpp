#include "os/helper_thread.hpp"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <cstdlib>

namespace rtpool::os {
namespace {

constexpr std::size_t k_stack_bytes = std::size_t{256} << 10;

struct Start {
  void (*function)(void*);
  void* argument;
};

void* run(void* value) noexcept {
  const Start start = *static_cast<Start*>(value);
  std::free(value);
  start.function(start.argument);
  return nullptr;
}

}  // namespace

int HelperThread::start(const char* name, void (*function)(void*), void* argument) noexcept {
  auto* const start = static_cast<Start*>(std::malloc(sizeof(Start)));
  if (start == nullptr) return ENOMEM;
  *start = {function, argument};
  pthread_attr_t attributes;
  int error = ::pthread_attr_init(&attributes);
  if (error == 0) {
    ::pthread_attr_setstacksize(&attributes, k_stack_bytes);
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread{};
    error = ::pthread_create(&thread, &attributes, run, start);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ::pthread_attr_destroy(&attributes);
    if (error == 0) {
      static_assert(sizeof(pthread_t) <= sizeof(std::uint64_t));
      thread_ = static_cast<std::uint64_t>(thread);
      running_ = true;
      ::pthread_setname_np(thread, name);
      return 0;
    }
  }
  std::free(start);
  return error;
}

void HelperThread::join() noexcept {
  if (running_) ::pthread_join(static_cast<pthread_t>(thread_), nullptr);
  running_ = false;
}

}  // namespace rtpool::os
