#include "pool/stranger_frees.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace rtpool::pool {
namespace {

TEST(StrangerFreesTest, SumsAreExactWhateverTheSizesAndThreads) {
  StrangerFrees frees;
  constexpr unsigned k_threads = 3;
  constexpr unsigned k_turns = 20'000;
  // Small blocks fill the word by their number, large ones by their bytes, and the largest go past it.
  const struct {
    std::size_t granted, requested;
  } blocks[] = {{64, 1}, {4032, 4032}, {8192, 4097}, {std::size_t{200} << 20, (std::size_t{200} << 20) - 4095}, {std::size_t{1} << 40, (std::size_t{1} << 40) - 7}};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < k_threads; ++t) {
    threads.emplace_back([&] {
      for (unsigned i = 0; i < k_turns; ++i) {
        const auto& block = blocks[i % 97 == 0 ? 3 + i / 97 % 2 : i % 3];
        frees.add(block.granted, block.requested);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  StrangerFrees::Sums expected;
  for (unsigned i = 0; i < k_turns; ++i) {
    const auto& block = blocks[i % 97 == 0 ? 3 + i / 97 % 2 : i % 3];
    expected.bytes += k_threads * block.granted;
    expected.requested += k_threads * block.requested;
    expected.count += k_threads;
  }
  const StrangerFrees::Sums sums = frees.sums();
  EXPECT_EQ(sums.count, expected.count);
  EXPECT_EQ(sums.bytes, expected.bytes);
  EXPECT_EQ(sums.requested, expected.requested);
}

}  // namespace
}  // namespace rtpool::pool
