#include "pool/scavenger.hpp"

#include <atomic>
#include <mutex>

#include "os/helper_thread.hpp"
#include "os/libc_malloc.hpp"
#include "os/memory_pressure.hpp"
#include "os/priority_lock.hpp"
#include "os/process_sample.hpp"
#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"

namespace rtpool::pool {
namespace {

using os::Nanoseconds;

constexpr Nanoseconds k_second = 1'000'000'000;
constexpr Nanoseconds k_hurried_look = 2 * k_second + k_second / 2;
constexpr Nanoseconds k_longest_look = 10 * k_second;
constexpr Nanoseconds k_shortest_look = k_second / 100;
constexpr Nanoseconds k_libc_idle = 10 * k_second;
constexpr int k_quiet_part = 50;  // of one processor's time

constinit std::atomic<std::uint32_t> g_word{0};  // counts what the thread has to look at
constinit std::atomic<bool> g_forking{false};
constinit std::atomic<bool> g_trims_libc{false};
constinit os::PriorityLock g_start_lock;  // of the thread, and of waking it: nobody is in the middle of that at a fork
constinit os::HelperThread g_thread;
constinit os::MemoryPressure* g_pressure = nullptr;  // set while there is no thread

os::MemoryPressure& pressure() noexcept { return g_pressure != nullptr ? *g_pressure : os::memory_pressure(); }

// libc's heap: trimmed once after each stretch of work, when the process has been quiet for long enough.
struct LibcWatch {
  bool worked = false;
  Nanoseconds idle = k_libc_idle;  // the shortest of the pools that were in use meanwhile
  Nanoseconds quiet_since = 0;
  Nanoseconds looked = 0;
  Nanoseconds used = 0;
};
constinit LibcWatch g_libc;
constinit os::PriorityLock g_libc_lock;  // held while libc's heap is trimmed

Nanoseconds least(Nanoseconds a, Nanoseconds b) noexcept { return a == os::k_for_ever || (b != os::k_for_ever && b < a) ? b : a; }

Nanoseconds look_at_libc(Nanoseconds now, bool in_section) noexcept {
  LibcWatch& watch = g_libc;
  if (!scavenger_trims_libc() || !watch.worked || in_section) return os::k_for_ever;
  const Nanoseconds every = least(k_hurried_look, watch.idle / 4 > k_shortest_look ? watch.idle / 4 : k_shortest_look);
  if (watch.looked == 0 || now - watch.looked >= every) {
    const Nanoseconds used = os::process_time();
    if (watch.looked == 0 || (used - watch.used) * k_quiet_part > now - watch.looked) watch.quiet_since = now;
    watch.looked = now;
    watch.used = used;
    if (now - watch.quiet_since >= watch.idle - every / 8) {
      const std::lock_guard guard(g_libc_lock);
      if (Pool::any_frozen()) return os::k_for_ever;  // since the look; its end wakes the thread
      os::trim_libc_malloc();
      watch = {};
      return os::k_for_ever;
    }
  }
  return watch.looked + every - now;
}

// What the thread keeps from one round to the next.
struct Rounds {
  bool told = false;        // the trigger says that there is pressure
  bool pressed = false;     // there was at the last look
  bool triggered = false;   // the trigger is set
  bool no_trigger = false;  // it was refused
};

// How far apart the looks at a pool are.
Nanoseconds pace(const PoolImpl& pool, const Rounds& rounds) noexcept {
  const Nanoseconds quarter = pool.idle_ / 4;
  const Nanoseconds most = rounds.pressed || !rounds.triggered ? k_hurried_look : k_longest_look;
  return quarter < k_shortest_look ? k_shortest_look : quarter > most ? most : quarter;
}

// Looks at what is due; how long nothing will be.
Nanoseconds look_round(Rounds* rounds) noexcept {
  Nanoseconds next = os::k_for_ever;
  bool in_section = false;
  bool asked = false;
  bool wants_trigger = false;
  for (std::uint32_t slot = 0; PoolImpl* const pool = registry_next(&slot); ++slot) {
    in_section = in_section || pool->frozen();
    if (pool->idle_ != 0 && !pool->frozen() && !pool->resting_.load(std::memory_order_acquire)) {
      const Nanoseconds now = os::clock().now();
      if (pool->idle_ / 4 > k_hurried_look && !rounds->triggered && !rounds->no_trigger) {
        rounds->triggered = pressure().watch() == 0;
        rounds->no_trigger = !rounds->triggered;
      }
      Nanoseconds due = pool->next_look_.load(std::memory_order_relaxed);
      if (due == 0) due = now + pace(*pool, *rounds);  // watched again
      if (due <= now || rounds->told) {
        if (!asked) rounds->pressed = pressure().now() || rounds->told;
        asked = true;
        const Nanoseconds every = pace(*pool, *rounds);
        pool->look(rounds->pressed ? every : pool->idle_, every);
        due = now + every;
      }
      pool->next_look_.store(due, std::memory_order_relaxed);
      if (!pool->resting_.load(std::memory_order_relaxed)) {
        next = least(next, due - now);
        wants_trigger = wants_trigger || pool->idle_ / 4 > k_hurried_look;
      }
      g_libc.worked = true;
      g_libc.idle = least(g_libc.idle, pool->idle_);
    }
    pool->drop_reference();
    if (scavenger_called_off()) return 0;
  }
  rounds->told = false;
  if (!wants_trigger) {
    if (rounds->triggered) pressure().unwatch();
    rounds->triggered = rounds->no_trigger = false;
  }
  return least(next, look_at_libc(os::clock().now(), in_section));
}

void run(void*) noexcept {
  // What a look touches first faults now, while the program still begins, and not in the middle of a loop.
  (void)pressure().now();
  Rounds rounds;
  while (!scavenger_called_off()) {
    const std::uint32_t seen = g_word.load(std::memory_order_acquire);
    const Nanoseconds most = look_round(&rounds);
    if (scavenger_called_off()) break;
    rounds.told = most != 0 && pressure().sleep_while(g_word, seen, most);
  }
  pressure().unwatch();
}

}  // namespace

void scavenger_wake() noexcept {
  const std::lock_guard guard(g_start_lock);
  g_word.fetch_add(1, std::memory_order_release);
  if (g_thread.running()) return pressure().wake(g_word);
  // Where no thread can be had the next use of a pool tries again.
  if (!scavenger_called_off()) (void)g_thread.start("rtpool-idle", run, nullptr);
}

void scavenger_resume() noexcept {
  bool any = false;
  registry_each([](PoolImpl& pool, void* found) noexcept { *static_cast<bool*>(found) |= pool.resume_watch(); }, &any);
  if (any) scavenger_wake();
}

void scavenger_frozen() noexcept {
  g_libc_lock.lock();
  g_libc_lock.unlock();
}

void scavenger_thawed() noexcept {
  const std::lock_guard guard(g_start_lock);
  if (!scavenger_trims_libc() || !g_thread.running()) return;
  g_word.fetch_add(1, std::memory_order_release);
  pressure().wake(g_word);
}

void scavenger_trim_libc() noexcept { g_trims_libc.store(true, std::memory_order_relaxed); }

bool scavenger_trims_libc() noexcept { return g_trims_libc.load(std::memory_order_relaxed); }

bool scavenger_called_off() noexcept { return g_forking.load(std::memory_order_acquire); }

void scavenger_before_fork() noexcept {
  g_start_lock.lock();
  g_forking.store(true, std::memory_order_release);
  g_word.fetch_add(1, std::memory_order_release);
  if (g_thread.running()) pressure().wake(g_word);
  g_thread.join();
}

void scavenger_after_fork(bool child) noexcept {
  g_forking.store(false, std::memory_order_release);
  if (child) {
    g_libc_lock.reset_after_fork();
    g_start_lock.reset_after_fork();
  } else {
    g_start_lock.unlock();
  }
}

void scavenger_listen_to(os::MemoryPressure* pressure) noexcept { g_pressure = pressure; }

}  // namespace rtpool::pool
