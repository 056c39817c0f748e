// Work for the idle time between two iterations: clearing free blocks that the plan says will be asked for as zeroed.
//
// It does not run past the deadline that it is given: a block is cleared only if clearing it, at the rate seen lately,
// leaves a margin. Thread rule: one thread. Cost: bounded by the idle time; no allocation after `add`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::realtime {

class IdleWork {
 public:
  static constexpr std::size_t k_sizes = 64;
  // What is kept free before a deadline for the wake-up itself.
  static constexpr os::Nanoseconds k_margin = 50'000;

  // Clears at most `max_bytes` of `blocks` idle blocks of `size` granted bytes; returns the bytes cleared.
  using Clear = std::size_t (*)(void* context, std::size_t size, std::size_t blocks, std::size_t max_bytes) noexcept;

  explicit IdleWork(os::Clock& clock) noexcept : clock_(clock) {}

  void set_clear(Clear clear, void* context) noexcept {
    clear_ = clear;
    context_ = context;
  }
  // `blocks` blocks of `size` bytes are wanted zero before every iteration. False when all k_sizes places are taken.
  bool add(std::size_t size, std::size_t blocks) noexcept;
  void forget() noexcept { count_ = 0; }
  // Works until everything is zero or `deadline` is near; begins no block after `pause`, so that a caller who has to look
  // at something else now and then can. Returns the bytes cleared.
  std::size_t run(os::Nanoseconds deadline, os::Nanoseconds pause = INT64_MAX) noexcept;

  bool empty() const noexcept { return count_ == 0 || clear_ == nullptr; }
  std::uint64_t bytes_cleared() const noexcept { return bytes_cleared_; }

 private:
  static constexpr std::uint64_t k_patience = 256;

  void expect_less() noexcept;

  struct Entry {
    std::size_t size = 0;
    std::size_t blocks = 0;
  };

  os::Clock& clock_;
  Clear clear_ = nullptr;
  void* context_ = nullptr;
  std::array<Entry, k_sizes> entries_{};
  std::size_t count_ = 0;
  // Nanoseconds a byte: what the next block is expected to cost, and the least it ever did. The start values are those
  // of slow memory (1 and 4 GB/s).
  double cost_ = 1.0;
  double least_cost_ = 0.25;
  bool measured_ = false;
  std::uint64_t refused_ = 0;  // times in a row that not even the least cost fitted
  std::uint64_t patience_ = k_patience;
  std::uint64_t bytes_cleared_ = 0;
};

}  // namespace rtpool::realtime
