// Promises of Pool::locate: every part of a pool is found and named, nothing else is.
#include <memory>

#include "pool_fixture.hpp"

namespace rtpool::pool {
namespace {

class LocateTest : public PoolTest {
 protected:
  Pool& named(const char* name) {
    Options options;
    options.size = 4 * k_mib;
    std::snprintf(options.name, sizeof options.name, "%s", name);
    return make(options);
  }
  PoolPart part(const void* address) {
    PoolPlace place;
    EXPECT_TRUE(Pool::locate(address, &place));
    return place.part;
  }
};

TEST_F(LocateTest, BlocksOfAllKinds) {
  Pool& first = named("first");
  Pool& second = named("second");
  auto* const large = static_cast<char*>(first.allocate(100 * k_kib));
  auto* const small = static_cast<char*>(second.allocate(100));
  PoolPlace place;
  ASSERT_TRUE(Pool::locate(large + 70 * k_kib, &place));
  EXPECT_EQ(place.part, PoolPart::block);
  EXPECT_STREQ(place.name, "first");
  EXPECT_EQ(place.id, first.id());
  ASSERT_TRUE(Pool::locate(small + 50, &place));
  EXPECT_EQ(place.part, PoolPart::small_blocks);
  EXPECT_STREQ(place.name, "second");
  first.release(large);
  second.release(small);
}

TEST_F(LocateTest, FreePagesAndAddressSpace) {
  Pool& pool = named("pool");
  auto* const arena = static_cast<char*>(pool.arena_begin());
  EXPECT_EQ(part(arena + 3 * k_mib), PoolPart::free_pages);
  EXPECT_EQ(part(arena + pool.arena_reserved() - 1), PoolPart::not_ready);
  PoolPlace place;
  EXPECT_FALSE(Pool::locate(arena + pool.arena_reserved() + (std::size_t{1} << 46), &place));
}

TEST_F(LocateTest, ThePoolItselfAndNothingElse) {
  Pool& pool = named("pool");
  EXPECT_EQ(part(&pool), PoolPart::control);
  const auto elsewhere = std::make_unique<int>(1);
  PoolPlace place;
  EXPECT_FALSE(Pool::locate(elsewhere.get(), &place));
  EXPECT_FALSE(Pool::locate(nullptr, &place));
}

}  // namespace
}  // namespace rtpool::pool
