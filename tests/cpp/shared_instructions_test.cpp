// How many instructions a shared pool's blocks take.
#include <gtest/gtest.h>

#include <string>

#include "callgrind.hpp"
#include "recording.hpp"
#include "shared_support.hpp"

namespace rtpool::shared {
namespace {

void act(const std::string& work, const test::Turns& turns) {
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

const bool g_child = test::act_as_child("shared pool", act);

}  // namespace
}  // namespace rtpool::shared
