// The page store: where heaps get page runs from and give them back to. The arena, its free runs, its growth, and what of it
// goes back to the kernel.
//
// Memory that is *ready*, resident as far as the pool prefaults, is what counts against the limit; addresses do not: several
// times the limit of them is reserved. A free run whose memory went back is *absent* and keeps its place. Growth makes a
// *window* ready, free pages in a row, and where the limit leaves no room for that gives back other free memory in exchange: a
// request is refused only where what is not free leaves no room for it. Where whole frames are lacking and whole frames are free,
// their memory moves instead: a change of page tables, without a page that is cleared. Explicit huge pages come and go whole, in
// exchange only: what was set aside for the pool stays the pool's (page_store_explicit.cpp).
//
// *Epochs* say how long memory has been free: `begin_epoch` is called now and then, each frame notes the epoch in which a page
// of it was last given back, and what has been free since before an epoch can be asked for.
//
// Thread rule: every function may be called by any thread. The *run lock* guards lists and is held for O(1) work only (giving
// notes a run's frames: one store for 2 MiB); the *growth lock* is held while the kernel makes memory ready, outside of the run
// lock, so that requests that free runs can serve are not held up by a growth; the *giving lock* while memory goes back that
// nobody waits for, so that a growth about to be refused can wait for it; the *record lock* guards records. Order: giving lock,
// growth lock, run lock; record lock alone, or before them all (`lock`). Failure: k_no_page or an errno value; nothing
// is lost on failure.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/memory.hpp"
#include "os/priority_lock.hpp"
#include "pages/page_desc.hpp"
#include "pages/page_runs.hpp"
#include "pages/region.hpp"
#include "pages/run_lock.hpp"

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
  // One of index k_no_page, taken as signed, is there and says 0 pages, as no request does: an empty bin needs no look of its
  // own.
  PageDesc* descs = nullptr;
  // The same in pages and in units of 64 bytes: what a pointer rotated by so many bits is compared with, so that one that is
  // not aligned to them is far out of range.
  std::atomic<std::size_t> committed_pages{0};
  std::atomic<std::size_t> committed_units{0};
};
static_assert(sizeof(ArenaView) <= 64);

using Epoch = std::uint32_t;

class PageStore {
 public:
  // Reserves address space (several times the limit; where the kernel refuses less, down to 64 MiB) and nothing more.
  GrowthFailure initialise(os::Memory& memory, const GrowthOptions& options, std::uint64_t id) noexcept;
  void destroy() noexcept;

  // A run of `pages` pages out of what is ready. O(1), never enters the kernel.
  PageRuns::Taken take(std::uint32_t pages) noexcept;
  // The same after `give_all`, in one turn of the lock.
  PageRuns::Taken give_all_and_take(PageIndex runs, std::uint32_t pages) noexcept;
  // The same, growing where nothing ready fits. Enters the kernel then. Beyond `most` bytes ready, free memory that does not
  // fit goes back in exchange, as far as there is any; beyond the limit always.
  PageRuns::Taken take_or_grow(std::uint32_t pages, GrowthFailure* failure, std::size_t most = SIZE_MAX) noexcept;
  // k_line_pages pages whose descriptors fill a cache line of their own, as by `take` or by `take_or_grow`.
  PageRuns::Taken take_line(bool may_grow, std::size_t most = SIZE_MAX) noexcept;
  // What a request that no free run serves may have of the kernel: nothing; memory that is resident, with the rest of a frame so
  // that it can be a huge page; or, where nothing is absent, addresses behind all others for this request alone, whose pages
  // come as they are first written.
  enum class Growing : std::uint8_t { no, resident, untouched };
  // A run whose address is a multiple of `unit` pages (a power of two, at most a frame): for requests that are large and seldom.
  PageRuns::Taken take_aligned(std::uint32_t pages, std::uint32_t unit, Growing growing, GrowthFailure* failure) noexcept;
  // Makes `pages` pages ready in one piece.
  GrowthFailure grow(std::uint32_t pages) noexcept;
  // Growth from now on leaves so many bytes of the machine's available memory alone.
  void set_spare(std::size_t bytes) noexcept { spare_.store(bytes, std::memory_order_relaxed); }
  std::size_t spare() const noexcept { return spare_.load(std::memory_order_relaxed); }
  // Back to the free runs. `give` waits for the run lock; `give_soon` never does: it leaves the run on a lock-free list
  // that the next holders of the lock drain, at most k_drain each.
  // `give_idle` says in which epoch the run was last used.
  void give(PageIndex first, std::uint32_t pages, bool zero) noexcept;
  void give_idle(PageIndex first, std::uint32_t pages, bool zero, Epoch used) noexcept;
  void give_soon(PageIndex first, std::uint32_t pages, bool zero) noexcept;
  // A heap's runs, from `runs` on linked by `next`, `slack` saying which are zero: as `give_idle`, and as `give_soon`.
  void give_all(PageIndex runs, Epoch used) noexcept;
  void give_all_soon(PageIndex runs) noexcept;
  // As `give` for what was taken untouched. It is made ready, or the kernel gets all of it. Enters the kernel.
  void give_untouched(PageIndex first, std::uint32_t pages) noexcept;
  // All of these frames is in use: the pages of each become a huge one if they may and the kernel has one. Enters the kernel.
  void gather(PageIndex first, std::uint32_t pages) noexcept;
  // The same for every frame that is ready as a whole. What came in parts is of small pages, which the kernel else gathers by
  // itself some time, and keeps those waiting who touch them meanwhile. Holds requests that need growth up as long as it takes.
  void gather_frames() noexcept;
  // Lengthens a run in place by `more` pages if its right neighbour is free. O(1).
  bool extend_run(PageIndex first, std::uint32_t pages, std::uint32_t more) noexcept;
  // Gives all memory back to the kernel that lies in frames of which nothing is in use; returns the bytes. O(free runs + frames).
  std::size_t trim() noexcept;
  // Where a pass over the free runs is, and what it came to.
  struct Trimming {
    unsigned list = PageRuns::k_lists;  // of free runs, downwards
    PageIndex run = k_no_page;          // of the list: the next one to look at
    PageIndex frame = 0;                // of the run
    unsigned restarts = 0;
    std::size_t given = 0;
    bool left = false;     // there is a free frame that is too young, or that somebody was in the way of
    bool refused = false;  // by the kernel
  };
  // One step of giving frames back that have been free since before epoch `before` began: at most `at_once` of them, in one kernel
  // call; false: it was the last. The run lock is held for some k_trim_looks runs and k_trim_frames frames at most.
  bool trim_step(Epoch before, std::uint32_t at_once, Trimming* at) noexcept;
  // The present epoch, and the begin of the next.
  Epoch epoch() const noexcept { return epoch_.load(std::memory_order_relaxed); }
  void begin_epoch() noexcept { epoch_.fetch_add(1, std::memory_order_relaxed); }
  static constexpr Epoch k_first_epoch = 2;
  static constexpr Epoch k_all_epochs = ~Epoch{0};

  // Whether what a heap frees is to be had by everybody at once, instead of together with what it frees next. To turn it on takes
  // effect for a heap that was stopped since.
  bool prompt() const noexcept { return prompt_.load(std::memory_order_relaxed); }
  void set_prompt(bool on) noexcept { prompt_.store(on, std::memory_order_relaxed); }

  // The calling thread is alone with the store, as far as can be seen: its turns of the run lock cost no atomic operation from now on,
  // those of others the kernel's barrier. `share`: for good, it is not. Neither while holding a lock of the store's.
  void favour_this_thread() noexcept { run_lock_.favour_this_thread(); }
  void share() noexcept { run_lock_.share(); }

  // Records: memory for slabs and heaps, resident, 64-byte aligned, never returned to the kernel before `destroy`.
  // nullptr when not in reserve and `may_grow` is false, or when the kernel refuses.
  void* take_record(std::size_t bytes, bool may_grow) noexcept;
  // The same for who must neither wait nor grow.
  void* try_take_record(std::size_t bytes) noexcept;
  void give_record(void* record, std::size_t bytes) noexcept;
  // Makes sure that `bytes` of records can be taken without the kernel.
  int reserve_records(std::size_t bytes) noexcept;

  const ArenaView& view() const noexcept { return view_; }
  PageIndex committed_pages() const noexcept { return static_cast<PageIndex>(view_.committed.load(std::memory_order_acquire) / os::k_page_size); }
  std::size_t reserved() const noexcept { return reserved_; }
  std::size_t capacity() noexcept;  // bytes ready: committed less absent; and what a growth has chosen, which it may yet not have
  std::size_t held() noexcept;      // the same without that: never above the limit
  std::size_t resident() noexcept;  // of capacity, in physical memory; asks the kernel for pools that do not prefault
  std::size_t largest_free() noexcept;
  std::size_t free_bytes() noexcept;
  std::uint64_t growths() const noexcept { return growths_.load(std::memory_order_relaxed); }
  std::uint64_t returned_bytes() const noexcept { return returned_.load(std::memory_order_relaxed); }  // to the kernel, ever
  std::uint64_t moved_frames() const noexcept { return moved_frames_.load(std::memory_order_relaxed); }  // in exchange, ever
  std::uint64_t kernel_calls() const noexcept { return kernel_calls_.load(std::memory_order_relaxed); }
  void count_kernel_call() noexcept { kernel_calls_.fetch_add(1, std::memory_order_relaxed); }
  const GrowthOptions& options() const noexcept { return options_; }
  int lock_error() const noexcept { return lock_error_.load(std::memory_order_relaxed); }
  int huge_error() const noexcept { return huge_error_.load(std::memory_order_relaxed); }

  // Where there are frames' worth of addresses in a row without memory behind them, the longest first; how many, at most `capacity`.
  // O(what it fills).
  std::size_t absent_ranges(os::AddressRange* out, std::size_t capacity) noexcept;
  // What lies at an address of the store's: for reports, as it was a moment ago. O(pages of the run).
  enum class Part : std::uint8_t { foreign, not_ready, free_pages, run, slab, object_arena, descriptors, records };
  Part part_at(const void* address) const noexcept;
  // nullptr or the id of a broken invariant. Takes all locks; `validate_locked` where the caller holds them.
  const char* validate() noexcept;
  const char* validate_locked() const noexcept { return runs_.validate(committed_pages()); }
  // All locks: no run begins or ends meanwhile but those of heaps. For a walk over the pages, and held across a fork.
  void lock() noexcept;
  void unlock() noexcept;
  void reset_after_fork() noexcept;  // in the child, instead of `unlock`

  static constexpr unsigned k_drain = 8;
  static constexpr unsigned k_trim_looks = 24;  // each some cache lines from memory, while others wait for the run lock
  static constexpr unsigned k_trim_frames = 4096;  // whose epochs fill four pages

 private:
  enum class Ahead : std::uint8_t { none, frame, more };  // what growth makes ready beyond what is needed now

  void* take_record_locked(std::size_t bytes, bool may_grow) noexcept;
  PageRuns::Taken take_locked(std::uint32_t pages) noexcept;
  PageRuns::Taken take_aligned_locked(std::uint32_t pages, std::uint32_t unit) noexcept;
  // Of a run of `taken` pages: the first `pages` of them from a multiple of `unit` on. The rest goes back.
  PageRuns::Taken keep_aligned_locked(PageRuns::Taken run, std::uint32_t taken, std::uint32_t pages, std::uint32_t unit) noexcept;
  void drain_pending_locked() noexcept {
    if (drain_rest_ != k_no_page || pending_.load(std::memory_order_relaxed) != k_no_page) drain_some_locked();
  }
  void drain_some_locked() noexcept;
  PageIndex give_linked_locked(PageIndex first, Epoch used) noexcept;  // returns the next one
  void give_all_locked(PageIndex runs, Epoch used) noexcept {
    while (runs != k_no_page) runs = give_linked_locked(runs, used);
  }
  // A window taken out of the lists, with what is made ready beside it: begin <= first, first + pages <= end.
  struct Piece {
    PageIndex begin, first, end;
    std::uint32_t pages;
    std::uint32_t absent;  // pages between begin and end that have no memory yet
    bool untouched = false;  // and need not have
  };
  bool may_ever_fit(std::uint32_t pages) noexcept;
  // What growth is for: pages in a row from a multiple of `unit` on, and how much may be ready (`take_or_grow`).
  struct Request {
    std::uint32_t pages;
    std::uint32_t unit;
    Ahead ahead;
    std::size_t most;
  };
  PageRuns::Taken grow_for(const Request& request, GrowthFailure* failure) noexcept;
  bool choose(const Request& request, Piece* piece, GrowthFailure* failure) noexcept;
  bool is_spread() const noexcept;
  void spare_addresses(std::uint32_t pages, PageRuns::Window* window) const noexcept;
  void widen(Piece* piece, PageIndex holder, std::uint32_t surplus, std::size_t most) noexcept;
  void narrow(Piece* piece) noexcept;
  void mark_part(PageIndex first, std::uint32_t pages) noexcept;
  void mark_ready(PageIndex part, PageIndex from, PageIndex to, bool zero) noexcept;
  bool make_room(const Piece& piece, std::size_t most) noexcept;
  PageIndex behind_absent(PageIndex at, PageIndex end) const noexcept;
  bool prefault_parts(const Piece& piece, GrowthFailure* failure) noexcept;
  void put_back(PageIndex begin, PageIndex end) noexcept;
  std::uint32_t exchange(std::uint32_t pages) noexcept;
  void move_frames(Piece* piece, std::size_t most) noexcept;
  PageIndex take_free_frame() noexcept;
  bool move_frame(PageIndex to, bool* zero) noexcept;
  bool may_map_more() noexcept;
  void forget_mappings() noexcept;
  // --- page_store_explicit.cpp; under the growth lock ---
  bool wants_explicit() const noexcept { return explicit_pages_ != 0 && !explicit_refused_; }
  bool take_explicit(Piece* piece, GrowthFailure* failure) noexcept;
  GrowthFailure commit_explicit(PageIndex from, PageIndex to) noexcept;
  enum class Found : std::uint8_t { frames, nothing_yet, nothing };
  bool frame_is_free_before(PageIndex page, unsigned* looks) const noexcept;
  bool frame_is_free_from(PageIndex page, unsigned* looks) const noexcept;
  Found find_frames_locked(Epoch before, std::uint32_t at_once, Trimming* at, PageIndex* start, PageIndex* end) noexcept;
  void out_of_lists(PageIndex first, PageIndex start, PageIndex end) noexcept;
  bool discard(PageIndex start, PageIndex end) noexcept;
  int describe(std::size_t bytes, unsigned* calls) noexcept;
  GrowthFailure commit(std::uint32_t need, Ahead ahead, std::uint32_t* step_pages) noexcept;
  std::size_t step_for(std::size_t need, std::size_t committed, Ahead ahead) const noexcept;
  bool has_room_for(std::size_t needed) noexcept;
  GrowthFailure make_ready(char* start, std::size_t bytes) noexcept;
  bool may_gather() const noexcept;
  bool gives_back() const noexcept { return !has_explicit_pages_.load(std::memory_order_relaxed); }
  void give_locked(PageIndex first, std::uint32_t pages, bool zero, Epoch used) noexcept;
  std::size_t ready_locked() const noexcept { return (committed_pages() - runs_.absent_pages()) * os::k_page_size; }
  // Pages of a page of the kernel: what has memory or none is a multiple of it.
  std::uint32_t grain() const noexcept { return static_cast<std::uint32_t>(memory_->page_size() / os::k_page_size); }
  char* address_of(PageIndex page) const noexcept { return view_.base + std::size_t{page} * os::k_page_size; }
  void count_calls(unsigned n) noexcept { kernel_calls_.fetch_add(n, std::memory_order_relaxed); }

  alignas(64) ArenaView view_;
  os::Memory* memory_ = nullptr;
  std::size_t reserved_ = 0;
  GrowthOptions options_;
  Region descs_;
  Region frames_;  // an Epoch for each frame: when a page of it was last given back
  Region records_;
  std::size_t records_used_ = 0;
  struct FreeRecord {
    FreeRecord* next;
  };
  static constexpr std::size_t k_record_kinds = 12;
  struct RecordList {
    std::size_t bytes = 0;
    FreeRecord* head = nullptr;
    std::size_t count = 0;
  };
  RecordList record_lists_[k_record_kinds];
  os::PriorityLock record_lock_;
  os::PriorityLock giving_lock_;
  os::PriorityLock growth_lock_;
  std::atomic<bool> has_explicit_pages_{false};  // under the growth lock to change
  bool explicit_refused_ = false;    // the kernel had none, and none of the pool's has gone back since; under the growth lock
  std::uint32_t explicit_pages_ = 0;  // pages of an explicit huge one; 0: the pool is to have none. Set once
  bool moving_refused_ = false;      // by the kernel, for good; under the growth lock
  std::uint32_t mappings_ = 0;       // that moves may have added; under the growth lock
  std::atomic<std::uint64_t> moved_frames_{0};
  alignas(64) RunLock run_lock_;
  PageRuns runs_;
  std::uint32_t chosen_ = 0;  // absent pages that a growth has taken from the lists while it makes room for them; under the run lock
  PageIndex drain_rest_ = k_no_page;  // taken off pending_, not yet given; under the run lock
  alignas(64) std::atomic<PageIndex> pending_{k_no_page};
  std::atomic<std::size_t> spare_{0};
  std::atomic<bool> prompt_{false};
  std::atomic<Epoch> epoch_{k_first_epoch};
  std::atomic<std::uint64_t> returned_{0};
  std::size_t unseen_growth_ = std::size_t{4} << 20;  // that may be before available memory is looked at again; under the growth lock
  std::atomic<std::uint64_t> growths_{0};
  std::atomic<std::uint64_t> kernel_calls_{0};
  std::atomic<int> lock_error_{0};
  std::atomic<int> huge_error_{0};
};

}  // namespace rtpool::pages
