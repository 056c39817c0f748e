// Statistics, trimming, freezing, and the walk of all invariants.
#include <bit>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "base/check.hpp"
#include "blocks/heap_hit.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"
#include "pool/registry.hpp"
#include "pool/scavenger.hpp"

namespace rtpool::pool {

using blocks::Heap;
using pages::PageDesc;
using pages::PageIndex;
using pages::RunState;

namespace {

std::atomic<std::uint32_t> g_frozen_pools{0};
std::atomic<void (*)() noexcept> g_freeze_listener{nullptr};

}  // namespace

Stats Pool::stats() noexcept {
  PoolImpl& self = impl(*this);
  Stats stats;
  const StrangerFrees::Sums strangers = self.stranger_frees_.sums();
  std::uint64_t given_bytes = strangers.bytes;
  std::uint64_t given_count = strangers.count;
  stats.requested_bytes = 0 - strangers.requested;
  std::uint64_t drained_bytes = 0;
  std::uint64_t drained_count = 0;
  std::uint64_t served_misses = 0;
  std::size_t largest_cached = 0;
  self.for_each_heap([&](Heap& heap) {
    const blocks::HeapStats& own = heap.stats;
    stats.current_bytes += heap.live_bytes();
    stats.current_count += heap.live_count();
    stats.peak_bytes += own.peak_bytes.get();
    stats.peak_count += own.peak_count.get();
    heap.totals(&stats.total_count, &stats.total_bytes);
    stats.requested_bytes += heap.requested_bytes() - own.given_requested.get();
    served_misses += own.misses.get();
    given_bytes += own.given_bytes.get();
    given_count += own.given_count.get();
    drained_bytes += own.drained_bytes.get();
    drained_count += own.drained_count.get();
  });
  // Freed by another thread but not yet taken back by the owner: not alive.
  stats.current_bytes -= given_bytes - drained_bytes;
  stats.current_count -= given_count - drained_count;
  stats.remote_frees = given_count;
  stats.capacity_bytes = self.store_.held();
  stats.resident_bytes = self.frozen_.load() == Frozen::no ? self.store_.resident() : stats.capacity_bytes;
  stats.misses = served_misses + self.heapless_misses_.load(std::memory_order_relaxed);
  stats.hits = stats.total_count - served_misses;
  stats.growths = self.store_.growths();
  stats.kernel_calls = self.store_.kernel_calls();
  stats.returned_bytes = self.store_.returned_bytes();
  stats.fallbacks = self.fallbacks_.load(std::memory_order_relaxed);
  stats.failures = self.failures_.load(std::memory_order_relaxed);
  stats.misuses = self.misuses_.load(std::memory_order_relaxed);
  if (Heap* const own = find_heap(self)) {
    own->lock.enter();
    largest_cached = own->largest_cached();
    own->lock.leave();
  }
  const std::size_t largest_free = self.store_.largest_free();
  stats.largest_free_bytes = largest_free > largest_cached ? largest_free : largest_cached;
  stats.fallback_count = self.fallback_table_.count();
  const ObjectArenas::Counts objects = self.object_arenas_.counts();
  stats.object_bytes = objects.bytes;
  stats.object_count = objects.count;
  stats.object_peak_bytes = objects.peak_bytes;
  stats.object_kept_bytes = objects.kept_bytes;
  stats.object_hits = objects.hits;
  stats.object_misses = objects.misses + objects.refusals;
  stats.object_fallbacks = objects.refusals;
  if (self.debug_ != nullptr) self.debug_->correct(&stats);
  return stats;
}

std::size_t Pool::live_blocks() noexcept {
  PoolImpl& self = impl(*this);
  if (self.debug_ != nullptr) return self.debug_->live_count();
  std::uint64_t live = self.fallback_table_.count() - self.stranger_frees_.sums().count;
  self.for_each_heap([&](Heap& heap) {
    live += heap.live_count() - heap.stats.given_count.get() + heap.stats.drained_count.get();
  });
  return live;
}

void Pool::reset_peak() noexcept {
  PoolImpl& self = impl(*this);
  const std::lock_guard guard(self.control_lock_);
  self.stop_heaps();
  self.for_each_heap([&](Heap& heap) { self.send_outgoing(heap); });
  self.for_each_heap([](Heap& heap) {
    while (heap.drain(blocks::k_drain_blocks)) {
    }
    heap.reset_peak();
  });
  self.resume_heaps();
  self.object_arenas_.reset_peak();
  if (self.debug_ != nullptr) self.debug_->reset_peak();
}

std::size_t Pool::trim() noexcept {
  PoolImpl& self = impl(*this);
  if (frozen()) return 0;
  return self.give_up_free_memory();
}

std::size_t Pool::absent_ranges(os::AddressRange* out, std::size_t capacity) noexcept {
  struct Filling {
    os::AddressRange* out;
    std::size_t room;
  } filling{out, capacity};
  registry_each(
      [](PoolImpl& pool, void* argument) noexcept {
        auto& at = *static_cast<Filling*>(argument);
        const std::size_t count = pool.store_.absent_ranges(at.out, at.room);
        at.out += count;
        at.room -= count;
      },
      &filling);
  return static_cast<std::size_t>(filling.out - out);
}

void Pool::restrain(const Restraint& restraint) noexcept {
  impl(*this).store_.set_spare(restraint.spare);
  impl(*this).most_zeroed_.store(restraint.most_zeroed, std::memory_order_relaxed);
}

Restraint Pool::restraint() const noexcept {
  return {impl(*this).store_.spare(), impl(*this).most_zeroed_.load(std::memory_order_relaxed)};
}

void Pool::freeze(OnMiss on_miss) noexcept {
  PoolImpl& self = impl(*this);
  self.store_.reserve_records(k_frozen_records);
  {
    const std::lock_guard guard(self.learning_lock_);
    self.misses_.reset(1024, false);
  }
  // No place of an event may fault from here on.
  if (recording()) (void)self.origins_.make_resident(*self.memory_, self.store_.view().committed.load(std::memory_order_relaxed));
  const Frozen how = on_miss == OnMiss::raise ? Frozen::raise : Frozen::fallback;
  const bool first = self.frozen_.exchange(how, std::memory_order_acq_rel) == Frozen::no;
  if (first) g_frozen_pools.fetch_add(1, std::memory_order_relaxed);
  // What is freed serves everybody's next request: nobody can be asked for it then.
  self.store_.set_prompt(true);
  self.store_.share();  // who looks at the pool from elsewhere interrupts nobody
  {
    const std::lock_guard guard(self.control_lock_);
    self.stop_heaps();
    self.for_each_heap([&](Heap& heap) {
      self.send_outgoing(heap);
      heap.give_departing();
    });
    self.resume_heaps();
  }
  // A frame may just be on its way to the kernel; it is the last one.
  self.idle_lock_.lock();
  self.idle_lock_.unlock();
  scavenger_frozen();
  // A debug pool's frames are cut by pages that nobody may touch.
  if (first && self.debug_ == nullptr) self.store_.gather_frames();
  {
    // A frozen pool is not looked at, and its hits pay nothing for saying so.
    const std::lock_guard guard(self.control_lock_);
    if (self.resting_.load(std::memory_order_relaxed)) self.watch_again();
  }
  if (auto* const listener = g_freeze_listener.load(std::memory_order_acquire)) listener();
}

void PoolImpl::thaw() noexcept {
  store_.set_prompt(false);
  if (frozen_.exchange(Frozen::no, std::memory_order_acq_rel) != Frozen::no) g_frozen_pools.fetch_sub(1, std::memory_order_relaxed);
}

void Pool::unfreeze() noexcept {
  impl(*this).thaw();
  if (impl(*this).idle_ != 0) return scavenger_wake();
  scavenger_thawed();
}

void Pool::set_freeze_listener(void (*listener)() noexcept) noexcept { g_freeze_listener.store(listener, std::memory_order_release); }

bool Pool::any_frozen() noexcept { return g_frozen_pools.load(std::memory_order_relaxed) != 0; }

bool Pool::frozen() const noexcept { return impl(*this).frozen_.load(std::memory_order_relaxed) != Frozen::no; }

namespace {

CheckResult broken(const char* invariant, PageIndex page, const char* what) noexcept {
  CheckResult result;
  result.ok = false;
  std::snprintf(result.invariant, sizeof result.invariant, "%s", invariant);
  std::snprintf(result.text, sizeof result.text, "%s (page %u)", what, page);
  return result;
}

struct Walked {
  std::uint64_t owned_bytes = 0;
  std::uint64_t live_bytes = 0;
  std::uint64_t live_count = 0;
  ObjectArenas::Walked objects;
};

// PG-1: every committed page belongs to exactly one run. Adds up what is alive, remotely freed or at hand. PoolImpl::hold_pages.
CheckResult walk_pages(PoolImpl& pool, Walked* walked) noexcept {
  const PageIndex committed = pool.store_.committed_pages();
  const PageDesc* const descs = pool.store_.view().descs;
  for (PageIndex page = 0; page < committed;) {
    const PageDesc& desc = descs[page];
    // First this: a thread that frees another heap's run writes first `remote` and then the next one of its list here.
    const PageIndex next = desc.run.next.load(std::memory_order_acquire);
    const RunState state = desc.state();
    if (state == RunState::none || state == RunState::free_last || state == RunState::in_object_arena) return broken("PG-1", page, "page belongs to no run");
    const std::uint32_t length = state == RunState::slab ? blocks::slab_of_page(desc, page)->pages : desc.pages;
    if (length == 0 || length > committed - page) return broken("PD-3", page, "run reaches past the arena");
    if (state == RunState::remote || (state == RunState::heap && (next == pages::k_live || next == pages::k_remote))) {
      walked->live_bytes += std::size_t{desc.pages} * os::k_page_size;
      ++walked->live_count;
    } else if (state == RunState::object_arena) {
      (next == pages::k_live ? walked->objects.bytes : walked->objects.kept_bytes) += std::size_t{length} * os::k_page_size;
      for (PageIndex inner = page + 1; inner < page + length; ++inner) {
        if (descs[inner].state() != RunState::in_object_arena) return broken("OA-1", inner, "page is not marked as its arena's");
      }
    } else if (state == RunState::slab) {
      const blocks::Slab& slab = *blocks::slab_of_page(desc, page);
      for (unsigned unit = 0; unit < blocks::slab_units(slab.size_class); ++unit) {
        const std::uint16_t unit_state = slab.states()[unit].load(std::memory_order_relaxed);
        if (unit_state != 0 && unit % slab.size_class != 0) return broken("SL-1", page, "block state off the block grid");
      }
      // Not by their states: others free meanwhile.
      const auto taken = static_cast<std::uint64_t>(std::popcount(slab.all & ~slab.free));
      walked->live_bytes += taken * blocks::class_bytes(slab.size_class);
      walked->live_count += taken;
    }
    if (state == RunState::heap || state == RunState::remote || state == RunState::slab) {
      walked->owned_bytes += std::size_t{length} * os::k_page_size;
    }
    page += length;
  }
  return {};
}

}  // namespace

CheckResult Pool::check() noexcept {
  PoolImpl& self = impl(*this);
  const std::lock_guard guard(self.control_lock_);
  self.stop_heaps();
  CheckResult result;
  Walked walked;
  Walked counted;
  self.hold_pages();
  if (const char* const id = self.store_.validate_locked()) result = broken(id, 0, "the free page runs are inconsistent");
  if (result.ok) result = walk_pages(self, &walked);
  if (const char* const id = result.ok ? self.object_arenas_.validate_locked(walked.objects) : nullptr) {
    result = broken(id, 0, "the object arenas differ from the runs found");
  }
  self.let_pages_go();
  self.for_each_heap([&](Heap& heap) {
    counted.live_bytes += heap.live_bytes();
    counted.live_count += heap.live_count();
    counted.owned_bytes += heap.owned_bytes();
    heap.count_at_hand(&counted.live_count, &counted.live_bytes);
    if (const char* const id = result.ok ? heap.validate() : nullptr) result = broken(id, heap.index(), "a thread heap is inconsistent");
  });
  if (result.ok && (counted.live_bytes != walked.live_bytes || counted.live_count != walked.live_count)) {
    result = broken("HP-4", 0, "the counters of live blocks differ from the blocks found");
  }
  if (result.ok && counted.owned_bytes != walked.owned_bytes) {
    result = broken("HP-6", 0, "the counters of owned memory differ from the runs and slabs found");
  }
  self.resume_heaps();
  if (result.ok && self.debug_ != nullptr) result = self.debug_->verify();
  return result;
}

}  // namespace rtpool::pool
