// The inside of a pool: its store, its heaps, its switches. Nothing outside this folder includes this.
//
// Locks, in the order in which they may be taken:
//   registry -> gate_ -> idle_lock_ -> control_lock_ -> stopped heaps -> { learning_lock_, fallback table, debug layer, object arenas } -> the store's
//   locks
// A thread inside its own heap takes only what stands to the right of "stopped heaps".
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "blocks/heap.hpp"
#include "os/gate.hpp"
#include "os/memory.hpp"
#include "os/priority_lock.hpp"
#include "pages/page_store.hpp"
#include "pool/fallback_table.hpp"
#include "pool/object_arenas.hpp"
#include "pool/pool.hpp"
#include "pool/size_table.hpp"
#include "pool/stranger_frees.hpp"
#include "pool/thread_record.hpp"
#include "trace/format.hpp"
#include "trace/origins.hpp"

namespace rtpool::pool {

class DebugLayer;

inline constexpr std::uint64_t k_no_hits = std::uint64_t{1} << 63;  // in a heap key: equal to no pool's id
// For slabs and a heap or two, so that a frozen pool's free runs can serve small sizes without the kernel.
inline constexpr std::size_t k_frozen_records = std::size_t{256} << 10;
inline constexpr std::uint64_t k_arena_reference = std::uint64_t{1} << 32;
inline constexpr unsigned k_max_heaps = 16384;  // threads alive at once in one pool; further ones go to the fallback

enum class Frozen : std::uint8_t { no, fallback, raise };

struct PoolImpl : Pool {
  // First, so that the view, which hits read, lies at the begin of a page; src/README.md says why.
  pages::PageStore store_;

  // --- set once ---
  std::uint64_t heap_key_ = 0;   // what threads find their heap by: the pool's id, or for a debug pool a number that no hit asks for
  std::uint32_t slot_ = 0;  // in the registry
  os::Memory* memory_ = nullptr;
  Options options_;
  std::size_t limit_ = 0;  // what options_.limit comes to, whole pages
  Fallback fallback_{};
  bool symmetric_ = false;
  std::size_t made_bytes_ = 0;  // of address space for this object
  os::Nanoseconds idle_ = 0;    // after which memory goes back by itself; 0: never

  // --- switches and counters ---
  std::atomic<std::uint64_t> references_{1};  // of callers; and k_arena_reference for each object arena that is handed out
  std::atomic<Frozen> frozen_{Frozen::no};
  std::atomic<std::uint64_t> peak_live_{0};  // most bytes alive at once, as far as growth has seen
  std::atomic<std::size_t> most_zeroed_{0};  // Restraint; its other half is the store's
  std::atomic<std::uint32_t> attention_{0};  // bits that new heaps start with
  std::atomic<std::uint64_t> fallbacks_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> misuses_{0};
  std::atomic<std::uint64_t> heapless_misses_{0};  // misses of threads that could not get a heap, and absurd sizes
  // Of threads that have no heap in this pool: what they freed, and who is at it, on a line of their own.
  alignas(64) StrangerFrees stranger_frees_;
  os::Gate gate_;  // passed by what works on the pool's memory outside of heaps and locks; closed across a fork

  // --- what has not been used (idle.cpp) ---
  static constexpr pages::Epoch k_epochs_known = 256;
  static constexpr std::size_t k_least_watched = 2 * os::k_huge_page_size;
  alignas(64) std::atomic<bool> resting_{true};        // nobody looks; control_lock_ to change it
  std::atomic<os::Nanoseconds> next_look_{0};          // 0: the scavenger has not seen it yet
  std::atomic<os::Nanoseconds> grown_at_{0};
  os::PriorityLock idle_lock_;                         // one that looks at a time; before control_lock_
  os::Nanoseconds began_[k_epochs_known] = {};         // when the last epochs began; idle_lock_
  std::uint64_t seen_activity_ = 0;                    // the scavenger's

  // --- heaps; control_lock_ to add, adopt and abandon ---
  os::PriorityLock control_lock_;
  std::atomic<std::uint32_t> heap_count_{0};
  std::uint32_t orphan_count_ = 0;
  std::atomic<std::uint32_t> next_asked_{0};  // of the heaps, for room (allocate.cpp)

  os::PriorityLock learning_lock_;
  SizeTable learning_;
  std::atomic<bool> is_learning_{false};
  SizeTable misses_;  // while frozen, under learning_lock_

  trace::Origins origins_;
  std::atomic<trace::Origins*> recording_{nullptr};  // while recorded; only slow paths look

  FallbackTable fallback_table_;
  ObjectArenas object_arenas_{store_, os::clock()};
  DebugLayer* debug_ = nullptr;  // set once; only slow paths look

  std::uint16_t orphans_[k_max_heaps];
  std::atomic<blocks::Heap*> heaps_[k_max_heaps];

  // --- allocate.cpp ---
  void* allocate_slow(std::size_t size, bool zeroed) noexcept;  // never inlined: hits would save registers for it
  void* allocate_as(std::size_t size, bool zeroed, unsigned how) noexcept;  // `how`: bits of trace/format.hpp
  // What is told of a request: whether it missed, the recording in which its block was had (0: none), asked inside the heap, and
  // what the kernel answered where there is no block and the pool might have grown.
  struct Told {
    bool missed = false;
    std::uint64_t recording = 0;
    int error = 0;
  };
  void* serve_request(std::size_t size, bool zeroed, Told* told) noexcept;
  using Served = blocks::Heap::Popped;
  // Inside the heap, entered fast: a block that is not where hits look.
  void* allocate_run(std::size_t size, blocks::Heap& heap, bool zeroed) noexcept;
  void favour_who_is_alone() noexcept;
  void* allocate_small(std::size_t size, blocks::Heap& heap, bool zeroed) noexcept;
  static void* leave_with_served(std::size_t size, blocks::Heap& heap, bool zeroed, const Served& served) noexcept;
  void* leave_and_allocate(std::size_t size, blocks::Heap& heap, bool zeroed) noexcept;
  void* hit_recorded(std::size_t size, blocks::Heap& heap, bool zeroed) noexcept;
  void* leave_with_new_peak(std::size_t clear, blocks::Heap& heap, void* block) noexcept;
  // `..._wanted`: not served, as other heaps are to be asked first, for what they do not use or for what departs from them.
  enum class Others : std::uint8_t { not_asked, unused_wanted, departing_wanted, asked };
  struct Request {
    std::size_t size;
    bool may_grow = false;
    Others others = Others::not_asked;
    pages::GrowthFailure failure{};  // of the last growth
  };
  Served serve(blocks::Heap& heap, Request* request) noexcept;
  Served serve_alone(blocks::Heap& heap, Request* request) noexcept;  // takes control_lock_; the caller is outside of its heap
  Served serve_small(blocks::Heap& heap, Request* request) noexcept;
  Served serve_large(blocks::Heap& heap, Request* request) noexcept;
  // How much the pool may have ready when it grows by `bytes`, so that it holds at most a quarter (or what a heap may keep) more
  // than was ever alive. Where that is to be exceeded the heap's idle runs have been given back, unless it repeats its sizes.
  // O(heaps), on the way to the kernel only.
  struct Allowance {
    std::size_t most = SIZE_MAX;
    bool gave = false;
    std::uint64_t held_back = 0;  // the peak, where growth is held back
  };
  std::uint64_t live_in_heaps() noexcept;
  Allowance allowance_for(blocks::Heap& heap, std::size_t bytes) noexcept;
  bool asks_others(const Allowance& allowance, Request* request) noexcept;
  void ask_others(const blocks::Heap& own, bool unused) noexcept;
  std::uint32_t ask_at_hand(blocks::Heap** heaps, std::uint32_t count, bool unused) noexcept;
  // The ladder. No block: not even the kernel could help.
  Served climb(std::size_t size, bool zeroed, Told* told) noexcept;  // zeroed: may be kept from growing
  // Free memory that only waits for the next object arena goes before growth.
  bool use_kept_arenas(bool may_grow) noexcept { return may_grow && object_arenas_.give_kept_back(0) != 0; }
  // The fallback's block or nullptr. `size` is what to ask the fallback for, `wanted` what the caller wanted, `error` as told.
  void* refuse(std::size_t size, bool zeroed, std::size_t wanted, int error) noexcept;
  // Changes a block of the fallback for one that is aligned.
  void* realign(void* block, std::size_t size, std::size_t alignment) noexcept;
  std::size_t largest_request() const noexcept { return store_.options().limit; }
  bool may_grow_for(std::size_t size, bool zeroed) const noexcept {
    if (frozen_.load(std::memory_order_relaxed) != Frozen::no) return false;
    const std::size_t most = most_zeroed_.load(std::memory_order_relaxed);
    return !zeroed || most == 0 || size <= most;
  }

  // --- release.cpp ---
  enum class Place : std::uint8_t { foreign, not_a_block, not_live, live };
  struct Found {
    Place place = Place::foreign;
    blocks::Heap* owner = nullptr;
    blocks::Slab* slab = nullptr;  // nullptr for a run
    unsigned unit = 0;
    pages::PageIndex first = 0;
    std::size_t granted = 0;
    std::size_t requested = 0;
  };
  // `to_free`: what says whether the block is alive is about to be written.
  template <bool to_free = false>
  Found find_block(const void* block) const noexcept;
  void release_slow(void* block, unsigned how = 0) noexcept;
  void release_claimed(void* block, std::size_t claimed) noexcept;
  // Inside the heap, entered fast, while nobody wants attention.
  void leave_and_release(void* block, blocks::Heap& heap) noexcept;
  bool release_recorded(void* block, blocks::Heap& heap) noexcept;
  void release_run(void* block, blocks::Heap& heap, std::uint64_t first) noexcept;
  void release_of_other(void* block, blocks::Heap& heap) noexcept;
  void release_run_of_other(void* block, blocks::Heap& heap) noexcept;
  void send_and_leave(blocks::Heap& heap) noexcept;
  // A live block of another heap; false: somebody else has freed it meanwhile.
  bool free_remote(const Found& found, std::size_t* requested) noexcept;
  // The same inside this thread's own heap.
  bool free_of_other(const Found& found, blocks::Heap& own) noexcept;
  void send_outgoing(blocks::Heap& heap) noexcept;  // by its owner inside of it, or with the heap stopped
  void give_back(void* block, unsigned how = 0) noexcept;  // release without the debug layer
  void* resize_block(void* block, std::size_t size) noexcept;
  void* resize_debug_block(void* block, std::size_t size) noexcept;
  // Own live blocks only; false leaves all as it was.
  bool resize_in_place(const Found& found, std::size_t size) noexcept;
  void misuse(const void* block, Place place, const char* call) noexcept;

  // --- idle.cpp ---
  pages::Epoch begin_epoch(os::Nanoseconds older_than) noexcept;
  bool try_stop(blocks::Heap& heap) noexcept;  // takes control_lock_ if it can have the heap at once
  void resume(blocks::Heap& heap) noexcept;
  bool age_heap(blocks::Heap& heap, pages::Epoch before) noexcept;
  // Frozen meanwhile, or a fork waits.
  bool cut_short() const noexcept;
  // What has been unused for so long goes back; the bytes. `*left`: something else is free that could go later.
  std::size_t give_idle_back(os::Nanoseconds older_than, bool* left) noexcept;
  std::uint64_t activity() noexcept;  // a sum that any use of the pool changes
  void look(os::Nanoseconds idle, os::Nanoseconds every) noexcept;  // the scavenger's
  void watch_again() noexcept;
  bool may_be_watched() const noexcept;
  bool resume_watch() noexcept;  // whether there may be something to give
  // At the end of slow paths, outside of the heap: a pool at rest is watched again.
  void notice() noexcept {
    if (resting_.load(std::memory_order_relaxed)) notice_slow();
  }
  void notice_slow() noexcept;

  // --- heaps.cpp ---
  blocks::Heap* thread_heap() noexcept;  // makes or adopts one; nullptr: too many threads or no memory
  blocks::Heap* take_heap_locked(bool may_grow) noexcept;  // control_lock_ held; a new one, or an orphan
  // For a thread that has none and frees much: its frees cost no atomic operation for their counts then. Does nothing while frozen, or
  // where it would have to wait for a lock; may enter the kernel for the heap's record.
  void give_heap_to_stranger() noexcept;
  void abandon(blocks::Heap& heap) noexcept;
  // Between them no thread is inside any heap but the caller's own, which the caller must not be inside of either.
  void stop_heaps() noexcept;    // control_lock_ held
  void resume_heaps() noexcept;  // control_lock_ held
  void pass_barrier() noexcept;  // control_lock_ held; between begin_stop and await
  // The heaps stopped, and this: no page changes its run. Object arenas come and go and free memory goes back to the kernel
  // without a heap, so that who walks over the pages needs both.
  void hold_pages() noexcept;
  void let_pages_go() noexcept;
  void flush_heaps() noexcept;   // takes control_lock_; the caller is outside of its heap
  void stop_for_fork() noexcept;
  void resume_after_fork(bool child) noexcept;
  template <class Function>
  void for_each_heap(Function&& function) noexcept {
    const std::uint32_t count = heap_count_.load(std::memory_order_acquire);
    for (std::uint32_t i = 0; i < count; ++i) function(*heaps_[i].load(std::memory_order_relaxed));
  }
  void set_attention(std::uint32_t bit, bool on) noexcept;  // control_lock_ held

  // --- learning.cpp ---
  void learn_allocation(std::size_t granted, std::size_t requested, bool zeroed) noexcept;
  void learn_release(std::size_t granted) noexcept;
  void note_miss(std::size_t requested) noexcept;

  // --- recording.cpp: for a pool that is recorded ---
  bool may_wait() const noexcept { return frozen_.load(std::memory_order_relaxed) == Frozen::no; }
  // The number of the recording that the pool is in, 0: of none. Between entering and leaving a heap it stays.
  std::uint64_t recording_now() const noexcept {
    return RTPOOL_UNLIKELY(recording_.load(std::memory_order_acquire) != nullptr) ? recorder_number() : 0;
  }
  std::uint64_t recorder_number() const noexcept;
  void note_allocation(const Told& told, const void* block, std::size_t size, bool zeroed, unsigned how) noexcept;
  void note_free(const void* block, std::size_t size, unsigned how) noexcept;
  void note_live_blocks() noexcept;
  void join_recording() noexcept;    // where all pools are recorded
  void forget_recording() noexcept;  // in a forked child

  // --- lifetime.cpp ---
  bool add_debug_layer() noexcept;
  void drop_last_reference() noexcept;
  bool add_reference_if_held() noexcept;
  std::size_t give_up_free_memory() noexcept;  // to the kernel, frozen or not; bytes
  std::size_t give_kept_arenas_back(os::Nanoseconds older_than, std::size_t most) noexcept;  // outside of heaps and idle_lock_
  void thaw() noexcept;
  void destroy() noexcept;
};

inline PoolImpl& impl(Pool& pool) noexcept { return static_cast<PoolImpl&>(pool); }
inline const PoolImpl& impl(const Pool& pool) noexcept { return static_cast<const PoolImpl&>(pool); }

}  // namespace rtpool::pool
