// How many instructions a shared pool's blocks take.
#include <gtest/gtest.h>

#include <string>

#include "callgrind.hpp"
#include "recording.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

void act(const std::string& work, const test::Turns& turns) {
  if (work == "stats") {
    Options options;
    options.size = 1 << 30;
    options.prefault = false;
    SharedPool* const large = SharedPool::create(options, os::shared_memory()).pool;
    for (int i = 0; i < 100; ++i) (void)large->allocate(100'000);
    turns.take([&] { (void)large->stats(); });
    return;
  }
  SharedPool* const pool = make_pool(16 << 20);
  const std::size_t size = std::strtoul(work.c_str(), nullptr, 10);
  turns.take([&] { pool->release(pool->allocate(size)); });
}

using SharedInstructions = test::CallgrindTest;

TEST_F(SharedInstructions, OfAPairThatIsNotRecorded) {
  const test::Callgrind callgrind("shared pool",
                                  {"rtpool::shared::SharedPool::allocate(unsigned long)", "rtpool::shared::SharedPool::release(void*)"});
  struct Bound {
    const char* size;
    double instructions;
  };
  for (const auto& [size, bound] : {Bound{"64", 425}, Bound{"2000000", 475}}) {
    const test::Counted pair = callgrind.count(size, 100, 1000);
    ASSERT_GT(pair.instructions, 0) << size;
    RecordProperty(std::string("pair_of_") + size, std::to_string(pair.instructions));
    EXPECT_LE(pair.instructions, bound) << size;
    EXPECT_LE(pair.mispredicted, 0.01) << size;
  }
}

// Neither its 262,144 pages nor its 65,536 records are looked at, but for those that were used; its 65,536 words of granules are.
TEST_F(SharedInstructions, OfTheFiguresOfALargePool) {
  const test::Callgrind callgrind("shared pool", {"rtpool::shared::SharedPool::stats()"});
  const test::Counted figures = callgrind.count("stats", 2, 10);
  ASSERT_GT(figures.instructions, 0);
  RecordProperty("figures", std::to_string(figures.instructions));
  EXPECT_LE(figures.instructions, 500'000);
}

const bool g_child = test::act_as_child("shared pool", act);

}  // namespace
}  // namespace rtpool::shared
