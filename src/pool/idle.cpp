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

// Other threads' heaps are stopped one at a time, each for some microseconds.
bool PoolImpl::age_heaps(Epoch before) noexcept {
  const Epoch now = store_.epoch();
  bool left = false;
  const std::uint32_t count = heap_count_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    Heap& heap = *heaps_[i].load(std::memory_order_relaxed);
    for (unsigned step = 0, more = 1; more != 0;) {
      if (frozen_.load(std::memory_order_relaxed) != Frozen::no) return true;
      const std::lock_guard guard(control_lock_);
      heap.lock.begin_stop();
      pass_barrier();
      heap.lock.await();
      more = heap.age(now, before, &step, &left) ? 1 : 0;
      heap.lock.resume();
    }
  }
  return left;
}

std::size_t PoolImpl::give_idle_back(Nanoseconds older_than, bool* left) noexcept {
  const std::lock_guard guard(idle_lock_);
  const Epoch before = begin_epoch(older_than);
  *left = age_heaps(before);
  if (frozen_.load(std::memory_order_relaxed) != Frozen::no) return 0;
  object_arenas_.give_kept_back(older_than);
  const std::size_t given = store_.trim(before, 1);
  *left = *left || store_.has_free_frames() || object_arenas_.counts().kept_bytes != 0;
  return given;
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
  return sum;
}

void PoolImpl::look(Nanoseconds idle, Nanoseconds every) noexcept {
  const std::uint64_t before = activity();
  bool left = false;
  give_idle_back(idle - every / 8, &left);  // looks come a little late, and then early again
  const bool used = before != seen_activity_;
  seen_activity_ = before;
  if (used || left) return;
  const std::lock_guard guard(control_lock_);
  if (frozen_.load(std::memory_order_relaxed) != Frozen::no) return;
  resting_.store(true, std::memory_order_relaxed);
  set_attention(blocks::k_resting, true);
  // Whoever has not seen the bit by now is in what follows.
  stop_heaps();
  const bool missed = activity() != before;
  resume_heaps();
  if (missed) watch_again();
}

// control_lock_ held.
void PoolImpl::watch_again() noexcept {
  next_look_.store(0, std::memory_order_relaxed);
  resting_.store(false, std::memory_order_release);
  set_attention(blocks::k_resting, false);
}

void PoolImpl::notice_slow() noexcept {
  if (idle_ == 0 || frozen_.load(std::memory_order_relaxed) != Frozen::no ||
      store_.view().committed.load(std::memory_order_relaxed) < k_least_watched) {
    return;
  }
  {
    const std::lock_guard guard(control_lock_);
    if (!resting_.load(std::memory_order_relaxed)) return;
    watch_again();
  }
  scavenger_wake();
}

}  // namespace rtpool::pool
