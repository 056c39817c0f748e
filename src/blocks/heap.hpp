// A thread heap: what one thread allocates from and frees to without a lock.
//
// Small blocks: a magazine (LIFO of blocks at hand) a class, filled from and spilled to the heap's slabs. Large blocks: a
// bin (LIFO of free runs) an exact page count, in a four-way table of 128 sets. Other threads hand blocks back through
// lock-free lists, one a class and one for runs, that the owner drains when it misses.
//
// Decay: up to k_idle_kept bytes a heap keeps what was freed, so that a loop finds all of its sizes after one iteration.
// Beyond, a clock hand moves on every other miss; a bin from which nothing was allocated in a whole round, 128 misses, gives its runs
// back to the page store, where they coalesce, and the kernel is asked for memory only where idle bins do not help. A loop
// that has all of its sizes does not miss, so the hand stands still; a program whose sizes wander keeps what it uses.
//
// Frugality: where growth would make the pool hold more than a quarter more than was ever alive in it, a heap first gives all of
// its idle runs back. Only a loop whose sizes add up to more than that would miss for ever then, and is told from wandering
// sizes by what it asks for: sizes that it has asked for before. Bytes of growth that was held back are weighed, those for known
// sizes against twice those for new ones; when the heap's share of the peak has come together it keeps what it uses.
//
// Wandering: a free run in a bin is of use if its size comes again, and else only in the way: it cannot join its neighbours, and has
// to be found when others need the memory. Pages of misses of new sizes are weighed against those of known ones (that have a bin), two
// to one; once they are sixteen times the heap's peak ahead, and 256 MiB, a block is freed to the page store at once unless its size
// comes again often enough for its length. A loop that comes after that has its bins when it has missed as much as that of known sizes.
//
// Departing: what goes to the store goes there with the next runs that are wanted of it, two in one turn of its lock. Until then it
// waits, eight runs and a quarter of what the heap owns at most; before the pool grows whoever needs memory takes it (`give_departing`).
//
//   HP-1  every block in a magazine is not live, not in its slab's `free`, and belongs to a slab of this heap and of the magazine's class
//   HP-2  every run in a bin is owned by this heap, not live, and of the bin's page count
//   HP-3  each page count is in at most one way of its set
//   HP-4  live_bytes() and live_count() are the sums over the heap's live and its remotely freed, undrained blocks
//   HP-5  headroom == peak - live, never below zero outside of `account`
//   HP-6  owned_bytes() is the sum of the heap's slabs and runs, handed out or not, departing or not
//   HP-7  every departing run is owned by this heap and not live, and they are as many, and have as many pages, as is counted
//
// Outgoing: a small block of another heap that this thread has freed. Its state says so at once, so that a second free is seen, and it
// counts as freed; its owner has it when k_outgoing_most of them are sent together, and before whatever needs it: the thread's next miss,
// its end, freezing (after which each goes at once), a fork's child, a look for idle memory, growth beyond what is allowed, a refusal.
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

// As long as a unit, so that a class's bytes are also where its magazine lies. What hits write stands where no line of another
// magazine's, of the heap or of the pool has what they read (src/README.md: the last 12 bits).
//
// The top and how many blocks were handed out are one word, so that a hit loads and stores it once for both. Places count in bytes
// from the heap's first item.
struct alignas(64) Magazine {
  std::uint64_t seen;       // pops when the clock hand last passed
  std::uint64_t aged_pops;  // pops when `age` last passed
  std::uint64_t unused_pops;  // pops when `give_unused` last passed
  std::uint64_t unused[2];
  std::uint16_t bottom;     // the sentinel below the first place, which holds nullptr
  std::uint16_t last;       // the topmost place
  base::Counter word;       // the place of the block to hand out next; above it blocks handed out, ever

  static constexpr unsigned k_place_bits = 16;
  static constexpr std::uint64_t k_pop = (std::uint64_t{1} << k_place_bits) - sizeof(Item);  // one more handed out, one place down
  static constexpr std::uint64_t k_push = sizeof(Item);

  static std::uint16_t place_in(std::uint64_t word) noexcept { return static_cast<std::uint16_t>(word); }
  std::uint16_t top() const noexcept { return place_in(word.get()); }
  // Any thread. Of 48 bits: one size alone, without pause, fills them in 19 days.
  std::uint64_t pops() const noexcept { return word.get() >> k_place_bits; }
  unsigned held() const noexcept { return static_cast<unsigned>(top() - bottom) / sizeof(Item); }
  unsigned room() const noexcept { return static_cast<unsigned>(last - top()) / sizeof(Item); }
};
static_assert(sizeof(Magazine) == k_unit && offsetof(Magazine, word) == 48);

// What hits do not need of a bin; the rest lies in arrays of their own, where one instruction reaches it by the bin's number.
struct BinUse {
  std::uint32_t seen = 0;         // pops when the clock hand last passed; k_fresh: it has not yet passed
  std::uint32_t asked_pops = 0;   // pops at the last miss of that page count
  std::uint32_t unused_pops = 0;  // pops when `give_unused` last passed
};
inline constexpr std::uint32_t k_fresh = ~std::uint32_t{0};

// The last miss of a page count, whether it has a bin or not.
struct Asked {
  std::uint32_t pages = 0;
  std::uint32_t miss = 0;  // its number
};
inline constexpr unsigned k_asked = 512;  // page counts that are remembered

inline constexpr unsigned k_bin_sets = 128;  // what set_of yields
inline constexpr unsigned k_bin_ways = 4;
inline constexpr unsigned k_bins = k_bin_sets * k_bin_ways;  // way w of set s is number w * k_bin_sets + s
inline constexpr std::uint16_t k_no_bin = k_bins;  // one that is always empty: its runs go to the page store when they are freed

// Bounds of the slow paths, in blocks, runs or sets.
inline constexpr unsigned k_drain_blocks = 64;
inline constexpr unsigned k_drain_rounds = 16;  // before a small size that is still missing takes new memory
inline constexpr unsigned k_decay_bins = 8;
inline constexpr unsigned k_decay_misses = 2;  // between two moves of the clock hand
inline constexpr unsigned k_decay_runs = 1;
inline constexpr unsigned k_departing_most = 8;
inline constexpr unsigned k_departing_share = 4;
inline constexpr unsigned k_departing_at_once = 2;  // that a miss gives: as many as one frees, and one more
inline constexpr unsigned k_reclaim_runs = 64;
inline constexpr unsigned k_outgoing_most = 8;
// Of a step of `age`, which keeps the owner waiting: a look is a cache line, at the worst one from memory after the other, and
// what is given back is some ten of them. 64 and 4 took 22 us with cold caches, these 12 (`run.py --suite idle`).
inline constexpr unsigned k_age_looks = 32;
inline constexpr unsigned k_age_gives = 2;
inline constexpr unsigned k_age_drains = 8;       // blocks taken back, in a step of its own
inline constexpr unsigned k_most_drains = 8192;   // such steps in a pass
inline constexpr unsigned k_most_restarts = 64;   // of bins and lists, in a pass
inline constexpr std::size_t k_idle_kept = std::size_t{8} << 20;
inline constexpr std::size_t k_idle_kept_each = std::size_t{4} << 20;  // beside it, for each further heap of a pool
inline constexpr std::uint64_t k_served_share = 4;  // of the peak, the most that counts of a request that idle runs served
// Wandering: misses of new sizes against those of known ones, in pages; and up to how many pages times misses since the last one of
// that size a run is worth a bin then.
inline constexpr std::uint64_t k_wandering = 65536;
inline constexpr std::uint64_t k_wandering_peaks = 16;
inline constexpr std::uint64_t k_worth_keeping = 1024;

struct HeapStats {
  base::Counter peak_bytes, peak_count;
  base::Counter other_count, other_bytes;  // handed out, but not by a present magazine or bin
  base::Counter misses;
  // Blocks of other heaps that this thread freed, and own blocks taken back from the remote lists (cumulative).
  // (what was asked for of the latter is no longer known then: the freeing side accounts for it in given_requested)
  base::Counter given_bytes, given_count, given_requested;
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
  // Free and leave the lock: a run of this heap that begins at `page`, or what begins at a unit of the arena. False if that is no
  // live block of this heap that can be pushed where hits look; nothing has changed then and the lock is still held.
  bool has_run(const pages::PageDesc& desc) const noexcept { return base::folded_load(desc.head) == run_head_; }
  bool push_run_and_leave(std::uint64_t page, pages::PageDesc& desc) noexcept;
  bool push_small_and_leave(void* block, std::uint64_t unit, const pages::PageDesc& desc) noexcept;
  [[nodiscard]] Pop account(std::size_t granted, std::size_t requested) noexcept;  // block or new_peak
  void unaccount(std::size_t granted, std::size_t requested) noexcept;
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
  // Moves the bin of that page count to the way that hits look at; false if no way of the set has it.
  bool find_bin(std::uint64_t pages) noexcept;
  // The same for who would rather miss a bin than look for one that is hardly there: of sizes that wander those that were not asked
  // for lately have none worth the look.
  bool find_likely_bin(std::uint32_t pages) noexcept { return (!wanders_ || asked_at(pages).pages == pages) && find_bin(pages); }
  bool has_free_run(std::uint64_t pages) noexcept { return find_bin(pages) && bin_heads_[set_of(pages)] != pages::k_no_page; }
  // Whether that page count was asked for lately, as far as is remembered.
  bool knows(std::uint32_t pages) noexcept { return asked_at(pages).pages == pages || find_bin(pages); }
  // Frees a live run of this heap into its bin, or lets it depart where the set is full or the sizes wander. Accounts.
  void free_run(pages::PageIndex first) noexcept;
  // Makes the first `pages` of a run of state `taken` a live block of this heap; the rest of it comes to the bins. Accounts.
  // `has_bin`: what find_bin or find_likely_bin says of that page count.
  void* adopt_run(const pages::PageRuns::Taken& run, std::uint32_t pages, std::size_t size, bool has_bin) noexcept;

  // --- blocks that other threads freed ---
  // Called by the freeing thread, any thread. False: the block was not live, a double free; nothing has changed then.
  bool free_remote(Slab& slab, unsigned unit, std::size_t* requested) noexcept {
    return free_remote(slab, slab.size_class, unit, requested);
  }
  bool free_remote(Slab& slab, unsigned size_class, unsigned unit, std::size_t* requested) noexcept;
  bool free_remote(pages::PageIndex first, std::size_t* requested) noexcept;
  // The same for a small block, called by the freeing thread inside its own heap, for blocks of any others: the block is no longer alive
  // from now on, and its owner is told when k_outgoing_most of them have come together. Then the waits for their states' lines, which
  // the owner's processor has, are one wait. True: `send_outgoing` is due.
  bool free_later(Heap& owner, Slab& slab, State& state, unsigned unit, std::size_t granted, std::size_t requested) noexcept;
  // Tells the owners. Of two threads that free a block at the same time one is told here that the other did: this returns the block,
  // has taken it out of what is counted as given, and is to be called again; else nullptr. O(k_outgoing_most).
  const void* send_outgoing() noexcept;
  bool has_outgoing() const noexcept { return outgoing_count_.get() != 0; }  // any thread
  // Called by the freeing thread inside its own heap: it has freed a block of another's.
  void count_given(std::size_t granted, std::size_t requested) noexcept {
    stats.given_bytes.add(granted);
    stats.given_count.add(1);
    stats.given_requested.add(requested);
  }
  // Takes back at least `most` of each kind, small and large, if there are so many (a slab's are taken together, so it may be
  // 63 small ones more); true if any. O(classes + most).
  bool drain(unsigned most) noexcept;
  // The same of one class, and of runs. O(most).
  bool drain_class(unsigned size_class, unsigned most) noexcept;
  bool drain_runs(unsigned most) noexcept { return has_remote_runs() && drain_some_runs(most); }
  bool has_remote_runs() const noexcept {
    return drain_runs_ != pages::k_no_page || remote_runs_.load(std::memory_order_relaxed) != pages::k_no_page;
  }

  // --- giving back ---
  // For PageStore::give_all: the last `most` departing runs, or all; the heap no longer has them.
  pages::PageIndex take_departing(unsigned most = k_departing_most) noexcept;
  // Whether there are any; any thread.
  bool has_departing() const noexcept { return departing_count_.get() != 0; }
  void give_departing() noexcept {
    if (departing_ != pages::k_no_page) store_->give_all(take_departing(), store_->epoch());
  }
  // What it gives departs.
  void decay() noexcept;
  bool keeps_too_much() const noexcept { return owned_bytes_ - departing_pages_ * os::k_page_size - live_bytes() > k_idle_kept; }
  // Gives idle bins back until `runs` runs are given or the table is through; returns the runs. O(512 + runs).
  unsigned reclaim(unsigned runs) noexcept;
  // Gives all idle runs and empty slabs back; true if there were any. O(512 + runs), on the way to the kernel only.
  bool give_idle() noexcept;
  // Growth by `bytes` was held back, for a size that the heap knows or not, and all idle runs given back, which served it or not.
  void weigh_growth(std::uint64_t bytes, bool known, bool served, std::uint64_t peak) noexcept;
  // Whether what was weighed says that the heap repeats its sizes and should grow.
  bool repeats(std::uint64_t peak) const noexcept { return repeated_bytes_ > peak; }
  // Gives all runs back of bins from which nothing was taken since the last call, and empty slabs of such classes: for
  // another thread that needs room. What a loop uses stays. O(512 + runs).
  void give_unused() noexcept;
  // Where a pass of `age` is, and what it found.
  struct Aging {
    unsigned step = 0;                        // a bin, or a class behind them
    pages::PageIndex run = pages::k_no_page;  // of the bin: the last run looked at that stays
    bool begun = false;                       // the class is
    bool used = false;                        // the class was, since the last pass
    bool walking = false;                     // its slabs are looked at
    unsigned drains = 0;
    unsigned restarts = 0;
    bool left = false;  // what is free may yet come to be idle
  };
  // Gives back what has not been used since before epoch `before` began, `now` being the present one, in bounded steps
  // (k_age_looks, k_age_gives): each goes on where `at` says and returns whether there are more. Others may use the heap in
  // between.
  bool age(pages::Epoch now, pages::Epoch before, Aging* at) noexcept;
  // Gives everything back that is free. O(free blocks): never on an allocation's way but before refusing it.
  void flush() noexcept;

  // Clears up to `blocks` cached runs of that page count, most recently freed first; returns bytes cleared. O(bytes).
  std::size_t zero_cached(std::uint32_t pages, std::size_t blocks, std::size_t max_bytes) noexcept;

  // nullptr if HP-1..HP-3, HP-5 and SL-1..SL-3 hold, else the id. O(everything).
  const char* validate() noexcept;
  // Adds the small blocks in magazines. O(classes).
  void count_at_hand(std::uint64_t* count, std::uint64_t* bytes) const noexcept;
  // Bytes of the longest cached or departing run. O(bins).
  std::size_t largest_cached() const noexcept;

  // Which set of bins keeps runs of that many pages: the top seven bits of a Fibonacci hash. Also the number of the set's first
  // way, the one that hits look at.
  static constexpr std::uint16_t set_of(std::uint64_t pages) noexcept {
    return static_cast<std::uint16_t>(static_cast<std::uint32_t>(pages) * 0x9E3779B1U >> 25);
  }
  unsigned index() const noexcept { return index_; }
  pages::PageStore& store() noexcept { return *store_; }

  std::uint64_t owned_bytes() const noexcept { return owned_bytes_; }
  // A live run of this heap has become longer or shorter.
  void resized(std::uint32_t old_pages, std::uint32_t new_pages) noexcept {
    owned_bytes_ += (std::uint64_t{new_pages} - old_pages) * os::k_page_size;
  }
  std::uint64_t live_bytes() const noexcept { return stats.peak_bytes.get() - headroom_bytes_.get(); }
  std::uint64_t live_count() const noexcept { return stats.peak_count.get() - headroom_count_.get(); }
  // Bytes asked for, of this heap's live blocks and of those that others freed: the freeing side counts those.
  std::uint64_t requested_bytes() const noexcept { return requested_bytes_.get(); }
  void reset_peak() noexcept;

  HeapLockGuard lock_guard_;
  // What every hit reads and writes: one cache line, begun by the lock. The hit path counts down to the next peak instead of
  // comparing with the last one: one instruction less for each.
  alignas(64) HeapLock lock;

 private:
  const std::uint32_t slab_head_;  // run_head(slab, index)
  const std::uint32_t run_head_;   // run_head(heap, index)
  base::Counter headroom_bytes_;   // peak less live
  base::Counter headroom_count_;
  base::Counter requested_bytes_;
  const std::uint32_t index_;

  struct ClassState {
    Slab* partial = nullptr;
    Slab* empty = nullptr;
    Slab* hand = nullptr;  // of `empty`: what `age` looks at next
    Slab* drained = nullptr;  // taken off remote_slabs_, not yet looked at
  };

  // What the class that serves `size` grants, which is also how many bytes its magazine lies behind that of class 0.
  static constexpr std::size_t magazine_of(std::size_t size) noexcept { return (size + k_unit - 1) & ~(k_unit - 1); }
  Magazine& magazine_at(std::size_t bytes) noexcept {
    return *reinterpret_cast<Magazine*>(reinterpret_cast<char*>(magazines_) + bytes);
  }
  Item* item_at(std::uint16_t place) noexcept { return reinterpret_cast<Item*>(reinterpret_cast<char*>(items_) + place); }
  std::uint16_t place_of(const Item& item) const noexcept {
    return static_cast<std::uint16_t>(reinterpret_cast<const char*>(&item) - reinterpret_cast<const char*>(items_));
  }
  std::uint32_t head_of(pages::RunState state) const noexcept { return pages::run_head(state, index_); }
  Slab*& list_of(const Slab& slab) noexcept;
  void unlink(Slab& slab) noexcept;
  void link(Slab& slab) noexcept;
  void put_back(Slab& slab, std::uint64_t blocks) noexcept;
  void spill(unsigned size_class, unsigned blocks) noexcept;
  void release_slab(Slab& slab, pages::Epoch used) noexcept;
  bool drain_some_runs(unsigned most) noexcept;
  unsigned drain_slab(Slab& slab) noexcept;
  void drain_run(pages::PageIndex first) noexcept;
  static std::uint64_t add_remote(Slab& slab, std::atomic<Slab*>& list, std::uint64_t blocks) noexcept;
  void begin_move() noexcept {
    moves_.add(1);
    std::atomic_thread_fence(std::memory_order_release);
  }
  void end_move() noexcept {
    std::atomic_thread_fence(std::memory_order_release);
    moves_.add(1);
  }
  struct WholeBin {
    std::uint32_t pages = 0;
    pages::PageIndex head = pages::k_no_page;
    std::uint64_t pops = 0;
    BinUse use;
  };
  WholeBin bin_at(unsigned bin) const noexcept { return {bin_pages_[bin], bin_heads_[bin], bin_pops_[bin].get(), bin_uses_[bin]}; }
  void put_bin(unsigned bin, const WholeBin& whole) noexcept {
    bin_pages_[bin] = whole.pages;
    bin_heads_[bin] = whole.head;
    bin_pops_[bin].set(whole.pops);
    bin_uses_[bin] = whole.use;
  }
  bool claim_bin(std::uint32_t pages) noexcept;
  std::uint16_t bin_of_new(std::uint32_t pages, bool has_bin) noexcept;
  Asked& asked_at(std::uint32_t pages) noexcept { return asked_[pages * 0x9E3779B1U >> 23]; }
  void cache_run(pages::PageIndex first, bool zero) noexcept;
  void depart(pages::PageIndex first, bool zero) noexcept;
  unsigned give_runs(unsigned bin, unsigned most) noexcept;
  unsigned decay_bins(unsigned most) noexcept;
  struct AgeStep;
  bool goes_on_at(pages::PageIndex run, std::uint64_t pages) const noexcept;
  bool age_bin(unsigned bin, const AgeStep& step, Aging* at) noexcept;
  bool age_class(unsigned size_class, const AgeStep& step, Aging* at) noexcept;

  char* base_;
  pages::PageDesc* descs_;
  pages::PageStore* store_;

 public:
  HeapStats stats;

 private:
  Magazine magazines_[k_classes];
  base::Published bin_pages_[k_bins + 1];     // and k_no_bin
  pages::PageIndex bin_heads_[k_bins + 1];    // k_no_page, too, has a descriptor (pages::ArenaView)
  base::Counter bin_pops_[k_bins];  // runs handed out since the bin got its page count
  BinUse bin_uses_[k_bins];
  Asked asked_[k_asked];
  ClassState classes_[k_classes];
  std::uint64_t owned_bytes_ = 0;
  std::uint64_t departing_pages_ = 0;
  base::Counter departing_count_;
  pages::PageIndex departing_ = pages::k_no_page;  // linked by `next`
  base::Counter moves_;  // of bins between ways, counted before and after
  std::uint64_t repeated_bytes_ = 0;  // evidence of a loop
  std::uint64_t strange_ = 0;  // pages of misses of new sizes, less those of known ones
  bool wanders_ = false;
  unsigned claims_ = 0;
  unsigned decay_misses_ = 0;
  unsigned bin_hand_ = 0;
  unsigned class_hand_ = 0;
  pages::PageIndex drain_runs_ = pages::k_no_page;  // taken off remote_runs_, not yet freed
  alignas(64) std::atomic<Slab*> remote_slabs_[k_classes] = {};
  alignas(64) std::atomic<pages::PageIndex> remote_runs_{pages::k_no_page};
  static constexpr unsigned k_items = 1 + 16 * 65 + 16 * 33 + 31 * 17;  // each class with its sentinel
  alignas(64) Item items_[k_items];
  static_assert(sizeof items_ <= std::size_t{1} << Magazine::k_place_bits);
  // Blocks of other heaps that this thread has freed, and whose owners do not know yet.
  struct Outgoing {
    State* state;
    Slab* slab;
    std::atomic<Slab*>* list;  // the owner's, for slabs of that class
    std::uint16_t requested;
    std::uint8_t block;
  };
  alignas(64) Outgoing outgoing_[k_outgoing_most];
  base::Counter outgoing_count_;
};

}  // namespace rtpool::blocks
