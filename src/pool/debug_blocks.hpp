// What the debug layer knows of each block, out of band: no overrun of a block reaches it, as it lies in libc's heap.
//
//   DB-1  the bytes of a live block's red zones are as they were written
//   DB-2  so is every byte of a block in quarantine
//   DB-3  a record is in the table if and only if its block is live, being freed, or in quarantine
//
// Thread rule: under the debug layer's lock, unless said otherwise. Cost: O(1) expected; `near` and `for_each` O(records).
// Failure: `add` returns nullptr when libc has no memory for the record.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"
#include "pool/call_sites.hpp"

namespace rtpool::pool {

enum class DebugState : std::uint8_t {
  unused,
  live,
  freeing,      // a thread is at work on it, outside of the lock; freed to everybody else
  quarantined,
};

struct DebugBlock {
  char* block = nullptr;   // what the caller has
  char* raw = nullptr;     // what the ladder or the fallback gave: [raw, block) is the red zone before
  std::size_t size = 0;    // asked for
  std::size_t total = 0;   // from raw: [block + size, raw + total) is the red zone after, or that and the guard page
  std::uint64_t number = 0;
  os::Nanoseconds made = 0;
  SiteNumber made_at = k_no_site;
  SiteNumber freed_at = k_no_site;
  DebugState state = DebugState::unused;
  bool fallback = false;   // its memory is the fallback's
  bool guarded = false;    // its guard page is inaccessible
  bool closed = false;     // so is every page of the block that is its alone (strict, in quarantine)
  bool reported = false;   // damage is told once
  DebugBlock* next = nullptr;  // in quarantine, or unused

  char* end() const noexcept { return block + size; }
  char* raw_end() const noexcept { return raw + total; }
  bool freed() const noexcept { return state == DebugState::freeing || state == DebugState::quarantined; }
};

class DebugBlocks {
 public:
  DebugBlocks() = default;
  DebugBlocks(const DebugBlocks&) = delete;
  DebugBlocks& operator=(const DebugBlocks&) = delete;
  ~DebugBlocks();

  // A record for a block that starts at `block`, in the table and numbered.
  DebugBlock* add(char* block) noexcept;
  void remove(DebugBlock& record) noexcept;
  DebugBlock* find(const void* block) noexcept;
  // The record whose memory, red zones included, holds the address; live ones first.
  DebugBlock* near(const void* address) noexcept;
  template <class Function>
  void for_each(Function&& function) noexcept {
    for (Chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next) {
      for (DebugBlock& record : chunk->records) {
        if (record.state != DebugState::unused) function(record);
      }
    }
  }

 private:
  struct Chunk {
    Chunk* next = nullptr;
    DebugBlock records[128];
  };
  std::size_t place_of(const void* block) const noexcept;
  bool make_room() noexcept;

  Chunk* chunks_ = nullptr;
  DebugBlock* unused_ = nullptr;
  DebugBlock** places_ = nullptr;  // open addressing, at most half full
  std::size_t place_count_ = 0;
  std::size_t used_ = 0;
  std::uint64_t made_ = 0;
};

}  // namespace rtpool::pool
