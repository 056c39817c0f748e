// Threads at work at once, each on a processor of its own: with blocks of their own, or in pairs of which one allocates and the
// other releases.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "allocator.hpp"
#include "measure.hpp"

namespace rtpool::bench {

inline void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// A ring for one writer and one reader. Blocks nowhere but on itself.
class Ring {
 public:
  static constexpr std::size_t k_slots = 1024;
  void push(void* block) noexcept {
    const std::size_t at = tail_.load(std::memory_order_relaxed);
    while (at - head_.load(std::memory_order_acquire) == k_slots) {
      relax();
    }
    slots_[at % k_slots] = block;
    tail_.store(at + 1, std::memory_order_release);
  }
  void* pop() noexcept {
    const std::size_t at = head_.load(std::memory_order_relaxed);
    while (tail_.load(std::memory_order_acquire) == at) {
      relax();
    }
    void* const block = slots_[at % k_slots];
    head_.store(at + 1, std::memory_order_release);
    return block;
  }

 private:
  alignas(64) std::atomic<std::size_t> head_{0};
  alignas(64) std::atomic<std::size_t> tail_{0};
  alignas(64) void* slots_[k_slots] = {};
};

// What a thread asks for: 2^low bytes where both are the same, else sizes of its own from 2^low to below 2^high.
struct Sizes {
  const char* label;
  unsigned low, high;
  std::size_t draw(Random& random) const noexcept { return low == high ? std::size_t{1} << low : random.size(low, high); }
};

// Wall time a pair of `threads` threads that do `pairs` pairs each, from the moment all of them have warmed up until the last one is
// done. Of drawn sizes 16 blocks are alive.
double time_threads(const Allocator& a, unsigned threads, Sizes sizes, std::size_t pairs);

// Wall time a block of `crews` pairs of threads that hand `blocks` blocks over each, an eighth of them before; before that, as many
// blocks as can be under way are alive once, so that no memory is taken from the kernel within the time.
double time_handoff(const Allocator& a, unsigned crews, Sizes sizes, std::size_t blocks);

}  // namespace rtpool::bench
