// Learning what a loop needs, preparing it, and naming what a frozen pool missed.
#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "blocks/heap_hit.hpp"
#include "pool/pool_impl.hpp"
#include "pool/touch.hpp"

namespace rtpool::pool {

using blocks::Heap;

bool Pool::begin_learning() noexcept {
  PoolImpl& self = impl(*this);
  const std::lock_guard control(self.control_lock_);
  if (self.is_learning_.load(std::memory_order_relaxed)) return false;
  {
    const std::lock_guard guard(self.learning_lock_);
    if (!self.learning_.reset(1024, true)) return false;
  }
  self.is_learning_.store(true, std::memory_order_relaxed);
  self.set_attention(blocks::k_learning, true);
  return true;
}

bool Pool::learning() const noexcept { return impl(*this).is_learning_.load(std::memory_order_relaxed); }

std::size_t Pool::end_learning(PlanEntry* entries, std::size_t capacity) noexcept {
  PoolImpl& self = impl(*this);
  const std::lock_guard control(self.control_lock_);
  if (!self.is_learning_.load(std::memory_order_relaxed)) return 0;
  const std::lock_guard guard(self.learning_lock_);
  const std::size_t count = self.learning_.size();
  if (entries == nullptr || capacity < count) return count;  // nothing ends until the caller has room for all of it
  std::size_t used = 0;
  self.learning_.for_each([&](const SizeCount& entry) {
    entries[used++] = {entry.size, entry.requested, entry.most_alive, entry.count, entry.zeroed};
  });
  std::sort(entries, entries + used, [](const PlanEntry& a, const PlanEntry& b) { return a.size < b.size; });
  self.is_learning_.store(false, std::memory_order_relaxed);
  self.set_attention(blocks::k_learning, false);
  self.learning_.clear();
  return used;
}

void PoolImpl::learn_allocation(std::size_t granted, std::size_t requested, bool zeroed) noexcept {
  const std::lock_guard guard(learning_lock_);
  if (!learning_.ready()) return;  // ended meanwhile
  SizeCount& entry = learning_.at(granted);
  ++entry.count;
  if (zeroed) ++entry.zeroed;
  if (requested > entry.requested) entry.requested = requested;
  if (++entry.alive > static_cast<std::int64_t>(entry.most_alive)) entry.most_alive = static_cast<std::uint64_t>(entry.alive);
}

void PoolImpl::learn_release(std::size_t granted) noexcept {
  const std::lock_guard guard(learning_lock_);
  if (!learning_.ready()) return;
  // A block from before learning began, freed now, makes room that the loop will use: alive may go below zero.
  --learning_.at(granted).alive;
}

void PoolImpl::note_miss(std::size_t requested) noexcept {
  const std::lock_guard guard(learning_lock_);
  if (misses_.ready()) ++misses_.at(requested).count;
}

std::size_t Pool::misses_by_size(MissEntry* entries, std::size_t capacity) noexcept {
  PoolImpl& self = impl(*this);
  const std::lock_guard guard(self.learning_lock_);
  std::size_t used = 0;
  self.misses_.for_each([&](const SizeCount& entry) {
    if (used < capacity) entries[used] = {entry.size, entry.count};
    ++used;
  });
  if (used <= capacity) std::sort(entries, entries + used, [](const MissEntry& a, const MissEntry& b) { return a.requested < b.requested; });
  return used;
}

std::size_t Pool::prepare(const PlanEntry* entries, std::size_t count) noexcept {
  // All blocks of the plan alive at once, then freed: the thread's heap holds them as it will when the loop has run.
  std::uint64_t blocks = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (entries[i].most_alive > (std::uint64_t{1} << 32)) return i;
    blocks += entries[i].most_alive;
  }
  if (blocks == 0) return count;
  auto** const held = static_cast<void**>(std::malloc(blocks * sizeof(void*)));
  if (held == nullptr) return 0;
  std::size_t used = 0;
  std::size_t prepared = 0;
  // Large blocks first: they are the ones that need room in one piece.
  for (std::size_t i = count; i-- != 0; ++prepared) {
    std::uint64_t k = 0;
    for (; k < entries[i].most_alive; ++k) {
      void* const block = entries[i].size != 0 ? allocate(entries[i].size) : nullptr;
      if (block == nullptr) break;
      if (!contains(block)) {
        release(block);  // a fallback block is no preparation
        break;
      }
      held[used++] = block;
    }
    if (k < entries[i].most_alive) break;
  }
  // Freezing needs them: now, as nothing is to come between the touching of the blocks and the loop.
  if (!frozen()) impl(*this).store_.reserve_records(k_frozen_records);
  std::size_t at = 0;
  for (std::size_t i = count; at != used;) {
    --i;
    for (std::uint64_t k = 0; k < entries[i].most_alive && at != used; ++k) touch(held[at++], entries[i].size);
  }
  while (used != 0) release(held[--used]);
  std::free(held);
  return prepared;
}

std::size_t Pool::zero_ahead(std::size_t size, std::size_t blocks, std::size_t max_bytes) noexcept {
  PoolImpl& self = impl(*this);
  Heap* const heap = find_heap(self);
  if (heap == nullptr || size <= blocks::k_largest_small || size > self.largest_request()) return 0;
  heap->lock.enter();
  const std::size_t cleared = heap->zero_cached(static_cast<std::uint32_t>(blocks::pages_of(size)), blocks, max_bytes);
  heap->lock.leave();
  return cleared;
}

}  // namespace rtpool::pool
