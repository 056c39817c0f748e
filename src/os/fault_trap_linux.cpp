#include "os/fault_trap.hpp"

#include <csignal>

#include <atomic>
#include <cerrno>

namespace rtpool::os {
namespace {

std::atomic<bool> g_installed{false};
void (*g_explain)(const void* address) noexcept = nullptr;
struct sigaction g_previous {};

void on_fault(int number, siginfo_t* info, void* context) {
  const int saved = errno;
  // Above 0: the kernel speaks of an access. At or below: kill(2) and its like, with no address to speak of.
  if (info->si_code > 0) g_explain(info->si_addr);
  errno = saved;
  if ((g_previous.sa_flags & SA_SIGINFO) != 0 && g_previous.sa_sigaction != nullptr) {
    g_previous.sa_sigaction(number, info, context);
    return;
  }
  if (g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN) {
    g_previous.sa_handler(number);
    return;
  }
  // The default ends the process: let it, by the same access again or by the same signal.
  ::sigaction(number, &g_previous, nullptr);
  if (info->si_code <= 0) ::raise(number);
}

}  // namespace

int trap_faults(void (*explain)(const void* address) noexcept) noexcept {
  if (g_installed.exchange(true)) return 0;
  g_explain = explain;
  if (::sigaction(SIGSEGV, nullptr, &g_previous) != 0) return errno;
  struct sigaction ours {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&ours.sa_mask);
  return ::sigaction(SIGSEGV, &ours, nullptr) == 0 ? 0 : errno;
}

}  // namespace rtpool::os
