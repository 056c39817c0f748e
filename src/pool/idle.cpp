// What a pool gives back that has not been used for long: by the scavenger's looks and by `trim` with an age.
#include <mutex>

#include "blocks/heap_hit.hpp"
#include "pool/pool_impl.hpp"
#include "pool/scavenger.hpp"

namespace rtpool::pool {

using blocks::Heap;
using os::Nanoseconds;
using pages::Epoch;

// Begins an epoch and says since before which one memory must not have been used that is to be `older_than`. The first time
// nothing is known of what heaps hold but that it has not been used since the last growth, as far as misses show.
Epoch PoolImpl::begin_epoch(Nanoseconds older_than) noexcept {
  const Nanoseconds now = os::clock().now();
  const bool first = store_.epoch() == pages::PageStore::k_first_epoch;
  store_.begin_epoch();
  const Epoch epoch = store_.epoch();
  began_[epoch % k_epochs_known] = now;
  if (first && now - grown_at_.load(std::memory_order_relaxed) >= older_than) return epoch;
  for (Epoch e = epoch; e + k_epochs_known > epoch && e > pages::PageStore::k_first_epoch; --e) {
    if (now - began_[e % k_epochs_known] >= older_than) return e;
  }
  return 0;
}

bool PoolImpl::cut_short() const noexcept {
  return frozen_.load(std::memory_order_relaxed) != Frozen::no || scavenger_called_off();
}

// A heap whose owner is in a slow path, which may be in the kernel for long, or is not running just now, is left for later:
// others may wait for the control lock, and for this heap's.
bool PoolImpl::try_stop(Heap& heap) noexcept {
  control_lock_.lock();
  if (heap.lock.try_begin_stop()) {
    pass_barrier();
    if (heap.lock.try_await()) return true;
    heap.lock.resume();
  }
  control_lock_.unlock();
  return false;
}

void PoolImpl::resume(Heap& heap) noexcept {
  heap.lock.resume();
  control_lock_.unlock();
}

// Whether something is left that could go later. Whoever waits for the heap or the pool does so for one step.
bool PoolImpl::age_heap(Heap& heap, Epoch before) noexcept {
  constexpr unsigned k_steps_held = 32;
  constexpr unsigned k_most_refusals = 32;
  constexpr Nanoseconds k_pause = 100'000;
  const Epoch now = store_.epoch();
  Heap::Aging at;
  for (unsigned refusals = 0; !cut_short();) {
    if (!try_stop(heap)) {
      if (++refusals == k_most_refusals) return true;
      os::clock().sleep_until(os::clock().now() + k_pause);
      continue;
    }
    bool more = true;
    for (unsigned steps = 0; more && steps < k_steps_held; ++steps) {
      if (steps != 0 && (heap.lock.wanted() || control_lock_.wanted() || cut_short())) break;
      more = heap.age(now, before, &at);
    }
    resume(heap);
    if (!more) return at.left;
  }
  return true;
}

std::size_t PoolImpl::give_idle_back(Nanoseconds older_than, bool* left) noexcept {
  const std::lock_guard guard(idle_lock_);
  *left = cut_short();
  if (*left) return 0;
  // The first one of a process takes milliseconds (the kernel waits for all processors): not with a heap stopped.
  (void)memory_->process_barrier();
  const Epoch before = begin_epoch(older_than);
  const std::uint32_t count = heap_count_.load(std::memory_order_acquire);
  // To others, so all of them before any takes back.
  for (std::uint32_t i = 0; i < count && !cut_short(); ++i) {
    Heap& heap = *heaps_[i].load(std::memory_order_relaxed);
    if (!heap.has_outgoing()) continue;
    if (!try_stop(heap)) {
      *left = true;
      continue;
    }
    send_outgoing(heap);
    resume(heap);
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    if (age_heap(*heaps_[i].load(std::memory_order_relaxed), before)) *left = true;
  }
  while (!cut_short() && object_arenas_.give_kept_back(older_than, 1) != 0) {
  }
  pages::PageStore::Trimming at;
  while (!cut_short() && store_.trim_step(before, 1, &at)) {
  }
  *left = *left || at.left || cut_short() || object_arenas_.counts().kept_bytes != 0;
  return at.given;
}

std::size_t Pool::trim(Nanoseconds older_than) noexcept {
  if (older_than <= 0) return trim();
  if (frozen()) return 0;
  bool left = false;
  return impl(*this).give_idle_back(older_than, &left);
}

std::uint64_t PoolImpl::activity() noexcept {
  std::uint64_t sum = stranger_frees_.sums().count;
  for_each_heap([&](Heap& heap) {
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
    heap.totals(&count, &bytes);
    sum += 2 * count - heap.live_count() + heap.stats.given_count.get();
  });
  const ObjectArenas::Counts objects = object_arenas_.counts();
  return sum + 2 * (objects.hits + objects.misses) - objects.count;
}

void PoolImpl::look(Nanoseconds idle, Nanoseconds every) noexcept {
  const std::uint64_t before = activity();
  bool left = false;
  give_idle_back(idle - every / 8, &left);  // looks come a little late, and then early again
  const bool used = before != seen_activity_;
  seen_activity_ = before;
  if (used || left) return;
  {
    const std::lock_guard guard(control_lock_);
    if (frozen_.load(std::memory_order_relaxed) != Frozen::no) return;
    resting_.store(true, std::memory_order_relaxed);
    set_attention(blocks::k_resting, true);
    pass_barrier();
  }
  // Whoever has not seen the bit by now is in what follows, or is still inside: then the pool is in use.
  bool settled = true;
  for_each_heap([&](Heap& heap) { settled = settled && heap.lock.settled(); });
  if (settled && activity() == before) return;
  const std::lock_guard guard(control_lock_);
  if (resting_.load(std::memory_order_relaxed)) watch_again();
}

// control_lock_ held.
void PoolImpl::watch_again() noexcept {
  next_look_.store(0, std::memory_order_relaxed);
  resting_.store(false, std::memory_order_release);
  set_attention(blocks::k_resting, false);
}

// A small pool that leaves room for others, which no program asked for, has little to give back: no thread is made for it, unless
// libc keeps its memory, too: how much that is nobody sees, and only the pool tells of a program that works.
bool PoolImpl::may_be_watched() const noexcept {
  const std::size_t least = store_.spare() == 0 || scavenger_trims_libc() ? 1 : k_least_watched;
  return idle_ != 0 && frozen_.load(std::memory_order_relaxed) == Frozen::no &&
         store_.view().committed.load(std::memory_order_relaxed) >= least;
}

bool PoolImpl::resume_watch() noexcept {
  if (!may_be_watched()) return false;
  const std::lock_guard guard(control_lock_);
  if (resting_.load(std::memory_order_relaxed)) watch_again();
  return true;
}

void PoolImpl::notice_slow() noexcept {
  if (!may_be_watched()) return;
  {
    const std::lock_guard guard(control_lock_);
    if (!resting_.load(std::memory_order_relaxed)) return;
    watch_again();
  }
  scavenger_wake();
}

}  // namespace rtpool::pool
