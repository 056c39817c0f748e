#include "pool/registry.hpp"

#include <pthread.h>

#include <atomic>
#include <mutex>

#include "os/priority_lock.hpp"
#include "pool/pool_impl.hpp"
#include "pool/scavenger.hpp"
#include "trace/recorder.hpp"

namespace rtpool::pool {
namespace {

// A slot is used again by another pool. `id` says whose the rest is, and is no pool's while the rest changes: read before and
// after it, as a version that never comes twice.
struct Slot {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::size_t> bytes{0};
  std::atomic<PoolImpl*> pool{nullptr};
  std::atomic<std::uint64_t> id{0};  // 0: empty
};

constexpr std::uint32_t k_slots = 65536;
constinit Slot g_slots[k_slots];  // zero pages: costs memory only where used
constinit std::atomic<std::uint32_t> g_high{0};

constinit os::PriorityLock g_lock;  // of the slots; nothing to destroy, as threads may end after the statics are gone

template <class Function>
void for_each_pool(Function&& function) noexcept {
  for (std::uint32_t i = 0; i < g_high.load(std::memory_order_relaxed); ++i) {
    if (PoolImpl* const pool = g_slots[i].pool.load(std::memory_order_relaxed)) function(*pool);
  }
}

void before_fork() noexcept {
  scavenger_before_fork();
  g_lock.lock();
  for_each_pool([](PoolImpl& pool) { pool.stop_for_fork(); });
  trace::recorder().stop_for_fork();
}

void after_fork_in_parent() noexcept {
  trace::recorder().resume_after_fork();
  for_each_pool([](PoolImpl& pool) { pool.resume_after_fork(false); });
  g_lock.unlock();
  scavenger_after_fork(false);
}

void after_fork_in_child() noexcept {
  os::PriorityLock::forget_thread();
  g_lock.reset_after_fork();
  trace::recorder().forget_in_child();
  forget_recordings();
  for_each_pool([](PoolImpl& pool) { pool.resume_after_fork(true); });
  scavenger_after_fork(true);
}

std::atomic<std::uint64_t> g_next_id{1};

}  // namespace

std::uint64_t new_pool_id() noexcept { return g_next_id.fetch_add(1, std::memory_order_relaxed); }

void install_fork_handlers() noexcept {
  static const int installed = ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  static_cast<void>(installed);
}

std::uint32_t registry_enter(PoolImpl& pool) noexcept {
  install_fork_handlers();
  const std::lock_guard guard(g_lock);
  for (std::uint32_t i = 0; i < k_slots; ++i) {
    Slot& slot = g_slots[i];
    if (slot.pool.load(std::memory_order_relaxed) != nullptr) continue;
    std::atomic_thread_fence(std::memory_order_release);  // who sees what follows sees the id gone, which another thread has cleared
    slot.begin.store(reinterpret_cast<std::uintptr_t>(pool.store_.view().base), std::memory_order_relaxed);
    slot.bytes.store(pool.store_.reserved(), std::memory_order_relaxed);
    slot.pool.store(&pool, std::memory_order_relaxed);
    slot.id.store(pool.heap_key_, std::memory_order_release);
    if (i >= g_high.load(std::memory_order_relaxed)) g_high.store(i + 1, std::memory_order_release);
    return i;
  }
  return k_no_slot;
}

void registry_leave(PoolImpl& pool, void (*then)(PoolImpl&) noexcept) noexcept {
  const std::lock_guard guard(g_lock);
  Slot& slot = g_slots[pool.slot_];
  slot.id.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  slot.pool.store(nullptr, std::memory_order_relaxed);
  then(pool);
}

bool registry_has(std::uint32_t slot, std::uint64_t id) noexcept { return g_slots[slot].id.load(std::memory_order_relaxed) == id; }

void registry_each(void (*function)(PoolImpl&, void*) noexcept, void* argument) noexcept {
  const std::lock_guard guard(g_lock);
  for_each_pool([&](PoolImpl& pool) { function(pool, argument); });
}

PoolImpl* registry_find(const void* address) noexcept {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  const std::uint32_t high = g_high.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < high; ++i) {
    const Slot& slot = g_slots[i];
    const std::uint64_t id = slot.id.load(std::memory_order_acquire);
    if (id == 0) continue;
    const std::size_t bytes = slot.bytes.load(std::memory_order_relaxed);
    if (value - slot.begin.load(std::memory_order_relaxed) >= bytes) continue;
    PoolImpl* const pool = slot.pool.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    // Else the pool has gone meanwhile: whoever holds a block of a pool never sees its slot change.
    if (slot.id.load(std::memory_order_relaxed) == id) return pool;
  }
  return nullptr;
}

bool registry_visit(bool (*visit)(PoolImpl& pool, void* context) noexcept, void* context) noexcept {
  const std::lock_guard guard(g_lock);
  for (std::uint32_t i = 0; i < g_high.load(std::memory_order_relaxed); ++i) {
    PoolImpl* const pool = g_slots[i].pool.load(std::memory_order_relaxed);
    if (pool != nullptr && visit(*pool, context)) return true;
  }
  return false;
}

PoolImpl* registry_next(std::uint32_t* slot) noexcept {
  const std::lock_guard guard(g_lock);
  for (; *slot < g_high.load(std::memory_order_relaxed); ++*slot) {
    PoolImpl* const pool = g_slots[*slot].pool.load(std::memory_order_relaxed);
    if (pool != nullptr && pool->add_reference_if_held()) return pool;
  }
  return nullptr;
}

Pool* Pool::next_held(std::uint32_t* slot) noexcept { return registry_next(slot); }

void registry_abandon(std::uint32_t slot, std::uint64_t id, blocks::Heap& heap) noexcept {
  const std::lock_guard guard(g_lock);
  if (registry_has(slot, id)) g_slots[slot].pool.load(std::memory_order_relaxed)->abandon(heap);
}

}  // namespace rtpool::pool
