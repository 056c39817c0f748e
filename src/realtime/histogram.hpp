// A log-linear histogram of spans of time in fixed buffers: it costs a few nanoseconds a value and the same memory
// however long it runs.
//
// Values below 128 ns have a bucket each; from there every power of two is split into 128 equal buckets, up to 2^41 ns
// (36 minutes). A value is reported as its bucket's middle, clamped to the smallest and largest value seen: at most
// 1/256 (0.4 %) from the truth. Larger values are counted in the last bucket; `max` is exact all the same.
//
// Thread rule: one thread writes; others may read only while it does not. Cost of `add`: O(1), no allocation, no kernel.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bits.hpp"
#include "os/clock.hpp"

namespace rtpool::realtime {

class Histogram {
 public:
  static constexpr unsigned k_sub_bits = 7;
  static constexpr unsigned k_highest_bit = 40;
  static constexpr std::size_t k_sub_buckets = std::size_t{1} << k_sub_bits;
  static constexpr std::size_t k_buckets = (k_highest_bit - k_sub_bits + 2) * k_sub_buckets;

  // Negative values count as 0.
  void add(os::Nanoseconds value) noexcept {
    if (value < 0) value = 0;
    ++counts_[bucket_of(value)];
    ++count_;
    sum_ += static_cast<double>(value);
    if (value < min_) min_ = value;
    if (value > max_) max_ = value;
  }
  void clear() noexcept { *this = Histogram{}; }

  std::uint64_t count() const noexcept { return count_; }
  os::Nanoseconds min() const noexcept { return count_ == 0 ? 0 : min_; }
  os::Nanoseconds max() const noexcept { return max_; }
  double mean() const noexcept { return count_ == 0 ? 0.0 : sum_ / static_cast<double>(count_); }
  // The smallest value that at least `percent` of all values do not exceed; 0 gives `min`, 100 gives `max`. `percent`
  // outside 0 to 100 is clamped. O(buckets).
  os::Nanoseconds percentile(double percent) const noexcept;

  // Bucket `i` counts values in [lower_bound(i), lower_bound(i + 1)); the last one has no upper bound.
  std::uint64_t count_in(std::size_t i) const noexcept { return counts_[i]; }
  static constexpr os::Nanoseconds lower_bound(std::size_t i) noexcept {
    if (i < 2 * k_sub_buckets) return static_cast<os::Nanoseconds>(i);
    const std::size_t shift = i / k_sub_buckets - 1;
    return static_cast<os::Nanoseconds>((k_sub_buckets + i % k_sub_buckets) << shift);
  }
  static constexpr std::size_t bucket_of(os::Nanoseconds value) noexcept {
    const auto v = static_cast<std::uint64_t>(value);
    if (v < k_sub_buckets) return v;
    const unsigned top = base::log2_floor(v);
    if (RTPOOL_UNLIKELY(top > k_highest_bit)) return k_buckets - 1;
    const unsigned shift = top - k_sub_bits;
    return (shift + 1) * k_sub_buckets + ((v >> shift) & (k_sub_buckets - 1));
  }

 private:
  std::array<std::uint64_t, k_buckets> counts_{};
  std::uint64_t count_ = 0;
  double sum_ = 0;
  os::Nanoseconds min_ = INT64_MAX;
  os::Nanoseconds max_ = 0;
};

}  // namespace rtpool::realtime
