// Where chunks wait: free ones for a thread that needs one, full ones for the writer.
//
// Both lists are stacks of numbers; the free one carries a tag that grows with every change, so that a pop that was
// overtaken is noticed. Memory comes in slabs, resident before they are used.
//
// Thread rule: any thread. Cost: `take` and `give` are O(1) without lock or kernel; `add_slab` enters the kernel. Failure:
// nullptr from `take` when nothing is free, an errno value from `add_slab`.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/memory.hpp"
#include "os/priority_lock.hpp"
#include "trace/chunk.hpp"

namespace rtpool::trace {

class ChunkStore {
 public:
  static constexpr std::uint32_t k_slab_chunks = 16;
  static constexpr std::uint32_t k_most_slabs = 1024;

  int add_slab(os::Memory& memory) noexcept;
  // No chunk may be in use.
  void release(os::Memory& memory) noexcept;

  Chunk* take() noexcept;
  void give(Chunk& chunk) noexcept;
  void push_full(Chunk& chunk) noexcept;
  // All that are full, first one first, linked by `next`; nullptr: none.
  Chunk* take_full() noexcept;
  Chunk* next(const Chunk& chunk) noexcept;
  void link(Chunk& before, const Chunk& chunk) noexcept { before.next.store(number_of(chunk), std::memory_order_relaxed); }
  std::uint32_t free_count() const noexcept { return free_count_.load(std::memory_order_relaxed); }
  // In a forked child: the chunks may be in anybody's hands, so none is used again.
  void forget() noexcept;
  os::PriorityLock& lock() noexcept { return lock_; }

 private:
  struct Slab {
    Chunk chunks[k_slab_chunks];
  };
  static constexpr std::uint64_t k_number_mask = 0xFFFFFFFF;
  Chunk& chunk_at(std::uint32_t number) noexcept {  // from 1
    return slabs_[(number - 1) / k_slab_chunks].load(std::memory_order_relaxed)->chunks[(number - 1) % k_slab_chunks];
  }
  std::uint32_t number_of(const Chunk& chunk) const noexcept;

  std::atomic<std::uint32_t> free_count_{0};
  std::atomic<std::uint64_t> free_{0};  // tag in the upper half, number of the first in the lower
  alignas(64) std::atomic<std::uint32_t> full_{0};
  std::atomic<std::uint32_t> slab_count_{0};
  os::PriorityLock lock_;  // of add_slab
  std::atomic<Slab*> slabs_[k_most_slabs]{};
};

}  // namespace rtpool::trace
