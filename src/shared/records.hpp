// Shared blocks: who holds them, which handles of them are under way, and when they are free again.
//
// A block is held by one bit for each process (how often is that process's own business) and by tickets, one for each
// handle under way to another process. Setting and clearing are idempotent, so recovery may repeat what a dead process
// did or did not do. Bits and tickets are several words; that they are all clear is found out like this:
//
//   close:   alive -> closing, look at every word, then closing -> released if all were clear, else -> alive
//   acquire: set the bit, then look at the state: alive -> held. closing -> help to finish it, look again.
//
// An acquirer is entitled by a ticket (or a bit of its process), which it gives up only after it saw `alive`; so either
// the closer sees that, or the acquirer sees the closing. Anyone may finish anyone's closing: the version in the state
// word goes up at each, so a late decision of an earlier one fails. Nobody waits for anybody.
//
// A closed block waits for its owner. Until that one takes it out, others may borrow it: both do so by a compare-and-swap on
// the state, so one of them has it. The owner's own notes name an earlier generation then; that the record still is its
// block's it sees by owner and offset, which only a new block changes.
//
// Thread rule: any process; within a process one thread at a time. Cost: a few atomic operations; `create` searches for
// a free record. Failure: errno values. ESTALE: the block is not there any more. EBADMSG: the record is damaged.
#pragma once

#include "shared/processes.hpp"
#include "shared/segment.hpp"

namespace rtpool::shared {

// A shared block as one process names it to another.
struct BlockRef {
  std::uint32_t record = k_none;
  std::uint32_t generation = 0;

  constexpr bool operator==(const BlockRef&) const = default;
  constexpr explicit operator bool() const noexcept { return record != k_none; }
};

struct BlockRange {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

class Records {
 public:
  Records(Segment& segment, Processes& processes) noexcept : segment_(&segment), processes_(&processes) {}

  // A record over the caller's block, with the caller's bit set: a free one, else one whose block is closed and waits for
  // its owner, who finds out (`over`). ENOSPC: all records are in use.
  int create(Tenancy owner, const BlockRange& range, BlockRef* out) noexcept;
  // Sets the caller's bit. On failure the bit is clear again unless `held_before`.
  int acquire(Tenancy holder, const BlockRef& ref, bool held_before, BlockRange* range) noexcept;
  // Clears the caller's bit and closes the block when that was the last. True: closed, and the caller is the owner, so
  // it takes the block back now.
  bool drop(Tenancy holder, const BlockRef& ref) noexcept;

  // A handle goes under way. The caller holds the block.
  int add_ticket(Tenancy sender, const BlockRef& ref) noexcept;
  // It has arrived. The caller holds the block. Nothing happens if there is no such ticket any more.
  void take_ticket(Tenancy sender, const BlockRef& ref) noexcept;

  // The caller's closed blocks: calls `take(context, ref)` for each that this call took out. From the list the others
  // keep (quick, may miss some), and by looking at every record.
  void drain_returned(Tenancy owner, void (*take)(void*, BlockRef), void* context) noexcept;
  void scan_returned(Tenancy owner, void (*take)(void*, BlockRef), void* context) noexcept;

  // Whether nobody uses the caller's own block at `offset` any more, which `ref` names; if it waits for the caller, takes it
  // out. Where others borrow it `ref` becomes what names it now.
  bool over(Tenancy owner, std::uint64_t offset, BlockRef* ref) noexcept;

  // Under the recovery lock: a block that waits for another process to take it back, of `least` to `most` bytes, the smallest
  // of those there are. The caller holds it from then on, under a generation of its own: no handle of the past leads to it.
  // Its owner stays who it is, and gets it when the last holder drops it.
  bool borrow(Tenancy holder, std::uint64_t least, std::uint64_t most, BlockRef* ref, BlockRange* range) noexcept;

  // Recovery and trimming. `try_close` also completes a closing that somebody left.
  void try_close(std::uint32_t record) noexcept { close_for(record, Tenancy{}); }
  // Drops tickets older than `age` seconds, of dead senders only or of all. Returns how many handles that were.
  std::uint64_t drop_tickets(std::uint32_t age, bool of_dead_only) noexcept;

  std::uint32_t count(RecordState state) const noexcept;
  // What `sums` tells of all records.
  struct Sums {
    std::uint64_t alive = 0;      // blocks that are shared
    std::uint64_t tickets = 0;    // handles of these under way
    std::uint64_t left = 0;       // of these blocks, those whose makers are gone or have let go of them
    std::uint64_t left_bytes = 0;
  };
  // Looks at the records that were ever used, which come before all others: a search for a free one passes none by.
  Sums sums() const noexcept;
  bool nobody_holds(std::uint32_t record) const noexcept { return unheld(segment_->record(record)); }
  // Whether the process whose memory it is holds the block itself, so that its counts have it.
  bool held_by_owner(std::uint32_t record) const noexcept;
  // What names the record's block now, whoever holds it.
  BlockRef current(std::uint32_t record) const noexcept {
    return {record, StateWord::generation(segment_->record(record).state.load())};
  }
  Tenancy owner(std::uint32_t record) const noexcept { return Tenancy::of(segment_->record(record).owner.load()); }
  // SH-3 for one record.
  bool range_of(std::uint32_t record, BlockRange* out) const noexcept;

 private:
  friend class Recovery;
  bool unheld(const Record& record) const noexcept;
  void close_for(std::uint32_t index, Tenancy owner_in_wait) noexcept;
  void finish_closing(std::uint32_t index, std::uint64_t closing, Tenancy owner_in_wait) noexcept;
  void hand_back(std::uint32_t index, Tenancy owner) noexcept;
  bool can_be_borrowed(std::uint32_t index, std::uint64_t state, Tenancy holder, BlockRange* range) const noexcept;
  bool begin_anew(std::uint32_t index, std::uint64_t state, Tenancy holder) noexcept;
  bool create_over(Tenancy owner, const BlockRange& range, RecordState unused, BlockRef* out) noexcept;
  bool take_released(Tenancy owner, std::uint32_t index, BlockRef* out) noexcept;

  Segment* segment_;
  Processes* processes_;
  std::uint32_t next_free_ = 0;  // where the last search ended
};

}  // namespace rtpool::shared
