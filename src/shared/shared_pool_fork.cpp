// The registry, and what happens around a fork.
//
// The parent takes a process slot for the child before the fork, so that there is no instant at which the child lives and
// nobody knows that it holds what it inherited; the child fills the slot in. Everything that lives in the parent at the
// fork is pinned: if the parent frees it, that waits until the child (and who inherited from it) is gone.
#include <pthread.h>

#include <atomic>
#include <cstdio>

#include "base/check.hpp"
#include "os/segment_door.hpp"
#include "shared/address_ranges.hpp"
#include "shared/registry.hpp"

namespace rtpool::shared {
namespace {

constinit os::PriorityLock g_lock;  // of what follows; nothing to destroy, as arrays go after every static is gone
SharedPool* g_first = nullptr;

constinit AddressRanges g_ranges;  // changed under g_lock
std::atomic<unsigned> g_without_range{0};

}  // namespace

Registry::Lock::Lock() noexcept { g_lock.lock(); }
Registry::Lock::~Lock() { g_lock.unlock(); }

void Registry::install_fork_handlers() noexcept {
  static const int installed =
      ::pthread_atfork(SharedPool::before_fork, SharedPool::after_fork_in_parent, SharedPool::after_fork_in_child);
  if (installed != 0) base::report_line("no handlers around fork (no memory): do not fork while a shared pool is open");
}

void Registry::add(SharedPool* pool) noexcept {
  install_fork_handlers();
  pool->next_ = g_first;
  g_first = pool;
  const auto begin = reinterpret_cast<std::uintptr_t>(pool->data());
  if (!g_ranges.add(pool, begin, pool->geometry().data_bytes)) g_without_range.fetch_add(1);
}

void Registry::remove(SharedPool* pool) noexcept {
  for (SharedPool** at = &g_first; *at != nullptr; at = &(*at)->next_) {
    if (*at != pool) continue;
    *at = pool->next_;
    if (!g_ranges.remove(pool)) g_without_range.fetch_sub(1);
    return;
  }
}

SharedPool* Registry::find(const os::SegmentId& id) noexcept {
  for (SharedPool* pool = g_first; pool != nullptr; pool = pool->next_) {
    if (pool->segment_.made().id == id && pool->add_reference_if_any()) return pool;
  }
  return nullptr;
}

SharedPool* Registry::find(const void* address) noexcept {
  for (SharedPool* pool = g_first; pool != nullptr; pool = pool->next_) {
    if (pool->contains(address)) return pool;
  }
  return nullptr;
}

bool SharedPool::locate(const void* address, char* name, std::size_t capacity, bool* tables) noexcept {
  const Registry::Lock registry;
  for (const SharedPool* pool = Registry::first(); pool != nullptr; pool = Registry::next(pool)) {
    if (!pool->segment_.covers(address)) continue;
    std::snprintf(name, capacity, "%s", pool->name());
    *tables = !pool->contains(address);
    return true;
  }
  return false;
}

SharedPool* Registry::find_block(const void* address) noexcept {
  SharedPool* const found = g_ranges.find(reinterpret_cast<std::uintptr_t>(address));
  if (found != nullptr) return found;
  if (g_without_range.load(std::memory_order_relaxed) == 0) return nullptr;
  const Lock registry;
  return find(address);
}

SharedPool* SharedPool::find_fallback_block(const void* address) noexcept {
  if (pool::FallbackTable::count_of_all() == 0) return nullptr;
  const Registry::Lock registry;
  std::size_t size = 0;
  for (SharedPool* pool = Registry::first(); pool != nullptr; pool = Registry::next(pool)) {
    if (pool->fallback_table_.find(address, &size)) return pool;
  }
  return nullptr;
}

SharedPool* Registry::first() noexcept { return g_first; }

void SharedPool::before_fork() noexcept {
  g_lock.lock();
  for (SharedPool* pool = g_first; pool != nullptr; pool = pool->next_) {
    pool->mutex_.lock();
    pool->fallback_table_.lock().lock();
    pool->fork_child_ = Tenancy{};
    if (!pool->ready()) continue;
    if (pool->processes_.reserve_for_fork(pool->tenancy_, &pool->fork_child_) != 0 &&
        (!pool->recovery_.run(pool->tenancy_) ||
         pool->processes_.reserve_for_fork(pool->tenancy_, &pool->fork_child_) != 0)) {
      base::report_line("shared pool: %u processes have joined, no slot for a forked child; it must not use the arrays "
                        "it inherits", k_processes);
      continue;
    }
    pool->has_children_ = true;
    pool->heap_->pin_all();
    for (std::uint32_t i = 0; i < pool->geometry().records; ++i) {
      if (pool->holds_[i].count != 0) pool->holds_[i].pinned = true;
    }
  }
}

void SharedPool::after_fork_in_parent() noexcept {
  for (SharedPool* pool = g_first; pool != nullptr; pool = pool->next_) {
    pool->fallback_table_.lock().unlock();
    pool->mutex_.unlock();
  }
  g_lock.unlock();
}

void SharedPool::after_fork_in_child() noexcept {
  os::PriorityLock::forget_thread();
  os::forget_offers_after_fork();
  forget_recordings();
  for (SharedPool* pool = g_first; pool != nullptr; pool = pool->next_) {
    pool->mutex_.reset_after_fork();
    pool->fallback_table_.lock().reset_after_fork();
    if (pool->fork_child_ && pool->processes_.adopt_fork(pool->fork_child_) != 0) {
      base::report_line("shared pool: the slot of this forked process was taken back; the arrays it inherited may change");
      pool->fork_child_ = Tenancy{};
    }
    pool->become_child(pool->fork_child_);
  }
  g_lock.reset_after_fork();
}

// What the parent had becomes something to look addresses up in; nothing is allocated here.
void SharedPool::become_child(Tenancy tenancy) noexcept {
  tenancy_ = tenancy;
  ++lineage_;
  if (heap_ != nullptr) {
    heap_->set_older(inherited_heap_);
    inherited_heap_ = heap_;
    heap_ = nullptr;
  }
  deferred_count_ = 0;
  has_children_ = false;
  returned_ = 0;
  given_back_.store(0, std::memory_order_relaxed);
  misses_ = fallbacks_ = failures_ = misuses_ = 0;
}

// The first use in a child.
bool SharedPool::reborn() noexcept {
  if (!tenancy_ && processes_.join(&tenancy_) != 0) return false;
  heap_ = Heap::make(segment_, granules_, tenancy_);
  if (heap_ == nullptr) return false;
  watch_ends();
  (void)os::offer_segment(segment_.made().id, segment_.fd());
  for (std::uint32_t i = 0; i < geometry().records; ++i) holds_[i] = Hold{};
  return true;
}

}  // namespace rtpool::shared
