#include "realtime/histogram.hpp"

#include <algorithm>
#include <cmath>

namespace rtpool::realtime {

os::Nanoseconds Histogram::percentile(double percent) const noexcept {
  if (count_ == 0) return 0;
  if (!(percent > 0)) return min_;
  if (percent >= 100) return max_;
  const double exact_rank = percent / 100.0 * static_cast<double>(count_);
  const auto rank = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::ceil(exact_rank)), 1, count_);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < k_buckets; ++i) {
    seen += counts_[i];
    if (seen < rank) continue;
    if (i + 1 == k_buckets) return max_;
    const os::Nanoseconds low = lower_bound(i);
    return std::clamp(low + (lower_bound(i + 1) - low) / 2, min_, max_);
  }
  return max_;
}

}  // namespace rtpool::realtime
