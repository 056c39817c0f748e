#include "realtime/idle_work.hpp"

#include <algorithm>

namespace rtpool::realtime {

bool IdleWork::add(std::size_t size, std::size_t blocks) noexcept {
  if (count_ == k_sizes) return false;
  if (size != 0 && blocks != 0) entries_[count_++] = {size, blocks};
  return true;
}

// A clearing that was interrupted must not end the work for good: the expectation sinks to the best one seen. Nor must a
// best one that was itself interrupted; but believing less than what was ever seen is tried more and more rarely.
void IdleWork::expect_less() noexcept {
  if (cost_ > least_cost_) {
    cost_ = std::max(least_cost_, cost_ - cost_ / 16);
  } else if (measured_ && ++refused_ >= patience_) {
    refused_ = 0;
    patience_ *= 4;
    least_cost_ /= 2;
  }
}

std::size_t IdleWork::run(os::Nanoseconds deadline, os::Nanoseconds pause) noexcept {
  if (empty()) return 0;
  std::size_t total = 0;
  bool goes_on = true;
  for (std::size_t i = 0; i < count_ && goes_on; ++i) {
    const Entry& entry = entries_[i];
    // One block a call, so that the clock is looked at between them.
    for (std::size_t block = 0; block < entry.blocks; ++block) {
      const os::Nanoseconds before = clock_.now();
      goes_on = before < pause;
      if (!goes_on) break;
      const auto expected = static_cast<os::Nanoseconds>(cost_ * static_cast<double>(entry.size));
      if (deadline - before < expected + k_margin) {
        expect_less();
        break;
      }
      const std::size_t cleared = clear_(context_, entry.size, entry.blocks, entry.size);
      if (cleared == 0) break;
      total += cleared;
      const double cost = static_cast<double>(clock_.now() - before) / static_cast<double>(cleared);
      // Slower at once, faster by and by.
      cost_ = !measured_ || cost > cost_ ? cost : cost_ + (cost - cost_) / 8;
      least_cost_ = measured_ ? std::min(least_cost_, cost) : cost;
      measured_ = true;
      refused_ = 0;
      patience_ = k_patience;
    }
  }
  bytes_cleared_ += total;
  return total;
}

}  // namespace rtpool::realtime
