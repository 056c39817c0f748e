#include "realtime/sections.hpp"

#include <pthread.h>

#include <mutex>

#include "os/priority_lock.hpp"
#include "os/process_sample.hpp"

namespace rtpool::realtime {
namespace {

constinit os::PriorityLock g_lock;
constinit Section* g_first = nullptr;
constinit std::uint32_t g_forking_thread = 0;

void before_fork() noexcept {
  g_lock.lock();
  g_forking_thread = os::thread_number();
}

void after_fork_in_parent() noexcept { g_lock.unlock(); }

void after_fork_in_child() noexcept {
  os::PriorityLock::forget_thread();
  g_lock.reset_after_fork();
  const std::uint32_t mine = os::thread_number();
  for (Section** at = &g_first; *at != nullptr;) {
    Section& section = **at;
    if (section.thread == g_forking_thread) {
      section.thread = mine;
      at = &section.next;
    } else {
      section.thread = 0;
      *at = section.next;
    }
  }
}

}  // namespace

void Section::enter() noexcept {
  static const int installed = ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  static_cast<void>(installed);
  const std::lock_guard guard(g_lock);
  if (thread != 0) return;
  thread = os::thread_number();
  next = g_first;
  g_first = this;
}

void Section::leave() noexcept {
  const std::lock_guard guard(g_lock);
  if (thread == 0) return;
  for (Section** at = &g_first; *at != nullptr; at = &(*at)->next) {
    if (*at != this) continue;
    *at = next;
    break;
  }
  thread = 0;
}

std::size_t read_sections(SectionFigures* out, std::size_t capacity) noexcept {
  const std::lock_guard guard(g_lock);
  std::size_t count = 0;
  for (const Section* section = g_first; section != nullptr; section = section->next, ++count) {
    if (count >= capacity) continue;
    out[count] = {section->thread,           section->begun.get(),      section->iterations.get(),
                  section->overruns.get(),   section->skipped.get(),    section->period.get(),
                  section->last_index.get(), section->last_instant.get(), section->last_duration.get()};
  }
  return count;
}

}  // namespace rtpool::realtime
