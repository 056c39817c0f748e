#include "pool/scavenger.hpp"

#include <atomic>
#include <mutex>

#include "os/background.hpp"
#include "os/libc_malloc.hpp"
#include "os/priority_lock.hpp"
#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"

namespace rtpool::pool {
namespace {

using os::Nanoseconds;

constexpr Nanoseconds k_second = 1'000'000'000;
constexpr Nanoseconds k_longest_look = 2 * k_second + k_second / 2;
constexpr Nanoseconds k_shortest_look = k_second / 100;
constexpr Nanoseconds k_libc_idle = 10 * k_second;
constexpr int k_quiet_part = 50;  // of one processor's time

constinit std::atomic<std::uint32_t> g_word{0};  // counts what the thread has to look at
constinit std::atomic<bool> g_running{false};
constinit std::atomic<bool> g_forking{false};
constinit std::atomic<bool> g_trims_libc{false};
constinit os::PriorityLock g_start_lock;

// libc's heap: trimmed once after each stretch of work, when the process has been quiet for long enough.
struct LibcWatch {
  bool worked = false;
  Nanoseconds quiet_since = 0;
  Nanoseconds looked = 0;
  Nanoseconds used = 0;
};
constinit LibcWatch g_libc;

Nanoseconds least(Nanoseconds a, Nanoseconds b) noexcept { return a == os::k_for_ever || (b != os::k_for_ever && b < a) ? b : a; }

Nanoseconds look_at_libc(Nanoseconds now, bool in_section) noexcept {
  LibcWatch& watch = g_libc;
  if (!g_trims_libc.load(std::memory_order_relaxed) || !watch.worked || in_section) return os::k_for_ever;
  if (watch.looked == 0 || now - watch.looked >= k_longest_look) {
    const Nanoseconds used = os::process_time();
    if (watch.looked == 0 || (used - watch.used) * k_quiet_part > now - watch.looked) watch.quiet_since = now;
    watch.looked = now;
    watch.used = used;
    if (now - watch.quiet_since >= k_libc_idle - k_longest_look / 8) {
      os::trim_libc_malloc();
      watch = {};
      return os::k_for_ever;
    }
  }
  return watch.looked + k_longest_look - now;
}

// Looks at what is due; how long nothing will be.
Nanoseconds look_round() noexcept {
  Nanoseconds next = os::k_for_ever;
  bool in_section = false;
  bool asked = false;
  bool pressed = false;
  for (std::uint32_t slot = 0; PoolImpl* const pool = registry_next(&slot); ++slot) {
    in_section = in_section || pool->frozen();
    if (pool->idle_ != 0 && !pool->frozen() && !pool->resting_.load(std::memory_order_acquire)) {
      Nanoseconds every = pool->idle_ / 4;
      if (every > k_longest_look) every = k_longest_look;
      if (every < k_shortest_look) every = k_shortest_look;
      const Nanoseconds now = os::clock().now();
      Nanoseconds due = pool->next_look_.load(std::memory_order_relaxed);
      if (due == 0) due = now + every;  // watched again
      if (due <= now) {
        if (!asked) pressed = os::memory_pressure();
        asked = true;
        pool->look(pressed ? every : pool->idle_, every);
        due = now + every;
      }
      pool->next_look_.store(due, std::memory_order_relaxed);
      if (!pool->resting_.load(std::memory_order_relaxed)) next = least(next, due - now);
      g_libc.worked = true;
    }
    pool->drop_reference();
    if (g_forking.load(std::memory_order_relaxed)) return 0;
  }
  return least(next, look_at_libc(os::clock().now(), in_section));
}

void run() noexcept {
  for (;;) {
    const std::uint32_t seen = g_word.load(std::memory_order_acquire);
    if (g_forking.load(std::memory_order_acquire)) break;
    const Nanoseconds most = look_round();
    if (g_forking.load(std::memory_order_acquire)) break;
    if (most != 0) os::sleep_while(g_word, seen, most);
  }
  g_running.store(false, std::memory_order_release);
  g_word.fetch_add(1, std::memory_order_release);
  os::wake_sleepers(g_word);
}

}  // namespace

void scavenger_wake() noexcept {
  g_word.fetch_add(1, std::memory_order_release);
  if (g_running.load(std::memory_order_acquire)) return os::wake_sleepers(g_word);
  const std::lock_guard guard(g_start_lock);
  if (g_running.load(std::memory_order_relaxed) || g_forking.load(std::memory_order_relaxed)) return os::wake_sleepers(g_word);
  g_running.store(true, std::memory_order_relaxed);
  if (os::start_background_thread(run) != 0) g_running.store(false, std::memory_order_relaxed);
}

void scavenger_trims_libc() noexcept { g_trims_libc.store(true, std::memory_order_relaxed); }

void scavenger_before_fork() noexcept {
  g_start_lock.lock();
  g_forking.store(true, std::memory_order_release);
  for (;;) {
    const std::uint32_t seen = g_word.fetch_add(1, std::memory_order_release) + 1;
    if (!g_running.load(std::memory_order_acquire)) break;
    os::wake_sleepers(g_word);
    os::sleep_while(g_word, seen, k_second / 1000);
  }
}

void scavenger_after_fork(bool child) noexcept {
  g_forking.store(false, std::memory_order_release);
  if (child) {
    g_start_lock.reset_after_fork();
  } else {
    g_start_lock.unlock();
  }
}

}  // namespace rtpool::pool
