// Promises of shared/layout and shared/size_class: geometry follows from the size, headers that are not ours are refused,
// size classes cover every size with little waste.
#include "shared/layout.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "shared/size_class.hpp"

namespace rtpool::shared {
namespace {

TEST(Geometry, PartsLieBehindEachOtherForEverySize) {
  for (std::uint64_t size = 1; size <= k_largest_data; size = size * 5 / 3 + 1) {
    Geometry g;
    ASSERT_TRUE(geometry_of(size, 4096, &g)) << size;
    EXPECT_GE(g.data_bytes, size);
    EXPECT_LE(g.data_bytes - size, size / 8 + 4096);
    EXPECT_LE(g.granules, k_most_granules);
    EXPECT_EQ(std::uint64_t{g.granules} << g.granule_shift, g.data_bytes);
    EXPECT_GE(g.granules_offset, g.processes_offset + k_processes * sizeof(ProcessSlot));
    EXPECT_GE(g.records_offset, g.granules_offset + g.granules * sizeof(Word));
    EXPECT_GE(g.data_offset, g.records_offset + g.records * sizeof(Record));
    EXPECT_EQ(g.data_offset % 4096, 0U);
    EXPECT_GE(g.file_bytes, g.data_offset + g.data_bytes);
    // What is not data is little, except in pools that are small themselves.
    if (size > (std::uint64_t{64} << 20)) {
      EXPECT_LT(g.file_bytes - g.data_bytes, size / 20);
    }
  }
}

TEST(Geometry, RefusesWhatIsOutOfRange) {
  Geometry g;
  EXPECT_FALSE(geometry_of(0, 4096, &g));
  EXPECT_FALSE(geometry_of(k_largest_data + 1, 4096, &g));
  EXPECT_FALSE(geometry_of(UINT64_MAX, 4096, &g));
  EXPECT_FALSE(geometry_of(1 << 20, 0, &g));
  EXPECT_FALSE(geometry_of(1 << 20, 4097, &g));
  EXPECT_FALSE(geometry_of(1 << 20, 2048, &g));
}

TEST(Header, EveryFlippedBitIsFound) {
  Geometry g;
  ASSERT_TRUE(geometry_of(1 << 20, 4096, &g));
  MadeHeader header{};
  write_header(&header, g, 4096, os::SegmentId{{1, 2, 3}}, "camera", 7);
  MadeHeader copy{};
  Geometry read;
  ASSERT_TRUE(read_header(&header, g.file_bytes, &copy, &read));
  EXPECT_EQ(read.records, g.records);
  EXPECT_TRUE(same_header(&header, copy));
  EXPECT_FALSE(read_header(&header, g.file_bytes - 1, &copy, &read));
  for (std::size_t bit = 0; bit < sizeof header * 8; ++bit) {
    MadeHeader damaged = header;
    reinterpret_cast<unsigned char*>(&damaged)[bit / 8] ^= static_cast<unsigned char>(1U << bit % 8);
    EXPECT_FALSE(read_header(&damaged, g.file_bytes, &copy, &read)) << bit;
    EXPECT_FALSE(same_header(&damaged, header));
  }
}

TEST(Header, NoiseIsRefused) {
  std::mt19937_64 random(5);
  MadeHeader header{};
  MadeHeader copy{};
  Geometry g;
  for (int turn = 0; turn < 10000; ++turn) {
    for (std::size_t i = 0; i < sizeof header; ++i) reinterpret_cast<unsigned char*>(&header)[i] = static_cast<unsigned char>(random());
    if (turn % 2 == 0) header.magic = k_magic;
    if (turn % 4 == 0) header.version = k_version;
    EXPECT_FALSE(read_header(&header, SIZE_MAX, &copy, &g));
  }
}

TEST(Words, KeepWhatIsPutIn) {
  const Tenancy tenancy{255, 0xfedcba98};
  EXPECT_EQ(Tenancy::of(tenancy.packed()), tenancy);
  const std::uint64_t head = GranuleWord::head(tenancy, k_most_granules);
  EXPECT_EQ(GranuleWord::tenancy(head | GranuleWord::k_idle | GranuleWord::k_stealing), tenancy);
  EXPECT_EQ(GranuleWord::length(head | GranuleWord::k_idle), k_most_granules);
  const std::uint64_t life = LifeWord::make(Life::live, 4194303, 0xffffffff);
  EXPECT_EQ(LifeWord::state(life), Life::live);
  EXPECT_EQ(LifeWord::pid(life), 4194303);
  EXPECT_EQ(LifeWord::generation(life), 0xffffffff);
  const std::uint64_t state = StateWord::make(RecordState::closing, 0xffffff, 0xffffffff);
  EXPECT_EQ(StateWord::version(state), 0xffffffU);
  EXPECT_EQ(StateWord::generation(state), 0xffffffffU);
  const std::uint64_t ticket = TicketWord::make(65535, tenancy, 0xffffff);
  EXPECT_TRUE(TicketWord::of(ticket, tenancy));
  EXPECT_EQ(TicketWord::count(ticket), 65535U);
  EXPECT_EQ(TicketWord::time(ticket), 0xffffffU);
}

TEST(SizeClass, EverySizeFitsWithLittleWasteAndAlignment) {
  unsigned last = 0;
  for (std::size_t size = 1; size <= (std::size_t{64} << 20); size += size < 70000 ? 1 : size / 300) {
    const unsigned c = class_of(size);
    ASSERT_LT(c, k_classes);
    ASSERT_GE(c, last);
    ASSERT_LE(c, last + 1 + (size >= 70000 ? 1 : 0));
    last = c;
    const std::size_t block = class_bytes(c);
    ASSERT_GE(block, size);
    ASSERT_EQ(class_of(block), c);
    ASSERT_EQ(block % (size >= 4033 ? 4096 : 64), 0U) << size;
    ASSERT_LE(block - size, size <= 1024 ? 63 : size <= 4096 ? size / 7 : size / 8 + 4096) << size;
  }
}

}  // namespace
}  // namespace rtpool::shared
