// The page store: where heaps get page runs from and give them back to. The arena, its free runs and its growth.
//
// Thread rule: every function may be called by any thread. The *run lock* guards lists and is held for O(1) work only; the
// *growth lock* is held while the kernel makes memory ready, outside of the run lock, so that requests that free runs can
// serve are not held up by a growth; the *record lock* guards records. Order: growth lock before run lock, record lock alone.
// Failure: k_no_page or an errno value; nothing is lost on failure.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/memory.hpp"
#include "os/priority_lock.hpp"
#include "pages/page_desc.hpp"
#include "pages/page_runs.hpp"
#include "pages/region.hpp"

namespace rtpool::pages {

// What growth has to do, as asked. `limit` is the most that may be ready at once.
struct GrowthOptions {
  std::size_t limit = 0;
  bool prefault = true;
  bool lock = false;
  bool transparent_huge = true;
  std::size_t explicit_huge = 0;  // page size, 0 for none
  bool strict = false;            // locking or explicit huge pages refused: growth fails
};

enum class GrowthStep : std::uint8_t { none, reserve, commit, prefault, lock, huge_pages, metadata, limit };

struct GrowthFailure {
  GrowthStep step = GrowthStep::none;
  int error = 0;
};

// What the hit path needs of the store, in one cache line.
struct ArenaView {
  std::uint64_t id = 0;  // of the pool, never reused: a thread compares it before it trusts the heap it has at hand
  char* base = nullptr;
  std::atomic<std::size_t> committed{0};  // bytes; only grows
  PageDesc* descs = nullptr;
};

class PageStore {
 public:
  // Reserves address space for the limit (halving it down to 64 MiB when the kernel refuses) and nothing more.
  GrowthFailure initialise(os::Memory& memory, const GrowthOptions& options, std::uint64_t id) noexcept;
  void destroy() noexcept;

  // A run of `pages` pages out of what is ready. O(1), never enters the kernel.
  PageRuns::Taken take(std::uint32_t pages) noexcept;
  // The same, growing where nothing ready fits. Enters the kernel then.
  PageRuns::Taken take_or_grow(std::uint32_t pages, GrowthFailure* failure) noexcept;
  // k_line_pages pages whose descriptors fill a cache line of their own, as by `take` or by `take_or_grow`.
  PageRuns::Taken take_line(bool may_grow) noexcept;
  // A run whose address is a multiple of `unit` pages (a power of two, at most a frame). Where it has to grow it makes no
  // more ready than it needs, but for the rest of a frame: for requests that are large and seldom.
  PageRuns::Taken take_aligned(std::uint32_t pages, std::uint32_t unit, bool may_grow, GrowthFailure* failure) noexcept;
  // Makes `pages` more pages ready.
  GrowthFailure grow(std::uint32_t pages) noexcept;
  // Growth from now on leaves so many bytes of the machine's available memory alone.
  void set_spare(std::size_t bytes) noexcept { spare_.store(bytes, std::memory_order_relaxed); }
  std::size_t spare() const noexcept { return spare_.load(std::memory_order_relaxed); }
  // Back to the free runs. `give` waits for the run lock; `give_soon` never does: it leaves the run on a lock-free list
  // that the next holders of the lock drain, at most k_drain each.
  void give(PageIndex first, std::uint32_t pages, bool zero) noexcept;
  void give_soon(PageIndex first, std::uint32_t pages, bool zero) noexcept;
  // Lengthens a run in place by `more` pages if its right neighbour is free. O(1).
  bool extend_run(PageIndex first, std::uint32_t pages, std::uint32_t more) noexcept;
  // Gives whole free frames back to the kernel; returns the bytes. O(free runs); the run lock is held for O(1) pieces.
  std::size_t trim() noexcept;

  // Records: memory for slabs and heaps, resident, 64-byte aligned, never returned to the kernel before `destroy`.
  // nullptr when not in reserve and `may_grow` is false, or when the kernel refuses.
  void* take_record(std::size_t bytes, bool may_grow) noexcept;
  void give_record(void* record, std::size_t bytes) noexcept;
  // Makes sure that `bytes` of records can be taken without the kernel.
  int reserve_records(std::size_t bytes) noexcept;

  const ArenaView& view() const noexcept { return view_; }
  PageIndex committed_pages() const noexcept { return static_cast<PageIndex>(view_.committed.load(std::memory_order_acquire) / os::k_page_size); }
  std::size_t reserved() const noexcept { return reserved_; }
  std::size_t capacity() noexcept;  // bytes ready: committed less trimmed
  std::size_t resident() noexcept;  // of capacity, in physical memory; asks the kernel for pools that do not prefault
  std::size_t largest_free() noexcept;
  std::size_t free_bytes() noexcept;
  std::uint64_t growths() const noexcept { return growths_.load(std::memory_order_relaxed); }
  std::uint64_t kernel_calls() const noexcept { return kernel_calls_.load(std::memory_order_relaxed); }
  void count_kernel_call() noexcept { kernel_calls_.fetch_add(1, std::memory_order_relaxed); }
  const GrowthOptions& options() const noexcept { return options_; }
  int lock_error() const noexcept { return lock_error_.load(std::memory_order_relaxed); }
  int huge_error() const noexcept { return huge_error_.load(std::memory_order_relaxed); }

  // What lies at an address of the store's: for reports, as it was a moment ago. O(pages of the run).
  enum class Part : std::uint8_t { foreign, not_ready, free_pages, run, slab, object_arena, descriptors, records };
  Part part_at(const void* address) const noexcept;
  // nullptr or the id of a broken invariant. Takes both locks.
  const char* validate() noexcept;
  // For a consistent fork: both locks held across it.
  void lock_for_fork() noexcept;
  void unlock_after_fork(bool child) noexcept;

  static constexpr unsigned k_drain = 32;

 private:
  enum class Ahead : bool { no, yes };  // whether growth makes more ready than is needed now

  PageRuns::Taken take_locked(std::uint32_t pages) noexcept;
  PageRuns::Taken take_aligned_locked(std::uint32_t pages, std::uint32_t unit) noexcept;
  // Of a run of `taken` pages: the first `pages` of them from a multiple of `unit` on. The rest goes back.
  PageRuns::Taken keep_aligned_locked(PageRuns::Taken run, std::uint32_t taken, std::uint32_t pages, std::uint32_t unit) noexcept;
  void drain_pending_locked() noexcept {
    if (drain_rest_ != k_no_page || pending_.load(std::memory_order_relaxed) != k_no_page) drain_some_locked();
  }
  void drain_some_locked() noexcept;
  bool revive_trimmed(std::uint32_t pages, GrowthFailure* failure) noexcept;
  GrowthFailure extend(std::uint32_t need, Ahead ahead) noexcept;
  std::size_t step_for(std::size_t need, std::size_t committed, Ahead ahead) const noexcept;
  bool has_room_for(std::size_t needed, std::size_t* step) noexcept;
  GrowthFailure make_ready(char* start, std::size_t bytes) noexcept;
  void count_calls(unsigned n) noexcept { kernel_calls_.fetch_add(n, std::memory_order_relaxed); }

  alignas(64) ArenaView view_;
  os::Memory* memory_ = nullptr;
  std::size_t reserved_ = 0;
  GrowthOptions options_;
  Region descs_;
  Region records_;
  std::size_t records_used_ = 0;
  struct FreeRecord {
    FreeRecord* next;
  };
  static constexpr std::size_t k_record_kinds = 8;
  struct RecordList {
    std::size_t bytes = 0;
    FreeRecord* head = nullptr;
    std::size_t count = 0;
  };
  RecordList record_lists_[k_record_kinds];
  os::PriorityLock record_lock_;
  os::PriorityLock growth_lock_;
  alignas(64) os::PriorityLock run_lock_;
  PageRuns runs_;
  PageIndex drain_rest_ = k_no_page;  // taken off pending_, not yet given; under the run lock
  alignas(64) std::atomic<PageIndex> pending_{k_no_page};
  std::atomic<std::size_t> spare_{0};
  std::size_t grown_unseen_ = 0;  // since available memory was looked at; under the growth lock
  std::atomic<std::uint64_t> growths_{0};
  std::atomic<std::uint64_t> kernel_calls_{0};
  std::atomic<int> lock_error_{0};
  std::atomic<int> huge_error_{0};
};

}  // namespace rtpool::pages
