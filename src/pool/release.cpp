// Release and resize: the hit path, other threads' blocks, fallback blocks, and pointers that are nobody's.
//
// What a caller says about a block is not believed: its size is never asked for, its address is looked up.
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>

#include "base/check.hpp"
#include "blocks/heap_hit.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"
#include "trace/recorder.hpp"

namespace rtpool::pool {

using blocks::Heap;
using blocks::Slab;
using pages::PageDesc;
using pages::PageIndex;
using pages::RunState;

namespace {

constexpr std::uint32_t k_most_moved = 16;  // pages that are copied rather than cut off where they are
constexpr int k_page_bits = std::countr_zero(os::k_page_size);
constexpr int k_unit_bits = std::countr_zero(blocks::k_unit);

// The hit path; `other` is for a pool that this thread has not used last, a debug pool among them. One comparison each says that a
// pointer lies in the arena and is aligned: what a rotation brings to the top makes it large. Whatever is rare leaves by a tail call,
// so that the hit path saves no registers.
template <class Other>
[[gnu::always_inline]] inline void release_hit(PoolImpl& self, void* block, Other&& other) noexcept {
  const pages::ArenaView& view = self.store_.view();
  if (RTPOOL_UNLIKELY(t_cache.key != view.id)) return other();
  Heap& heap = *t_cache.heap;
  if (RTPOOL_UNLIKELY(!heap.lock.enter_fast())) return self.leave_and_release(block, heap);
  const auto offset = static_cast<std::uint64_t>(static_cast<char*>(block) - view.base);
  std::uint64_t page = std::rotr(offset, k_page_bits);
  RTPOOL_OPAQUE(page);  // one register does: the compiler would rotate a copy of the offset for each
  if (RTPOOL_SECOND(page < base::folded_load(view.committed_pages))) {
    PageDesc& desc = view.descs[page];
    if (RTPOOL_LIKELY(heap.has_run(desc))) {
      if (RTPOOL_LIKELY(heap.push_run_and_leave(page, desc))) return;
      return self.release_run(block, heap, page);
    }
    if (RTPOOL_LIKELY(heap.push_small_and_leave(block, page * blocks::k_page_units, desc))) return;
    return self.release_of_other(block, heap);
  }
  const std::uint64_t unit = std::rotl(page, k_page_bits - k_unit_bits);
  if (RTPOOL_LIKELY(unit < base::folded_load(view.committed_units)) &&
      RTPOOL_LIKELY(heap.push_small_and_leave(block, unit, view.descs[unit / blocks::k_page_units]))) {
    return;
  }
  self.release_of_other(block, heap);
}

}  // namespace

void Pool::release(void* block) noexcept {
  PoolImpl& self = impl(*this);
  release_hit(self, block, [&] { self.release_slow(block); });
}

void Pool::release(void* block, std::size_t claimed) noexcept {
  PoolImpl& self = impl(*this);
  release_hit(self, block, [&] { self.release_claimed(block, claimed); });
}

[[gnu::noinline]] void PoolImpl::leave_and_release(void* block, Heap& heap) noexcept {
  if (RTPOOL_LIKELY(heap.lock.wants_only(blocks::k_recording)) && release_recorded(block, heap)) return;
  heap.lock.leave_fast();
  release_slow(block);
}

// What would have been a hit but for the recording. False: it would have been none, and nothing has changed.
inline bool PoolImpl::release_recorded(void* block, Heap& heap) noexcept {
  const Found found = find_block(block);
  if (found.place != Place::live || found.owner != &heap || recording_.load(std::memory_order_acquire) == nullptr) return false;
  const trace::BlockEnd end = trace::recorder().end_of(&origins_, block, found.requested, trace::k_free);
  PageDesc& desc = store_.view().descs[found.first];
  if (found.slab == nullptr) {
    if (!heap.push_run_and_leave(found.first, desc)) return false;
  } else {
    const auto offset = static_cast<std::size_t>(static_cast<char*>(block) - store_.view().base);
    if (!heap.push_small_and_leave(block, offset / blocks::k_unit, desc)) return false;
  }
  trace::recorder().ended(end, may_wait());
  return true;
}

// A block of another heap, or none of those that hits serve. Nobody wants attention, so that nothing is to be told, learned or
// cleared.
[[gnu::noinline]] void PoolImpl::release_of_other(void* block, Heap& heap) noexcept {
  const pages::ArenaView& view = store_.view();
  const std::uint64_t unit = std::rotr(static_cast<std::uint64_t>(static_cast<char*>(block) - view.base), k_unit_bits);
  if (RTPOOL_LIKELY(unit < base::folded_load(view.committed_units))) {
    const auto page = static_cast<PageIndex>(unit / blocks::k_page_units);
    const PageDesc& desc = view.descs[page];
    const std::uint32_t head = desc.head.load(std::memory_order_acquire);
    if (RTPOOL_LIKELY(pages::state_of(head) == RunState::slab && pages::owner_of(head) != heap.index())) {
      Slab* const slab = blocks::slab_of_page(desc, page);
      blocks::State& state = *blocks::state_of_unit(desc, unit);
      base::prefetch_to_write(&state);
      base::prefetch_to_write(slab);
      const auto at = static_cast<unsigned>(unit - std::uint64_t{page - desc.in_slab.page} * blocks::k_page_units);
      Heap& owner = *heaps_[pages::owner_of(head)].load(std::memory_order_acquire);
      const std::uint16_t was = state.load(std::memory_order_relaxed);
      if (RTPOOL_UNLIKELY((was & blocks::k_live) == 0)) return leave_and_release(block, heap);
      if (heap.free_later(owner, *slab, state, at, desc.in_slab.magazine, was & blocks::k_small_size_mask)) return send_and_leave(heap);
      heap.lock.leave_fast();
      return;
    }
  }
  release_run_of_other(block, heap);
}

// By a call of its own: what is above saves no registers for it.
[[gnu::noinline]] void PoolImpl::send_and_leave(Heap& heap) noexcept {
  const void* const twice = heap.send_outgoing();  // what is left after such a one goes with the next
  heap.lock.leave_fast();
  if (RTPOOL_UNLIKELY(twice != nullptr)) misuse(twice, Place::not_live, "free");
}

[[gnu::noinline]] void PoolImpl::release_run_of_other(void* block, Heap& heap) noexcept {
  if (const Found found = find_block<true>(block);
      found.place == Place::live && found.owner != &heap && free_of_other(found, heap)) {
    heap.lock.leave_fast();
    return;
  }
  leave_and_release(block, heap);
}

bool PoolImpl::free_remote(const Found& found, std::size_t* requested) noexcept {
  return found.slab != nullptr ? found.owner->free_remote(*found.slab, found.unit, requested)
                               : found.owner->free_remote(found.first, requested);
}

// What lies under the debug layer goes at once: it tells of a double free itself.
bool PoolImpl::free_of_other(const Found& found, Heap& own) noexcept {
  if (found.slab == nullptr || debug_ != nullptr) {
    std::size_t requested = 0;
    if (!free_remote(found, &requested)) return false;
    own.count_given(found.granted, requested);
    return true;
  }
  blocks::State& state = found.slab->states()[found.unit];
  const std::uint16_t was = state.load(std::memory_order_relaxed);
  if ((was & blocks::k_live) == 0) return false;
  if (own.free_later(*found.owner, *found.slab, state, found.unit, found.granted, was & blocks::k_small_size_mask)) send_outgoing(own);
  return true;
}

void PoolImpl::send_outgoing(Heap& heap) noexcept {
  while (const void* const twice = heap.send_outgoing()) misuse(twice, Place::not_live, "free");
}

// A run of the heap whose bin is not the one that hits look at.
[[gnu::noinline]] void PoolImpl::release_run(void* block, Heap& heap, std::uint64_t first) noexcept {
  if (store_.view().descs[first].run.next.load(std::memory_order_relaxed) != pages::k_live) return leave_and_release(block, heap);
  heap.free_run(static_cast<PageIndex>(first));
  heap.lock.leave_fast();
}

template <bool to_free>
PoolImpl::Found PoolImpl::find_block(const void* block) const noexcept {
  Found found;
  const pages::ArenaView& view = store_.view();
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(block) - view.base);
  if (offset >= view.committed.load(std::memory_order_acquire)) return found;
  found.place = Place::not_a_block;
  found.first = static_cast<PageIndex>(offset / os::k_page_size);
  PageDesc& desc = view.descs[found.first];
  const std::uint32_t head = desc.head.load(std::memory_order_acquire);
  const RunState state = pages::state_of(head);
  if (state == RunState::slab) {
    Slab* const slab = blocks::slab_of_page(desc, found.first);
    if (to_free) {
      base::prefetch_to_write(blocks::state_of_unit(desc, offset / blocks::k_unit));
      base::prefetch_to_write(slab);
    }
    const auto at = static_cast<std::size_t>(static_cast<const char*>(block) - slab->base);
    if (at % blocks::k_unit != 0 || at >= std::size_t{slab->pages} * os::k_page_size) return found;
    const std::uint16_t unit_state = slab->states()[at / blocks::k_unit].load(std::memory_order_relaxed);
    if (unit_state == 0) return found;
    found.slab = slab;
    found.unit = static_cast<unsigned>(at / blocks::k_unit);
    found.owner = heaps_[pages::owner_of(head)].load(std::memory_order_acquire);
    found.granted = blocks::class_bytes(slab->size_class);
    found.place = (unit_state & blocks::k_live) != 0 ? Place::live : Place::not_live;
    found.requested = unit_state & blocks::k_small_size_mask;
    return found;
  }
  if (offset % os::k_page_size != 0 || state == RunState::none || state == RunState::free_last) return found;
  if (state == RunState::object_arena || state == RunState::in_object_arena) return found;
  if (state != RunState::heap || desc.run.next.load(std::memory_order_relaxed) != pages::k_live) {
    found.place = Place::not_live;
    return found;
  }
  found.owner = heaps_[pages::owner_of(head)].load(std::memory_order_acquire);
  found.granted = std::size_t{desc.pages} * os::k_page_size;
  found.requested = found.granted - (desc.run.use.slack & pages::k_slack_mask);
  found.place = Place::live;
  return found;
}

template PoolImpl::Found PoolImpl::find_block<false>(const void*) const noexcept;

void PoolImpl::misuse(const void* block, Place place, const char* call) noexcept {
  misuses_.fetch_add(1, std::memory_order_relaxed);
  const char* const what = place == Place::foreign      ? "is not a block of this pool (allocated elsewhere?)"
                           : place == Place::not_live ? "is not alive (freed twice?)"
                                                      : "points into the pool but not to the start of a block";
  base::report_line("pool %s%s%s#%llu: %s(%p): the pointer %s; ignored", options_.name[0] != '\0' ? "'" : "", options_.name,
                    options_.name[0] != '\0' ? "' " : "", static_cast<unsigned long long>(store_.view().id), call, block, what);
}

[[gnu::noinline]] void PoolImpl::release_slow(void* block, unsigned how) noexcept {
  if (block == nullptr) return;
  if (debug_ == nullptr) {
    give_back(block, how);
  } else {
    if (RTPOOL_UNLIKELY(recording_.load(std::memory_order_acquire) != nullptr)) note_free(block, debug_->usable_size(block), how);
    debug_->release(block);
  }
  notice();
}

void PoolImpl::release_claimed(void* block, std::size_t claimed) noexcept {
  if (debug_ != nullptr && block != nullptr && claimed != 0) debug_->compare_size(block, claimed);
  release_slow(block);
}

void PoolImpl::give_back(void* block, unsigned how) noexcept {
  const Found found = find_block<true>(block);
  const std::uint64_t recorded = debug_ == nullptr ? recording_now() : 0;
  if (found.place == Place::foreign) {
    std::size_t size = 0;
    if (!fallback_table_.remove(block, &size)) return misuse(block, found.place, "free");
    if (RTPOOL_UNLIKELY(recorded != 0)) note_free(block, size, how);
    if (options_.zero_on_free) explicit_bzero(block, size);
    return fallback_.free(block);
  }
  if (found.place != Place::live) return misuse(block, found.place, "free");
  // The debug layer has noted the block's own size; what it gives back is longer by the red zones.
  if (RTPOOL_UNLIKELY(is_learning_.load(std::memory_order_relaxed)) && debug_ == nullptr) learn_release(found.granted);
  if (options_.zero_on_free) {
    std::memset(block, 0, found.granted);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (found.slab == nullptr) {
      // A pass for idle memory may look at this descriptor, for a run that lay here before (Heap::goes_on_at).
      const std::atomic_ref<std::uint16_t> slack(store_.view().descs[found.first].run.use.slack);
      slack.fetch_or(pages::k_slack_zero, std::memory_order_relaxed);
    }
  }
  Heap* const own = find_heap(*this);
  if (RTPOOL_UNLIKELY(recorded != 0)) note_free(block, found.requested, own == found.owner ? how : how | trace::k_remote);
  if (own == found.owner) {
    own->lock.enter();
    // Recording may have begun meanwhile, with this block alive.
    if (const std::uint64_t now = recording_now(); RTPOOL_UNLIKELY(now != recorded) && now != 0 && debug_ == nullptr) {
      note_free(block, found.requested, how);
    }
    if (found.slab != nullptr) {
      own->free_small(*found.slab, found.unit);
    } else {
      own->free_run(found.first);
    }
    own->lock.leave();
    return;
  }
  bool freed = false;
  bool many = false;
  // A fork waits for whoever is in a heap, or passes the gate: a block freed by half would be lost to the child, and with it what
  // others free of its slab from then on.
  if (own != nullptr) {
    own->lock.enter();
    freed = free_of_other(found, *own);
    own->lock.leave();
  } else {
    const os::Gate::Inside inside(gate_);
    std::size_t requested = 0;
    freed = free_remote(found, &requested);
    many = freed && stranger_frees_.add(found.granted, requested);
  }
  if (!freed) return misuse(block, Place::not_live, "free");
  if (many) give_heap_to_stranger();
}

bool Pool::is_fallback_block(const void* block) noexcept {
  PoolImpl& self = impl(*this);
  if (self.debug_ != nullptr) return self.debug_->is_fallback_block(block);
  FallbackTable& table = self.fallback_table_;
  std::size_t size = 0;
  return table.count() != 0 && table.find(block, &size);
}

void* Pool::resize(void* block, std::size_t size) noexcept {
  if (block == nullptr) return allocate(size);
  PoolImpl& self = impl(*this);
  if (size == 0) size = 1;
  return self.debug_ == nullptr ? self.resize_block(block, size) : self.resize_debug_block(block, size);
}

void* PoolImpl::resize_debug_block(void* block, std::size_t size) noexcept {
  const std::size_t old = debug_->usable_size(block);
  void* const moved = debug_->resize(block, size);
  if (moved != nullptr && RTPOOL_UNLIKELY(recording_.load(std::memory_order_acquire) != nullptr)) {
    note_allocation({false, recording_now()}, moved, size, false, trace::k_resize);
    note_free(block, old, trace::k_resize);
  }
  notice();
  return moved;
}

void* PoolImpl::resize_block(void* block, std::size_t size) noexcept {
  const Found found = find_block(block);
  std::size_t old = found.requested;
  if (found.place == Place::foreign) {
    if (!fallback_table_.find(block, &old)) {
      misuse(block, found.place, "realloc");
      return nullptr;
    }
  } else if (found.place != Place::live) {
    misuse(block, found.place, "realloc");
    return nullptr;
  }
  if (found.place == Place::live && !is_learning_.load(std::memory_order_relaxed) && found.owner == find_heap(*this) &&
      size <= largest_request() && resize_in_place(found, size)) {
    if (RTPOOL_UNLIKELY(recording_.load(std::memory_order_acquire) != nullptr)) {
      note_free(block, old, trace::k_resize);
      note_allocation({false, recording_now()}, block, size, false, trace::k_resize);
    }
    return block;
  }
  const bool recorded = recording_.load(std::memory_order_acquire) != nullptr;
  void* const moved = RTPOOL_UNLIKELY(recorded) ? allocate_as(size, false, trace::k_resize) : allocate(size);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, block, old < size ? old : size);
  if (RTPOOL_UNLIKELY(recorded)) {
    release_slow(block, trace::k_resize);
  } else {
    release(block);
  }
  return moved;
}

bool PoolImpl::resize_in_place(const Found& found, std::size_t size) noexcept {
  Heap& heap = *found.owner;
  if (found.slab != nullptr) {
    if (size > found.granted || blocks::class_of(size) != found.slab->size_class) return false;
    heap.lock.enter();
    found.slab->states()[found.unit].store(static_cast<std::uint16_t>(blocks::k_live | size), std::memory_order_relaxed);
    heap.unaccount(found.granted, found.requested);
    if (heap.account(found.granted, size) == Heap::Pop::new_peak) heap.raise_peak();
    heap.stats.other_count.add(1);
    heap.stats.other_bytes.add(found.granted);
    heap.lock.leave();
    return true;
  }
  if (size <= blocks::k_largest_small) return false;
  PageDesc& desc = store_.view().descs[found.first];
  const std::uint32_t old_pages = desc.pages;
  const auto new_pages = static_cast<std::uint32_t>(blocks::pages_of(size));
  heap.lock.enter();
  bool done = true;
  if (new_pages > old_pages) {
    // A free run of that size comes first: a loop that grows a block, frees it and starts again would else take a new run
    // each time and leave a longer one behind.
    heap.give_departing();
    done = !heap.has_free_run(new_pages) && store_.extend_run(found.first, old_pages, new_pages - old_pages);
  } else if (new_pages < old_pages && new_pages <= k_most_moved && heap.has_free_run(new_pages)) {
    // Likewise: cut in place, the block would come back as one of the shorter size, and its own would be missing each time.
    done = false;
  } else if (new_pages < old_pages) {
    if (options_.zero_on_free) {
      std::memset(store_.view().base + std::size_t{found.first + new_pages} * os::k_page_size, 0,
                  std::size_t{old_pages - new_pages} * os::k_page_size);
    }
    desc.pages = new_pages;
    store_.give(found.first + new_pages, old_pages - new_pages, options_.zero_on_free);
  }
  if (done) {
    const std::size_t granted = std::size_t{new_pages} * os::k_page_size;
    heap.resized(old_pages, new_pages);
    desc.run.use.bin = Heap::set_of(new_pages);
    desc.set_live(granted - size);
    heap.unaccount(found.granted, found.requested);
    if (heap.account(granted, size) == Heap::Pop::new_peak) heap.raise_peak();
    heap.stats.other_count.add(1);
    heap.stats.other_bytes.add(granted);
  }
  heap.lock.leave();
  return done;
}

}  // namespace rtpool::pool
