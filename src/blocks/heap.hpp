// A thread heap: what one thread allocates from and frees to without a lock.
//
// Small blocks: a magazine (LIFO of blocks at hand) a class, filled from and spilled to the heap's slabs. Large blocks: a
// bin (LIFO of free runs) an exact page count, in a four-way table of 128 sets. Other threads hand blocks back through
// two lock-free lists that the owner drains when it misses.
//
// Decay: up to k_idle_kept bytes a heap keeps what was freed, so that a loop finds all of its sizes after one iteration.
// Beyond, a clock hand moves on each miss; a bin from which nothing was allocated in a whole round, 64 misses, gives its runs
// back to the page store, where they coalesce, and the kernel is asked for memory only where idle bins do not help. A loop
// that has all of its sizes does not miss, so the hand stands still; a program whose sizes wander keeps what it uses.
//
// Frugality: where growth would make the pool hold more than a quarter more than was ever alive in it, a heap first gives all of
// its idle runs back. Only a loop whose sizes add up to more than that would miss for ever then, and is told from wandering
// sizes by what it asks for: sizes that it has asked for before. Bytes of growth that was held back are weighed, those for known
// sizes against twice those for new ones; when a peak's worth has come together the heap keeps what it uses.
//
//   HP-1  every block in a magazine has state k_magazine and belongs to a slab of this heap and of the magazine's class
//   HP-2  every run in a bin is owned by this heap, not live, and of the bin's page count
//   HP-3  each page count is in at most one way of its set
//   HP-4  live_bytes() and live_count() are the sums over the heap's live and its remotely freed, undrained blocks
//   HP-5  headroom == peak - live, never below zero outside of `account`
//   HP-6  owned_bytes() is the sum of the heap's slabs and runs, handed out or not
//
// Thread rule: the owner inside its HeapLock, or a stranger that has stopped the heap, unless said otherwise. Cost: hit
// paths a few ns; everything else O(1) with the bounds below, unless said otherwise.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/bits.hpp"
#include "base/counter.hpp"
#include "blocks/heap_lock.hpp"
#include "blocks/size_class.hpp"
#include "blocks/slab.hpp"
#include "pages/page_store.hpp"

namespace rtpool::blocks {

struct Item {
  void* block;
  State* state;
};

struct alignas(32) Magazine {
  Item* top;           // the block to hand out next; the sentinel below the first one holds nullptr
  Item* last;          // the topmost place
  base::Counter pops;  // blocks handed out, ever
  std::uint64_t seen;  // pops when the clock hand last passed
};

struct alignas(32) RunBin {
  base::Published pages;
  pages::PageIndex head = pages::k_no_page;
  base::Counter pops;  // runs handed out since the bin got its page count
  std::uint64_t seen = 0;  // pops when the clock hand last passed; k_fresh: it has not yet passed
  std::uint32_t aged_pops = 0;   // pops when `age` last passed
  pages::Epoch aged_since = 0;  // in which it was last seen to be used
};
inline constexpr std::uint64_t k_fresh = ~std::uint64_t{0};

inline constexpr unsigned k_slack_bits = 36;
inline constexpr std::uint64_t k_one_block = std::uint64_t{1} << k_slack_bits;
inline constexpr unsigned k_bin_sets = 128;  // what set_of yields
inline constexpr unsigned k_more_ways = 3;

// Bounds of the slow paths, in blocks, runs or sets.
inline constexpr unsigned k_drain_blocks = 64;
inline constexpr unsigned k_drain_rounds = 16;  // before a small size that is still missing takes new memory
inline constexpr unsigned k_decay_sets = 2;
inline constexpr unsigned k_decay_runs = 2;
inline constexpr unsigned k_reclaim_runs = 64;
inline constexpr unsigned k_age_runs = 32;    // given back in a step
inline constexpr unsigned k_age_sets = 16;    // looked at in a step
inline constexpr unsigned k_aged_runs = 128;  // looked at in a bin
inline constexpr std::size_t k_idle_kept = std::size_t{8} << 20;

struct HeapStats {
  base::Counter peak_bytes, peak_count;
  base::Counter other_count, other_bytes;  // handed out, but not by a present magazine or bin
  base::Counter misses;
  // Blocks of other heaps that this thread freed, and own blocks taken back from the remote lists (cumulative).
  // (the slack of the latter is no longer known then: the freeing side accounts for it in given_slack)
  base::Counter given_bytes, given_count, given_slack;
  base::Counter drained_bytes, drained_count;
};

class alignas(64) Heap {
 public:
  Heap(pages::PageStore& store, unsigned index, bool symmetric, std::uint32_t attention) noexcept;

  // --- hit paths (heap_hit.hpp) ---
  // `block` is nullptr where nothing is at hand. After `new_peak` the caller must call raise_peak before it leaves the
  // heap; it is not called here, so that the hit path saves no registers for a call that it almost never makes.
  enum class Pop : std::uint8_t { nothing, block, new_peak };
  struct Popped {
    void* block = nullptr;
    bool zero = false;
    Pop pop = Pop::nothing;
  };
  Popped pop_small(std::size_t size) noexcept;
  Popped pop_run(const pages::ArenaView& view, std::uint64_t pages, std::size_t size) noexcept;
  void raise_peak() noexcept;
  // Frees and leaves the lock. False if `block` is no live block of this heap that can be pushed at once; nothing has changed
  // then and the lock is still held.
  bool push_and_leave(void* block, std::size_t offset, pages::PageDesc& desc) noexcept;
  [[nodiscard]] Pop account(std::size_t granted, std::size_t slack) noexcept;  // block or new_peak
  void unaccount(std::size_t granted, std::size_t slack) noexcept;
  // Handed out in all. O(classes + bins); any thread: bins that move meanwhile are noticed by `moves_` and added up again.
  void totals(std::uint64_t* count, std::uint64_t* bytes) const noexcept;

  // --- small blocks ---
  // Fills the magazine from slabs with free blocks; false if there are none.
  bool refill(unsigned size_class) noexcept;
  // Adds a slab; false if the store has no run (or no record) for it; `failure` says why the kernel refused. `most`: as for
  // PageStore::take_or_grow.
  bool add_slab(unsigned size_class, bool may_grow, pages::GrowthFailure* failure, std::size_t most = SIZE_MAX) noexcept;
  // Frees a block of this heap whose state is live: spills the magazine if it is full, then pushes. Accounts.
  void free_small(Slab& slab, unsigned unit) noexcept;

  // --- large blocks ---
  // The bin of that page count, moved to the way that hits look at; nullptr if no way of the set has it.
  RunBin* find_bin(std::uint64_t pages) noexcept;
  // Frees a live run of this heap into its bin, or to the store where the set is full. Accounts.
  void free_run(pages::PageIndex first) noexcept;
  // Makes the first `pages` of a run of state `taken` a live block of this heap; the rest of it comes to the bins. Accounts.
  void* adopt_run(const pages::PageRuns::Taken& run, std::uint32_t pages, std::size_t size) noexcept;

  // --- blocks that other threads freed ---
  // Called by the freeing thread, any thread. False: the block was not live, a double free; nothing has changed then.
  bool free_remote(Slab& slab, unsigned unit, std::uint32_t* slack) noexcept;
  bool free_remote(pages::PageIndex first, std::uint32_t* slack) noexcept;
  // Takes back at least `most` of each kind, small and large, if there are so many (a slab's are taken together, so it may be
  // 255 small ones more); true if any. O(most).
  bool drain(unsigned most) noexcept {
    const bool any = drain_slabs_ != nullptr || drain_runs_ != pages::k_no_page ||
                     remote_slabs_.load(std::memory_order_relaxed) != nullptr ||
                     remote_runs_.load(std::memory_order_relaxed) != pages::k_no_page;
    return any && drain_some(most);
  }

  // --- giving back ---
  void decay() noexcept;
  bool keeps_too_much() const noexcept { return owned_bytes_ - live_bytes() > k_idle_kept; }
  // Gives idle bins back until `runs` runs are given or the table is through; returns the runs. O(512 + runs).
  unsigned reclaim(unsigned runs) noexcept;
  // Gives all idle runs and empty slabs back; true if there were any. O(512 + runs), on the way to the kernel only.
  bool give_idle() noexcept;
  // Growth by `bytes` is held back although all idle runs are given back, for a size that the heap knows or not.
  void weigh_growth(std::uint64_t bytes, bool known, std::uint64_t peak) noexcept;
  // Whether what was weighed says that the heap repeats its sizes and should grow.
  bool repeats(std::uint64_t peak) const noexcept { return repeated_bytes_ > peak; }
  // Gives back what has not been used since before epoch `before` began, `now` being the present one, in steps of some us: each
  // goes on where `*step` says and returns whether there are more. `*left`: what is free may yet come to be idle. The runs of a
  // bin are told apart as deep as k_aged_runs; below, the bin's own use decides.
  bool age(pages::Epoch now, pages::Epoch before, unsigned* step, bool* left) noexcept;
  // Gives everything back that is free. O(free blocks): never on an allocation's way but before refusing it.
  void flush() noexcept;

  // Clears up to `blocks` cached runs of that page count, most recently freed first; returns bytes cleared. O(bytes).
  std::size_t zero_cached(std::uint32_t pages, std::size_t blocks, std::size_t max_bytes) noexcept;

  // nullptr if HP-1..HP-3, HP-5 and SL-1..SL-3 hold, else the id. O(everything).
  const char* validate() noexcept;
  // Bytes of the longest cached run. O(bins).
  std::size_t largest_cached() const noexcept;

  // Which set of bins keeps runs of that many pages: the top seven bits of a Fibonacci hash; and how many bytes the set's
  // first bin lies behind that of set 0, which saves hits the multiplication.
  static constexpr unsigned set_of(std::uint64_t pages) noexcept { return bin_of(pages) / sizeof(RunBin); }
  static constexpr std::uint16_t bin_of(std::uint64_t pages) noexcept {
    return static_cast<std::uint16_t>(static_cast<std::uint32_t>(pages) * 0x9E3779B1U >> 20 & (k_bin_sets - 1) * sizeof(RunBin));
  }
  unsigned index() const noexcept { return index_; }
  pages::PageStore& store() noexcept { return *store_; }

  std::uint64_t owned_bytes() const noexcept { return owned_bytes_; }
  // A live run of this heap has become longer or shorter.
  void resized(std::uint32_t old_pages, std::uint32_t new_pages) noexcept {
    owned_bytes_ += (std::uint64_t{new_pages} - old_pages) * os::k_page_size;
  }
  std::uint64_t live_bytes() const noexcept { return stats.peak_bytes.get() - headroom_bytes_.get(); }
  std::uint64_t live_count() const noexcept {
    return stats.peak_count.get() - static_cast<std::uint64_t>(static_cast<std::int64_t>(headroom_count_and_slack_.get()) >> k_slack_bits);
  }
  std::uint64_t slack() const noexcept { return headroom_count_and_slack_.get() & (k_one_block - 1); }
  void reset_peak() noexcept;

  HeapLockGuard lock_guard_;
  // What every hit reads and writes: one cache line, begun by the lock. The hit path counts down to the next peak instead of
  // comparing with the last one: one instruction less for each.
  alignas(64) HeapLock lock;

 private:
  std::uint32_t tag_;  // run_head(none, index): what a head of this heap holds beside the state
  std::uint32_t index_;
  base::Counter headroom_bytes_;  // peak less live
  // Two sums in one word, for one store: blocks to the peak in the upper 28 bits, granted less requested bytes of live
  // blocks in the lower 36 (that is 64 GiB; 16 million blocks at the worst slack).
  base::Counter headroom_count_and_slack_;

  struct ClassState {
    Item* bottom = nullptr;  // the sentinel of the magazine
    Slab* partial = nullptr;
    Slab* empty = nullptr;
    std::uint32_t aged_pops = 0;  // pops of the magazine when `age` last passed
  };

  // How many bytes the magazine of the class that serves `size` lies behind that of class 0; and what the class of a magazine
  // at such a place grants.
  static constexpr std::size_t magazine_of(std::size_t size) noexcept { return (size + k_unit - 1) / k_unit * sizeof(Magazine); }
  static constexpr std::size_t granted_at(std::size_t magazine) noexcept { return magazine * (k_unit / sizeof(Magazine)); }
  Magazine& magazine_at(std::size_t bytes) noexcept {
    return *reinterpret_cast<Magazine*>(reinterpret_cast<char*>(magazines_) + bytes);
  }
  RunBin& bin_at(std::size_t bytes) noexcept { return *reinterpret_cast<RunBin*>(reinterpret_cast<char*>(bins_) + bytes); }
  std::uint32_t head_of(pages::RunState state) const noexcept { return pages::run_head(state, index_); }
  Slab*& list_of(const Slab& slab) noexcept;
  void unlink(Slab& slab) noexcept;
  void link(Slab& slab) noexcept;
  void put_back(Slab& slab, unsigned unit) noexcept;
  void spill(unsigned size_class, unsigned blocks) noexcept;
  void release_slab(Slab& slab, pages::Epoch used) noexcept;
  bool drain_some(unsigned most) noexcept;
  unsigned drain_slab(Slab& slab) noexcept;
  void drain_run(pages::PageIndex first) noexcept;
  void begin_move() noexcept {
    moves_.add(1);
    std::atomic_thread_fence(std::memory_order_release);
  }
  void end_move() noexcept {
    std::atomic_thread_fence(std::memory_order_release);
    moves_.add(1);
  }
  static void set_bin(RunBin& bin, std::uint32_t pages, pages::PageIndex head, std::uint64_t pops, std::uint64_t seen) noexcept {
    bin.pages = pages;
    bin.head = head;
    bin.pops.set(pops);
    bin.seen = seen;
    bin.aged_pops = static_cast<std::uint32_t>(pops) + 1;
  }
  RunBin* claim_bin(std::uint32_t pages) noexcept;
  void cache_run(pages::PageIndex first, bool zero) noexcept;
  unsigned give_runs(RunBin& bin, unsigned most) noexcept;
  unsigned decay_set(unsigned most) noexcept;
  bool age_bin(RunBin& bin, pages::Epoch now, pages::Epoch before, unsigned* most) noexcept;
  bool age_class(unsigned size_class, pages::Epoch now, pages::Epoch before, unsigned* most) noexcept;

  char* base_;
  pages::PageDesc* descs_;
  pages::PageStore* store_;

 public:
  HeapStats stats;

 private:
  Magazine magazines_[k_classes];
  RunBin bins_[k_bin_sets];
  RunBin more_bins_[k_bin_sets][k_more_ways];
  ClassState classes_[k_classes];
  std::uint64_t owned_bytes_ = 0;
  base::Counter moves_;  // of bins between ways, counted before and after
  std::uint64_t repeated_bytes_ = 0;  // evidence of a loop
  unsigned bin_hand_ = 0;
  unsigned class_hand_ = 0;
  pages::PageIndex drain_runs_ = pages::k_no_page;  // taken off remote_runs_, not yet freed
  Slab* drain_slabs_ = nullptr;
  alignas(64) std::atomic<Slab*> remote_slabs_{nullptr};
  std::atomic<pages::PageIndex> remote_runs_{pages::k_no_page};
  static constexpr unsigned k_items = 1 + 16 * 65 + 16 * 33 + 31 * 17;  // each class with its sentinel
  alignas(64) Item items_[k_items];
};

}  // namespace rtpool::blocks
