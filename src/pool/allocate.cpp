// Allocation: the hit path, the ladder of a miss, and the refusal.
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/bits.hpp"
#include "base/check.hpp"
#include "base/relax.hpp"
#include "blocks/heap_hit.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"
#include "pool/refusal.hpp"

namespace rtpool::pool {

using blocks::Heap;
using pages::GrowthFailure;
using pages::k_no_page;

namespace {

constexpr std::uint64_t k_misses_alone = 32768;

// The end of a hit, once for each of its two ways, so that neither jumps to the other's.
template <bool zeroed>
[[gnu::always_inline]] inline void* leave_with(PoolImpl& pool, Heap& heap, std::size_t size, const Heap::Popped& popped) noexcept {
  if (RTPOOL_UNLIKELY(popped.pop == Heap::Pop::new_peak)) {
    return pool.leave_with_new_peak(zeroed && !popped.zero ? size : 0, heap, popped.block);
  }
  heap.lock.leave_fast();
  return zeroed && !popped.zero ? std::memset(popped.block, 0, size) : popped.block;
}

// What others freed of any kind, within bounds: what they keep from being free is had before new memory.
void take_back(Heap& heap) noexcept {
  for (unsigned round = 0; round < blocks::k_drain_rounds && heap.drain(blocks::k_drain_blocks); ++round) {
  }
}

// Whether idle runs were given back. What a heap may keep stays, unless nothing else can serve the request.
bool reclaim_before_growth(Heap& heap, bool may_grow) noexcept {
  return (!may_grow || heap.keeps_too_much()) && heap.reclaim(blocks::k_reclaim_runs) != 0;
}

// The hit path. Whatever is rare leaves it by a tail call, so that it saves no registers.
template <bool zeroed>
[[gnu::always_inline]] inline void* hit(PoolImpl& pool, std::size_t size) noexcept {
  if (RTPOOL_UNLIKELY(t_cache.key != pool.store_.view().id)) return pool.allocate_slow(size, zeroed);
  Heap& heap = *t_cache.heap;
  if (RTPOOL_UNLIKELY(!heap.lock.enter_fast())) return pool.leave_and_allocate(size, heap, zeroed);
  if (RTPOOL_FIRST(size <= blocks::k_largest_small)) {
    const Heap::Popped block = heap.pop_small(size);
    if (RTPOOL_UNLIKELY(block.pop == Heap::Pop::nothing)) return pool.allocate_small(size, heap, zeroed);
    return leave_with<zeroed>(pool, heap, size, block);
  }
  const Heap::Popped run = heap.pop_run(pool.store_.view(), blocks::pages_of(size), size);
  if (RTPOOL_UNLIKELY(run.pop == Heap::Pop::nothing)) return pool.allocate_run(size, heap, zeroed);
  return leave_with<zeroed>(pool, heap, size, run);
}

}  // namespace

[[gnu::noinline]] void* PoolImpl::allocate_slow(std::size_t size, bool zeroed) noexcept { return allocate_as(size, zeroed, 0); }

[[gnu::noinline]] void* PoolImpl::leave_and_allocate(std::size_t size, Heap& heap, bool zeroed) noexcept {
  if (RTPOOL_LIKELY(heap.lock.wants_only(blocks::k_recording))) {
    if (void* const block = hit_recorded(size, heap, zeroed); block != nullptr) return block;
  }
  heap.lock.leave_fast();
  return allocate_slow(size, zeroed);
}

// What a hit would have been but for the recording. nullptr: it would have been none, and nothing has changed.
inline void* PoolImpl::hit_recorded(std::size_t size, Heap& heap, bool zeroed) noexcept {
  const Served served = size <= blocks::k_largest_small ? heap.pop_small(size) : heap.pop_run(store_.view(), blocks::pages_of(size), size);
  if (served.block == nullptr) return nullptr;
  if (RTPOOL_UNLIKELY(served.pop == Heap::Pop::new_peak)) heap.raise_peak();
  const Told told{false, recording_now()};
  heap.lock.leave_fast();
  if (RTPOOL_LIKELY(told.recording != 0)) note_allocation(told, served.block, size, zeroed, 0);
  return zeroed && !served.zero ? std::memset(served.block, 0, size) : served.block;
}

inline void* PoolImpl::leave_with_served(std::size_t size, Heap& heap, bool zeroed, const Served& served) noexcept {
  if (served.pop == Heap::Pop::new_peak) heap.raise_peak();
  heap.lock.leave_fast();
  return zeroed && !served.zero ? std::memset(served.block, 0, size) : served.block;
}

// The ladder's rungs that programs of ever new sizes climb, without what only other states of the pool need.
[[gnu::noinline]] void* PoolImpl::allocate_run(std::size_t size, Heap& heap, bool zeroed) noexcept {
  const std::uint64_t pages = blocks::pages_of(size);
  Served served;
  if (size <= largest_request()) {
    const auto count = static_cast<std::uint32_t>(pages);
    const bool has_bin = heap.find_likely_bin(count);
    if (has_bin) served = heap.pop_run(store_.view(), pages, size);
    if (served.block == nullptr && pages >= pages::k_line_pages && !heap.has_remote_runs()) {
      heap.decay();
      pages::PageRuns::Taken run = store_.give_all_and_take(heap.take_departing(blocks::k_departing_at_once), count);
      if (RTPOOL_UNLIKELY(run.first == k_no_page) && heap.has_departing()) run = store_.give_all_and_take(heap.take_departing(), count);
      if (RTPOOL_LIKELY(run.first != k_no_page)) {
        heap.stats.misses.add(1);
        if (RTPOOL_UNLIKELY(heap.stats.misses.get() % k_misses_alone == 0)) favour_who_is_alone();
        served = {heap.adopt_run(run, count, size, has_bin), run.zero, Heap::Pop::block};
      }
    }
  }
  return served.block != nullptr ? leave_with_served(size, heap, zeroed, served) : leave_and_allocate(size, heap, zeroed);
}

// A program that misses that much and whose pool has one heap is likely to go on so.
void PoolImpl::favour_who_is_alone() noexcept {
  if (heap_count_.load(std::memory_order_relaxed) == 1 && may_wait()) store_.favour_this_thread();
}

// The same for small blocks: what the heap's slabs have, and what others freed of the class.
[[gnu::noinline]] void* PoolImpl::allocate_small(std::size_t size, Heap& heap, bool zeroed) noexcept {
  const unsigned cls = blocks::class_of(size);
  const bool filled = heap.refill(cls) || (heap.drain_class(cls, blocks::k_drain_blocks) && heap.refill(cls));
  return filled ? leave_with_served(size, heap, zeroed, heap.pop_small(size)) : leave_and_allocate(size, heap, zeroed);
}

[[gnu::noinline]] void* PoolImpl::leave_with_new_peak(std::size_t clear, Heap& heap, void* block) noexcept {
  heap.raise_peak();
  heap.lock.leave_fast();
  return clear != 0 ? std::memset(block, 0, clear) : block;
}

void* Pool::allocate(std::size_t size) noexcept { return hit<false>(impl(*this), size); }

void* Pool::allocate_zeroed(std::size_t size) noexcept { return hit<true>(impl(*this), size); }

void* Pool::allocate_aligned(std::size_t size, std::size_t alignment) noexcept {
  if (!base::is_power_of_two(alignment) || alignment > os::k_page_size) return nullptr;
  void* const block = allocate(alignment <= blocks::k_unit || size > blocks::k_largest_small ? size : blocks::k_largest_small + 1);
  if (RTPOOL_LIKELY(reinterpret_cast<std::uintptr_t>(block) % alignment == 0)) return block;  // nullptr, too
  return impl(*this).realign(block, size, alignment);
}

[[gnu::noinline]] void* PoolImpl::realign(void* block, std::size_t size, std::size_t alignment) noexcept {
  void* other = nullptr;
  if (debug_ == nullptr && fallback_.aligned != nullptr && size <= SIZE_MAX / 2) {
    other = fallback_.aligned(alignment, base::align_up(size == 0 ? 1 : size, alignment));
  }
  release(block);
  if (other != nullptr && fallback_table_.add(other, size)) {
    const Told told{true, recording_now()};
    if (RTPOOL_UNLIKELY(told.recording != 0)) note_allocation(told, other, size, false, 0);
    return other;
  }
  if (other != nullptr) fallback_.free(other);
  failures_.fetch_add(1, std::memory_order_relaxed);
  note_refusal({static_cast<const Pool*>(this), size});
  return nullptr;
}

// The ladder: own heap, blocks that others freed, free runs of the store, idle bins, the kernel; and before a refusal
// everything that any heap holds free. Each rung is O(1) up to the kernel; only the way to a refusal is not.
void* PoolImpl::allocate_as(std::size_t size, bool zeroed, unsigned how) noexcept {
  if (size == 0) size = 1;
  Told told;
  void* const block = debug_ != nullptr ? debug_->allocate(size, zeroed) : serve_request(size, zeroed, &told);
  if (debug_ != nullptr) told.recording = recording_now();
  // After the block was had: what was made before recording began is among the live blocks then.
  if (RTPOOL_UNLIKELY(told.recording != 0)) note_allocation(told, block, size, zeroed, how);
  notice();
  return block;
}

void* PoolImpl::serve_request(std::size_t size, bool zeroed, Told* told) noexcept {
  const Served served = climb(size, zeroed, told);
  if (served.block == nullptr) {
    void* const block = refuse(size, zeroed, size, told->error);
    told->recording = recording_now();
    return block;
  }
  if (RTPOOL_UNLIKELY(is_learning_.load(std::memory_order_relaxed))) {
    learn_allocation(find_block(served.block).granted, size, zeroed);
  }
  if (zeroed && !served.zero) std::memset(served.block, 0, size);
  return served.block;
}

PoolImpl::Served PoolImpl::climb(std::size_t size, bool zeroed, Told* told) noexcept {
  if (size > largest_request()) return {};
  Heap* const heap = thread_heap();
  if (heap == nullptr) {
    told->error = frozen_.load(std::memory_order_relaxed) == Frozen::no ? ENOMEM : 0;
    return {};
  }
  Request request{size};
  // Asked for inside the heap: `freeze` waits for whoever is in there, so that nothing grows once it has returned.
  const auto enter = [&] {
    heap->lock.enter();
    request.may_grow = may_grow_for(size, zeroed);
  };
  enter();
  send_outgoing(*heap);
  const std::uint64_t misses = heap->stats.misses.get();
  Served served = serve(*heap, &request);
  if (served.block == nullptr && !request.may_grow) {
    heap->flush();
    served = serve(*heap, &request);
  }
  const auto leave = [&] {
    told->recording = recording_now();
    heap->lock.leave();
  };
  leave();
  const auto once_more = [&] {
    enter();
    served = serve(*heap, &request);
    leave();
  };
  if (request.others == Others::unused_wanted || request.others == Others::departing_wanted) {
    ask_others(*heap, request.others == Others::unused_wanted);
    request.others = Others::asked;
    once_more();
  }
  if (served.block == nullptr && request.may_grow) {
    flush_heaps();
    request.others = Others::asked;
    once_more();
    if (served.block == nullptr && request.failure.step == pages::GrowthStep::limit) served = serve_alone(*heap, &request);
  }
  told->missed = heap->stats.misses.get() != misses;
  if (request.failure.step != pages::GrowthStep::limit) told->error = request.failure.error;
  return served;
}

// What was given up for a request others may have taken meanwhile, while what they freed since lies in their heaps. So the last look
// before a refusal is with all heaps stopped, the caller's own as well: nobody takes or keeps anything until it is over.
PoolImpl::Served PoolImpl::serve_alone(Heap& heap, Request* request) noexcept {
  if (heap_count_.load(std::memory_order_relaxed) == 1) return {};
  const std::lock_guard guard(control_lock_);
  stop_heaps();
  for_each_heap([this](Heap& each) { send_outgoing(each); });
  for_each_heap([](Heap& each) { each.flush(); });
  request->may_grow = request->may_grow && frozen_.load(std::memory_order_relaxed) == Frozen::no;
  const Served served = serve(heap, request);
  resume_heaps();
  return served;
}

// Heaps go on meanwhile: what one frees and a later one makes is seen in both. So they are added up once more from the other end, where
// the same would take two such moves within microseconds, and the lesser sum counts.
std::uint64_t PoolImpl::live_in_heaps() noexcept {
  const std::uint32_t count = heap_count_.load(std::memory_order_acquire);
  std::uint64_t forward = 0;
  std::uint64_t backward = 0;
  for (std::uint32_t i = 0; i < count; ++i) forward += heaps_[i].load(std::memory_order_relaxed)->live_bytes();
  if (count == 1) return forward;
  for (std::uint32_t i = count; i-- != 0;) backward += heaps_[i].load(std::memory_order_relaxed)->live_bytes();
  return forward < backward ? forward : backward;
}

PoolImpl::Allowance PoolImpl::allowance_for(Heap& heap, std::size_t bytes) noexcept {
  if (idle_ != 0 || store_.epoch() == pages::PageStore::k_first_epoch) {
    grown_at_.store(os::clock().now(), std::memory_order_relaxed);
  }
  std::uint64_t peak = peak_live_.load(std::memory_order_relaxed);
  for_each_heap([&](Heap& one) {
    if (one.stats.peak_bytes.get() > peak) peak = one.stats.peak_bytes.get();
  });
  const std::uint64_t live = bytes + object_arenas_.held() + live_in_heaps();
  if (live > peak) peak = live;
  peak_live_.store(peak, std::memory_order_relaxed);
  // The sizes of a loop that is small, and of each thread's.
  const std::uint32_t heaps = heap_count_.load(std::memory_order_relaxed);
  const std::size_t small = blocks::k_idle_kept + (heaps - 1) * blocks::k_idle_kept_each;
  const std::size_t most = peak + (peak / 4 > small ? peak / 4 : small);
  if (store_.capacity() + bytes <= most) return {most, false, 0};
  // A thread's loop is told by the thread's share.
  const std::uint64_t share = peak / heaps;
  if (heap.repeats(share)) return {};
  return {most, heap.give_idle(), share};
}

// Of these heaps those that can be stopped at once. How many are left, which `heaps` begins with then.
std::uint32_t PoolImpl::ask_at_hand(Heap** heaps, std::uint32_t count, bool unused) noexcept {
  const std::lock_guard guard(control_lock_);
  std::uint32_t stopped = 0;  // they come first
  for (std::uint32_t i = 0; i < count; ++i) {
    if (heaps[i]->lock.try_begin_stop()) std::swap(heaps[stopped++], heaps[i]);
  }
  if (stopped == 0) return count;
  pass_barrier();
  std::uint32_t left = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    Heap& heap = *heaps[i];
    const bool had = i < stopped && heap.lock.try_await();
    if (had && unused) send_outgoing(heap);
    if (had) unused ? heap.give_unused() : heap.give_departing();
    if (i < stopped) heap.lock.resume();
    if (!had) heaps[left++] = &heap;
  }
  return left;
}

// What other heaps hold and do not use, or only what departs from them: before the pool grows. Where a heap's owner is
// just in a slow path this waits for it, with no lock in its hand: an owner in the kernel is one whose growth this one's has to wait
// for in any case. Of many heaps some are asked, others the next time. Several are stopped by one barrier.
void PoolImpl::ask_others(const Heap& own, bool unused) noexcept {
  constexpr std::uint32_t k_most_asked = 64;
  constexpr std::uint32_t k_at_once = 8;
  constexpr unsigned k_glances = 4;
  constexpr unsigned k_pauses = 16;
  constexpr unsigned k_most_tries = 10'000;
  constexpr os::Nanoseconds k_pause = 50'000;
  const std::uint32_t count = heap_count_.load(std::memory_order_acquire);
  const std::uint32_t asked = count < k_most_asked ? count : k_most_asked;
  const std::uint32_t first = asked == count ? 0 : next_asked_.fetch_add(asked, std::memory_order_relaxed);
  std::uint32_t next = 0;
  while (next < asked) {
    Heap* waiting[k_at_once];
    std::uint32_t left = 0;
    for (; next < asked && left < k_at_once; ++next) {
      Heap& heap = *heaps_[(first + next) % count].load(std::memory_order_relaxed);
      if (&heap != &own && (unused || heap.has_departing())) waiting[left++] = &heap;
    }
    for (unsigned tries = 0; left != 0 && tries != k_most_tries; ++tries) {
      // Most slow paths take less than a microsecond.
      if (tries > k_glances) (void)os::clock().sleep_until(os::clock().now() + k_pause);
      for (unsigned i = 0; tries != 0 && i < k_pauses; ++i) base::relax();
      left = ask_at_hand(waiting, left, unused);
    }
  }
}

// Whether growth waits until others were asked: for what they do not use, where it would go beyond what was allowed; else for what
// departs from them, if anything does.
bool PoolImpl::asks_others(const Allowance& allowance, Request* request) noexcept {
  if (request->others != Others::not_asked || heap_count_.load(std::memory_order_relaxed) == 1) return false;
  bool some = false;
  if (allowance.held_back == 0) for_each_heap([&](const Heap& heap) { some = some || heap.has_departing(); });
  if (allowance.held_back == 0 && !some) return false;
  request->others = allowance.held_back != 0 ? Others::unused_wanted : Others::departing_wanted;
  return true;
}

PoolImpl::Served PoolImpl::serve(Heap& heap, Request* request) noexcept {
  const Served served = request->size <= blocks::k_largest_small ? serve_small(heap, request) : serve_large(heap, request);
  if (served.pop == Heap::Pop::new_peak) heap.raise_peak();
  return served;
}

PoolImpl::Served PoolImpl::serve_small(Heap& heap, Request* request) noexcept {
  const std::size_t size = request->size;
  const bool may_grow = request->may_grow;
  const unsigned cls = blocks::class_of(size);
  if (const Served at_hand = heap.pop_small(size); at_hand.block != nullptr) return at_hand;
  if (heap.refill(cls)) return heap.pop_small(size);
  // What others freed of the class, and before the heap takes a new slab whatever else they freed.
  if (heap.drain_class(cls, blocks::k_drain_blocks) && heap.refill(cls)) return heap.pop_small(size);
  take_back(heap);
  if (heap.refill(cls)) return heap.pop_small(size);
  if (request->others == Others::not_asked) heap.decay();
  heap.give_departing();
  GrowthFailure* const failure = &request->failure;
  bool added = heap.add_slab(cls, false, failure) || (reclaim_before_growth(heap, may_grow) && heap.add_slab(cls, false, failure)) ||
               (use_kept_arenas(may_grow) && heap.add_slab(cls, false, failure));
  if (!added && may_grow) {
    const Allowance allowance = allowance_for(heap, std::size_t{blocks::slab_pages(cls)} * os::k_page_size);
    added = allowance.gave && heap.add_slab(cls, false, failure);
    if (!added && asks_others(allowance, request)) return {};
    added = added || heap.add_slab(cls, true, failure, allowance.most);
  }
  if (added) {
    heap.stats.misses.add(1);
    heap.refill(cls);
    return heap.pop_small(size);
  }
  return {};
}

PoolImpl::Served PoolImpl::serve_large(Heap& heap, Request* request) noexcept {
  const std::size_t size = request->size;
  const bool may_grow = request->may_grow;
  const auto count = static_cast<std::uint32_t>(blocks::pages_of(size));
  const bool known = heap.knows(count);
  const auto at_hand = [&] { return heap.find_bin(count) ? heap.pop_run(store_.view(), count, size) : Served{}; };
  // A hit that the hit path may not serve (learning, recording): where hits look, first.
  if (const Served served = heap.pop_run(store_.view(), count, size); served.block != nullptr) return served;
  if (const Served served = at_hand(); served.block != nullptr) return served;
  if (heap.drain_runs(blocks::k_drain_blocks)) {
    if (const Served served = at_hand(); served.block != nullptr) return served;
  }
  if (request->others == Others::not_asked) heap.decay();
  heap.give_departing();
  // Small runs come by the line while there is room for whole lines.
  const bool by_line = count < pages::k_line_pages && may_grow;
  const auto look = [&] {
    const pages::PageRuns::Taken line = by_line ? store_.take_line(false) : pages::PageRuns::Taken{};
    return line.first != k_no_page ? line : store_.take(count);
  };
  pages::PageRuns::Taken run = look();
  if (run.first == k_no_page && reclaim_before_growth(heap, may_grow)) run = look();
  if (run.first == k_no_page && use_kept_arenas(may_grow)) run = look();
  if (run.first == k_no_page && may_grow) {
    take_back(heap);
    const std::size_t bytes = std::size_t{count} * os::k_page_size;
    const Allowance allowance = allowance_for(heap, bytes);
    if (allowance.gave) run = look();
    if (run.first == k_no_page && asks_others(allowance, request)) return {};
    if (allowance.held_back != 0) heap.weigh_growth(bytes, known, run.first != k_no_page, allowance.held_back);
    if (run.first == k_no_page && by_line) run = store_.take_line(true, allowance.most);
    if (run.first == k_no_page) run = store_.take_or_grow(count, &request->failure, allowance.most);
  }
  if (run.first == k_no_page) return {};
  heap.stats.misses.add(1);
  return {heap.adopt_run(run, count, size, heap.find_bin(count)), run.zero, Heap::Pop::block};
}

void* PoolImpl::refuse(std::size_t size, bool zeroed, std::size_t wanted, int error) noexcept {
  heapless_misses_.fetch_add(1, std::memory_order_relaxed);
  const Frozen frozen = frozen_.load(std::memory_order_relaxed);
  if (frozen != Frozen::no) note_miss(wanted);
  const bool pass_on = frozen == Frozen::no ? options_.when_full == WhenFull::fallback : frozen == Frozen::fallback;
  if (pass_on) {
    void* const block = zeroed ? fallback_.calloc(1, size) : fallback_.malloc(size);
    if (block != nullptr && fallback_table_.add(block, size)) {
      fallbacks_.fetch_add(1, std::memory_order_relaxed);
      return block;
    }
    if (block != nullptr) fallback_.free(block);
  }
  failures_.fetch_add(1, std::memory_order_relaxed);
  note_refusal({static_cast<const Pool*>(this), wanted, error, pass_on});
  return nullptr;
}

}  // namespace rtpool::pool
