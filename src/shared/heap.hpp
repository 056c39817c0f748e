// What one process has of a segment: runs of granules, cut into slabs or whole, and the free blocks in them.
//
// All of it is in the process's own memory. Nothing here is shared but the granule words: so allocating and freeing
// touch no line that another process writes, and a process that dies leaves nothing of it behind.
//
//   SP-1  a run without a live block is idle in the segment or lent; one whose live blocks are all let go is lent; one
//         that has a live block which is neither let go nor kept by a record is neither
//   SP-2  `run_of_[g]` is the run that was claimed at granule g, or nullptr; a run that was stolen may stand there until
//         the process finds out, at the latest when it claims g again
//   SP-3  current_count and current_bytes are those of the live blocks, borrowed ones among them
//   SP-4  a borrowed block lies in no run of this process
//
// Thread rule: the caller locks. Cost: `take` from a free block and `give` are O(1): a few stores and, when a run goes
// into or out of use, one atomic operation; `take` of new granules is O(granules of the segment). Failure: k_no_block.
#pragma once

#include "shared/borrowed.hpp"
#include "shared/granules.hpp"
#include "shared/size_class.hpp"

namespace rtpool::shared {

inline constexpr std::uint64_t k_no_block = UINT64_MAX;

// What the segment says of a run. Idle and lent ones may have been stolen.
enum class RunUse : std::uint8_t { busy, idle, lent };

struct Run {
  std::uint32_t first = 0;
  std::uint32_t granules = 0;
  std::uint32_t block_bytes = 0;     // 0: one large block
  std::uint32_t size_class = 0;
  std::uint32_t capacity = 1;        // blocks
  std::uint32_t used = 0;
  std::uint32_t fresh = 0;           // blocks from here on were never used
  std::uint32_t stacked = 0;         // entries of `stack`
  std::uint32_t let_go = 0;          // live blocks that this process has let go of
  RunUse use = RunUse::busy;
  bool listed = false;
  bool borrowed = false;             // one block in another process's run; no granules
  std::uint64_t start = 0;           // offset of the first block
  std::uint64_t large_requested = 0;
  Run* previous = nullptr;
  Run* next = nullptr;
  // Behind this struct in one allocation: of each block
  std::uint64_t* live = nullptr;     // bit
  std::uint64_t* pinned = nullptr;   // bit: alive at a fork
  std::uint64_t* gone = nullptr;     // bit: let go; only its record keeps it
  std::uint32_t* requested = nullptr;
  std::uint32_t* records = nullptr;  // record + 1 while shared
  std::uint16_t* stack = nullptr;    // freed blocks, the last one on top

  bool large() const noexcept { return block_bytes == 0; }
};

// A live block.
struct Block {
  Run* run = nullptr;
  std::uint32_t index = 0;

  explicit operator bool() const noexcept { return run != nullptr; }
  bool borrowed() const noexcept { return run->borrowed; }
  bool let_go() const noexcept { return (run->gone[index / 64] >> index % 64 & 1) != 0; }
  bool pinned() const noexcept { return (run->pinned[index / 64] >> index % 64 & 1) != 0; }
  std::uint32_t& record() const noexcept { return run->records[index]; }
};

struct HeapCounts {
  std::uint64_t current_bytes = 0;
  std::uint64_t current_count = 0;
  std::uint64_t requested_bytes = 0;
  std::uint64_t peak_bytes = 0;
  std::uint64_t peak_count = 0;
  std::uint64_t total_bytes = 0;
  std::uint64_t total_count = 0;
  std::uint64_t claims = 0;
  // Of current_* and requested_bytes: blocks that their records count, because they were let go or are borrowed.
  std::uint64_t recorded_bytes = 0;
  std::uint64_t recorded_count = 0;
  std::uint64_t recorded_requested_bytes = 0;
  // Of these, borrowed ones.
  std::uint64_t borrowed_bytes = 0;
  std::uint64_t borrowed_count = 0;
};

// Who is told of each live block that ends, before its place can be taken again. `stolen`: not by this process.
struct EndWatcher {
  void (*told)(void* context, std::uint64_t offset, std::uint64_t requested, bool stolen) noexcept = nullptr;
  void* context = nullptr;
};

class Heap {
 public:
  // nullptr without memory.
  static Heap* make(Segment& segment, Granules& granules, Tenancy tenancy) noexcept;
  // Makes its table of runs, which is empty still, resident.
  void prefault() noexcept;
  void destroy() noexcept;

  // Offset of a block of at least `size` bytes from what the process has; k_no_block: it has none.
  std::uint64_t take(std::uint64_t size) noexcept;
  // Claims granules for it first.
  std::uint64_t take_new(std::uint64_t size) noexcept;
  void give(Block block) noexcept;
  // This process holds the block no more, others do: it stays live until it is given. Once all of a run are let go the run
  // is lent, and may be taken from this process as soon as no record covers it. And the other way round.
  void let_go(Block block) noexcept;
  void hold_again(Block block) noexcept;
  // A block in another process's run, which a record keeps for this one: live until it is given back. An empty Block: no
  // memory, or what this process has there is not known to be gone.
  Block borrow(std::uint64_t offset, std::uint64_t bytes, std::uint32_t record, std::uint64_t size) noexcept;
  void give_back(Block block) noexcept;

  // The live block that begins at, or holds, an offset. A borrowed one lies in no run of this process (SP-4): who frees looks
  // among its own first, and pays nothing for those.
  Block find(std::uint64_t offset) const noexcept;
  Block find_around(std::uint64_t offset) const noexcept;
  Block find_own(std::uint64_t offset) const noexcept;
  std::uint64_t offset_of(Block block) const noexcept {
    return block.run->start + std::uint64_t{block.index} * block.run->block_bytes;
  }
  std::uint64_t granted(Block block) const noexcept {
    return block.run->large() ? std::uint64_t{block.run->granules} << shift_ : block.run->block_bytes;
  }
  std::uint64_t requested(Block block) const noexcept {
    return block.run->large() ? block.run->large_requested : block.run->requested[block.index];
  }
  void set_requested(Block block, std::uint64_t size) noexcept;
  // Calls `function(offset, requested)` for each live block.
  template <class Function>
  void for_each_live(Function&& function) const noexcept {
    for_each_run([&](Run* run) {
      for (std::uint32_t i = 0; i < run->fresh; ++i) {
        const Block block{run, i};
        if (is_live(*run, i)) function(offset_of(block), requested(block));
      }
    });
  }
  void set_end_watcher(const EndWatcher& watcher) noexcept { ended_ = watcher; }
  // What this process has or would take there for blocks of at most `largest` bytes: a slab of such blocks, or a free granule.
  enum class Prospect : std::uint8_t { none, slab, free };
  Prospect prospect(std::uint32_t granule, std::size_t largest) const noexcept;

  // Gives every idle run back to the segment; bytes given back.
  std::uint64_t trim() noexcept;
  // Pins all live blocks / none.
  void pin_all() noexcept;
  void unpin_all() noexcept;

  // A forked child keeps the heaps of its ancestors to look addresses up in.
  Heap* older() const noexcept { return older_; }
  void set_older(Heap* heap) noexcept { older_ = heap; }

  const HeapCounts& counts() const noexcept { return counts_; }
  void reset_peak() noexcept;
  Tenancy tenancy() const noexcept { return tenancy_; }
  // Walks everything: the granule where an invariant fails, or k_none. `id` is the invariant.
  std::uint32_t check(const char** id) const noexcept;

 private:
  Heap() = default;
  std::uint64_t take_small(std::uint64_t size) noexcept;
  std::uint64_t take_large(std::uint64_t size) noexcept;
  std::uint64_t take_from(Run* run, std::uint64_t size) noexcept;
  Run* make_run(std::uint32_t granules, std::uint32_t block_bytes, std::uint32_t size_class) noexcept;
  Run* claim_slab(unsigned size_class) noexcept;
  Block find_own_around(std::uint64_t offset) const noexcept;
  bool make_way(std::uint32_t first, std::uint32_t granules) noexcept;
  bool wake(Run* run) noexcept;
  void settle(Run* run) noexcept;
  void account_given(Block block, bool stolen) noexcept;
  static bool is_live(const Run& run, std::uint32_t index) noexcept { return (run.live[index / 64] >> index % 64 & 1) != 0; }
  void discard(Run* run) noexcept;
  Run** list_of(const Run* run) noexcept;
  void link(Run* run) noexcept;
  void unlink(Run* run) noexcept;
  void account_taken(std::uint64_t granted, std::uint64_t requested) noexcept;
  template <class Function>
  void for_each_run(Function&& function) const noexcept {
    for (std::uint32_t g = 0; g < segment_->geometry().granules; ++g) {
      if (Run* const run = run_of_[g]; run != nullptr && run->first == g) function(run);
    }
    for (Run* const run : borrowed_) function(run);
  }
  std::uint32_t granules_for(std::uint64_t size) const noexcept {
    return static_cast<std::uint32_t>(base::divide_up(size, std::uint64_t{1} << shift_));
  }

  static constexpr std::uint32_t k_large_lists = 512;  // up to 255 granules one list each, above by hash

  Segment* segment_ = nullptr;
  Granules* claimed_ = nullptr;
  Tenancy tenancy_;
  unsigned shift_ = 0;
  std::size_t small_limit_ = 0;
  HeapCounts counts_;
  Heap* older_ = nullptr;
  EndWatcher ended_;
  Run** run_of_ = nullptr;
  Run* slabs_[k_classes] = {};        // with a free block, the last used first
  Run* large_[k_large_lists] = {};    // idle
  BorrowedBlocks borrowed_;
};

}  // namespace rtpool::shared
