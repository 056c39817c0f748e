// Frees by threads that have no heap in the pool: three sums, for one atomic operation a free.
//
// The sums of the last frees share a word: blocks in the upper 12 bits, granted bytes in units in the 24 below, slack in the lower
// 28. Who finds it half full moves it to the totals. A block of 256 MiB or more goes there by itself.
//
// Thread rule: any thread, any time. `sums` may miss frees that another thread is just moving, and never counts one twice: a pool
// is then thought to have live blocks for a moment longer. Cost: a compare-and-swap a free.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "blocks/size_class.hpp"

namespace rtpool::pool {

class StrangerFrees {
 public:
  struct Sums {
    std::uint64_t bytes = 0;
    std::uint64_t count = 0;
    std::uint64_t requested = 0;
  };

  // `granted`: a multiple of a unit, less than a page more than `requested`. Now and then true, the likelier for a thread the more
  // it frees: once in 2,048 blocks, or 512 MiB.
  bool add(std::size_t granted, std::size_t requested) noexcept {
    const std::uint64_t units = granted / blocks::k_unit;
    const Sums one{granted, 1, requested};
    if (units >= k_half_units / 2) {
      add_to_totals(one);
      return false;
    }
    const std::uint64_t word = k_one_block | units << k_slack_bits | (granted - requested);
    std::uint64_t old = recent_.load(std::memory_order_relaxed);
    for (;;) {
      const bool full = (old & k_half_full) != 0;
      if (!recent_.compare_exchange_weak(old, full ? word : old + word, std::memory_order_acq_rel, std::memory_order_relaxed)) continue;
      if (full) add_to_totals(unpacked(old));
      return full;
    }
  }

  Sums sums() const noexcept {
    // The totals first: what leaves `recent_` meanwhile is missed, not counted twice.
    const Sums totals{bytes_.load(std::memory_order_acquire), count_.load(std::memory_order_acquire),
                      requested_.load(std::memory_order_acquire)};
    const Sums recent = unpacked(recent_.load(std::memory_order_acquire));
    return {totals.bytes + recent.bytes, totals.count + recent.count, totals.requested + recent.requested};
  }

 private:
  static constexpr unsigned k_slack_bits = 28;
  static constexpr unsigned k_unit_bits = 24;
  static constexpr std::uint64_t k_half_units = std::uint64_t{1} << (k_unit_bits - 1);
  static constexpr std::uint64_t k_one_block = std::uint64_t{1} << (k_slack_bits + k_unit_bits);
  static constexpr std::uint64_t k_half_full = std::uint64_t{1} << 63 | k_half_units << k_slack_bits;

  static Sums unpacked(std::uint64_t word) noexcept {
    const std::uint64_t bytes = (word / (std::uint64_t{1} << k_slack_bits) & (2 * k_half_units - 1)) * blocks::k_unit;
    return {bytes, word / k_one_block, bytes - (word & ((std::uint64_t{1} << k_slack_bits) - 1))};
  }
  void add_to_totals(const Sums& sums) noexcept {
    requested_.fetch_add(sums.requested, std::memory_order_release);
    count_.fetch_add(sums.count, std::memory_order_release);
    bytes_.fetch_add(sums.bytes, std::memory_order_release);
  }

  std::atomic<std::uint64_t> recent_{0};
  std::atomic<std::uint64_t> bytes_{0};
  std::atomic<std::uint64_t> count_{0};
  std::atomic<std::uint64_t> requested_{0};
};

}  // namespace rtpool::pool
