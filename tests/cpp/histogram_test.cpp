// Promises of realtime/histogram.hpp: fixed buckets from 1 ns to minutes, at most 1 % from the truth.
#include "realtime/histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

namespace rtpool::realtime {
namespace {

TEST(Histogram, BucketsTileTheWholeRange) {
  EXPECT_EQ(Histogram::lower_bound(0), 0);
  for (std::size_t i = 0; i + 1 < Histogram::k_buckets; ++i) {
    const auto low = Histogram::lower_bound(i);
    const auto next = Histogram::lower_bound(i + 1);
    ASSERT_LT(low, next);
    ASSERT_EQ(Histogram::bucket_of(low), i);
    ASSERT_EQ(Histogram::bucket_of(next - 1), i);
  }
  EXPECT_GT(Histogram::lower_bound(Histogram::k_buckets - 1), os::Nanoseconds{30} * 60 * 1'000'000'000);
}

TEST(Histogram, EveryValueIsReportedWithinOnePercent) {
  for (os::Nanoseconds v = 1; v < os::Nanoseconds{20} * 60 * 1'000'000'000; v += 1 + v / 37) {
    auto h = std::make_unique<Histogram>();
    // Neighbours on both sides keep the clamp to min and max from making the answer exact.
    h->add(1);
    h->add(v);
    h->add(INT64_MAX / 2);
    const double reported = static_cast<double>(h->percentile(50));
    ASSERT_NEAR(reported, static_cast<double>(v), 0.004 * static_cast<double>(v)) << v;
  }
}

TEST(Histogram, PercentilesAgreeWithSortedValues) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> shape(12, 1.5);
  std::vector<os::Nanoseconds> values;
  auto h = std::make_unique<Histogram>();
  for (int i = 0; i < 50'000; ++i) {
    values.push_back(static_cast<os::Nanoseconds>(shape(random)));
    h->add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.1, 1.0, 50.0, 90.0, 99.0, 99.9, 99.99}) {
    const auto rank = static_cast<std::size_t>(std::ceil(percent / 100 * static_cast<double>(values.size())));
    const auto exact = static_cast<double>(values[rank - 1]);
    EXPECT_NEAR(static_cast<double>(h->percentile(percent)), exact, 0.01 * exact) << percent;
  }
  EXPECT_EQ(h->percentile(0), values.front());
  EXPECT_EQ(h->percentile(100), values.back());
  EXPECT_EQ(h->min(), values.front());
  EXPECT_EQ(h->max(), values.back());
}

TEST(Histogram, EmptyNegativeAndHugeValuesAreSafe) {
  auto h = std::make_unique<Histogram>();
  EXPECT_EQ(h->percentile(99), 0);
  EXPECT_EQ(h->min(), 0);
  EXPECT_EQ(h->mean(), 0.0);
  h->add(-5);
  EXPECT_EQ(h->max(), 0);
  h->add(INT64_MAX);
  EXPECT_EQ(h->max(), INT64_MAX);
  EXPECT_EQ(h->percentile(99.9), INT64_MAX);
  EXPECT_EQ(h->count_in(Histogram::k_buckets - 1), 1U);
  EXPECT_EQ(h->percentile(std::nan("")), 0);
  h->clear();
  EXPECT_EQ(h->count(), 0U);
}

}  // namespace
}  // namespace rtpool::realtime
