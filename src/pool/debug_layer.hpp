// The debug layer of a pool: finds what a program does wrong with its blocks, and says where they come from.
//
//   up to 4032 bytes    [ 64 B red zone | block | red zone up to the next 64 B, and 64 B ]
//   more                [ red zone page | block | red zone up to the page's end | guard page ]
//
// A guard page is one of the kernel's. Where those are larger than ours, the red zone before the block is as long as it takes
// for the guard page to follow the block's last page, and what is left after the guard page is not used. A freed block is closed
// from the first kernel page that begins in it (strict); what lies before is looked at.
//
// Alignment is that of an ordinary pool. A fresh block that need not be zero is filled with 0xCD, red zones with 0xFD, a
// freed block with 0xDD (0 with zero_on_free): the bytes CPython's own debug hooks use. Red zones are looked at when the block
// is freed and by `verify`; freed blocks wait in a quarantine, and whether they were written to is looked at when they leave
// it and by `verify`. A touch of a guard page is a SIGSEGV at the instruction that does it, explained on standard error first.
// With `strict` the memory of freed large blocks is inaccessible as well while in quarantine, and every report aborts.
//
// The quarantine holds at most k_quarantine_blocks and the lesser of k_quarantine_bytes and a quarter of the pool's limit; the
// block freed last stays in any case. It counts as free memory: it is emptied by `trim` and before a request is refused.
//
// The layer stands between Pool's slow paths and the ladder. A debug pool's heap key is no pool's id, so that no hit path
// ever serves it and none of this costs ordinary pools anything.
//
// Blocks of the fallback get red zones, but no guard page and no quarantine: their memory is not the pool's.
// With `watch`, where a sanitizer watches (base/watch.hpp), red zones and freed blocks are closed to everybody.
//
// Thread rule: any thread. The lock is held for O(1) work except in `verify`, `outstanding` and misuse reports, and nothing of
// the pool is called under it. Cost: O(bytes of the block), and two kernel calls in the life of a block with a guard page, also
// while the pool is frozen; `kernel_calls` counts them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/gate.hpp"
#include "os/priority_lock.hpp"
#include "pool/call_sites.hpp"
#include "pool/debug_blocks.hpp"
#include "pool/pool.hpp"

namespace rtpool::pool {

struct PoolImpl;

inline constexpr unsigned char k_fresh_byte = 0xCD;
inline constexpr unsigned char k_freed_byte = 0xDD;
inline constexpr unsigned char k_red_byte = 0xFD;
inline constexpr std::size_t k_quarantine_bytes = std::size_t{64} << 20;
inline constexpr std::size_t k_quarantine_blocks = 16384;

class DebugLayer {
 public:
  explicit DebugLayer(PoolImpl& pool) noexcept;
  DebugLayer(const DebugLayer&) = delete;
  DebugLayer& operator=(const DebugLayer&) = delete;

  // As those of Pool.
  void* allocate(std::size_t size, bool zeroed) noexcept;
  void release(void* block) noexcept;
  // Reports a live block whose size is not the claimed one.
  void compare_size(const void* block, std::size_t claimed) noexcept;
  void* resize(void* block, std::size_t size) noexcept;
  std::size_t usable_size(const void* block) noexcept;
  bool is_fallback_block(const void* block) noexcept;
  std::size_t live_count() const noexcept { return live_count_.load(std::memory_order_relaxed); }
  std::size_t outstanding(LiveBlock* blocks, std::size_t capacity) noexcept;
  // Puts in place what the heaps cannot know: what of their live blocks is alive for the caller.
  void correct(Stats* stats) noexcept;
  void reset_peak() noexcept;

  // Looks at all red zones and all of the quarantine (DB-1, DB-2). What is found for the first time is reported as well.
  CheckResult verify() noexcept;
  // Waits for other threads that are about it.
  void empty_quarantine() noexcept;
  // In a signal handler: what the touched address has to do with this pool.
  void explain_fault(const void* address) noexcept;

  os::PriorityLock& lock() noexcept { return lock_; }
  // A fork waits for whoever frees a block, before it stops anything else: one freed by half would be lost to the child.
  os::Gate& gate() noexcept { return gate_; }
  static void set_call_site(CallSite call_site) noexcept;

 private:
  struct Place {  // the text of the calling thread's place, taken before the lock
    char text[CallSites::k_longest];
    std::size_t length = 0;
  };
  struct Shape {
    std::size_t front = 0;  // at least, where there is a guard page
    std::size_t total = 0;
    bool guarded = false;
  };
  struct Damage {
    const char* first = nullptr;  // nullptr: none
    const char* last = nullptr;
  };
  enum class Found : std::uint8_t { while_freed, while_recycled, by_check };

  static void find_place(Place* place) noexcept;
  Shape shape_of(std::size_t size) const noexcept;
  // The guard page of a large block whose memory ends at `raw_end`.
  char* guard_page(char* raw_end) const noexcept;
  // The first page of the kernel that begins in the block.
  char* closed_begin(const DebugBlock& record) const noexcept;
  // What lies before it can be read.
  char* readable_end(const DebugBlock& record) const noexcept;
  static Damage look(const char* begin, const char* end, unsigned char expected) noexcept;

  void* hand_out(char* raw, const Shape& shape, std::size_t size, bool zero, bool wants_zero, bool fallback,
                 const Place& place) noexcept;
  bool guard(char* page) noexcept;
  // Lifts guard and closure; false where the kernel refuses: the memory stays out of use then.
  bool open(DebugBlock& record) noexcept;
  void retire(DebugBlock& record) noexcept;
  void leave_quarantine(DebugBlock& record) noexcept;
  DebugBlock* take_oldest(bool all) noexcept;
  void free_block(void* block, const char* call, const Place& place) noexcept;
  // Takes a block that is to be freed out of the live ones; nullptr after a report.
  DebugBlock* begin_free(void* block, const char* call, const Place& place) noexcept;
  void finish_free(DebugBlock& record) noexcept;
  bool check_block(DebugBlock& record, Found found, CheckResult* result) noexcept;

  // debug_report.cpp
  void report_damage(const DebugBlock& record, const Damage& damage, Found found) noexcept;
  void report_misuse(const void* pointer, const DebugBlock* record, const char* call, const Place& place) noexcept;
  void report_size(const DebugBlock& record, std::size_t claimed, const Place& place) noexcept;
  void name_pool(char* text, std::size_t capacity) const noexcept;
  void end_if_strict() noexcept;

  PoolImpl& pool_;
  const bool watched_;
  const std::size_t page_;  // of the kernel
  const unsigned char freed_byte_;
  const std::size_t quarantine_bytes_;
  os::Gate gate_;  // passed by what is being freed
  os::PriorityLock lock_;
  CallSites sites_;
  DebugBlocks blocks_;
  DebugBlock* oldest_ = nullptr;
  DebugBlock* newest_ = nullptr;
  std::size_t waiting_count_ = 0;
  std::size_t waiting_bytes_ = 0;
  std::atomic<std::uint64_t> quarantined_{0};  // blocks, ever
  std::atomic<std::uint32_t> retiring_{0};     // blocks that have left the quarantine and are not yet free
  std::atomic<bool> guards_refused_{false};
  // Of the caller's blocks, those of the fallback only in live_count_.
  std::atomic<std::size_t> live_count_{0};
  std::uint64_t current_count_ = 0;
  std::uint64_t current_bytes_ = 0;
  std::uint64_t requested_bytes_ = 0;
  std::uint64_t peak_count_ = 0;
  std::uint64_t peak_bytes_ = 0;
};

}  // namespace rtpool::pool
