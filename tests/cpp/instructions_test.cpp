// How many instructions the public functions take, and how many of them access memory.
#include <gtest/gtest.h>

#include <string>

#include "callgrind.hpp"
#include "large_pages.hpp"
#include "pool/pool.hpp"
#include "recording.hpp"

namespace rtpool::pool {
namespace {

// What a child under Callgrind does in its turns. A size may be followed by what is, or was, recorded.
void count_work(const std::string& work, const test::Turns& turns) {
  Options options;
  options.limit = std::size_t{1} << 30;
  options.prefault = false;
  Pool& pool = *Pool::create(options, test::machine_memory()).pool;
  test::Recording recording;
  if (work.ends_with("recorded before")) {
    recording.start();
    pool.begin_recording();
    pool.release(pool.allocate(64));
    pool.end_recording();
    recording.finish();
  } else if (work.ends_with("in events") || work.ends_with("in totals")) {
    recording.start(work.ends_with("totals") ? trace::Mode::totals : trace::Mode::events);
    pool.begin_recording();
  } else if (work.ends_with("another recorded")) {
    recording.start();
    Pool::create(options, test::machine_memory()).pool->begin_recording();
  }
  if (work == "mixed") {
    // 64 blocks of 64 B to 8 MiB alive, every power of two equally likely: one at random is replaced by another size.
    std::uint64_t state = 0x9E3779B97F4A7C15U;
    const auto random = [&state] {
      state ^= state >> 12;
      state ^= state << 25;
      state ^= state >> 27;
      return state * 0x2545F4914F6CDD1DU;
    };
    void* alive[64] = {};
    turns.take([&] {
      void*& slot = alive[random() >> 58];
      const std::uint64_t r = random();
      const std::size_t low = std::size_t{1} << (6 + ((r >> 58) * 17 >> 6));
      pool.release(slot);
      slot = pool.allocate(low + (r & (low - 1)));
    });
  } else {
    const std::size_t size = std::strtoul(work.c_str(), nullptr, 10);
    turns.take([&] { pool.release(pool.allocate(size)); });
  }
}

class Instructions : public test::CallgrindTest {
 protected:
  static test::Callgrind hits() {
    return {"pool", {"rtpool::pool::Pool::allocate(unsigned long)", "rtpool::pool::Pool::release(void*)"}};
  }
  static test::Counted count(const std::string& work, unsigned long first, unsigned long more) {
    return hits().count(work, first, more);
  }
};

TEST_F(Instructions, OfAPairAreAtMostThoseOfTheLeanestAllocator) {
  // With all statistics. The least of jemalloc, tcmalloc and mimalloc, measured the same way: 76 at 64 B, 79 at 64 KiB.
  for (const char* const size : {"64", "2048", "65536", "1048576"}) {
    const double pair = count(size, 100, 1000).instructions;
    ASSERT_GT(pair, 0) << size;
    RecordProperty(std::string("pair_of_") + size, std::to_string(pair));
    EXPECT_LE(pair, 76) << size << " bytes";
  }
}

// What bounds a pair: a processor makes two or three accesses a cycle.
TEST_F(Instructions, OfAPairThatAccessMemoryAreFew) {
  struct Bound {
    const char* size;
    double accesses;
  };
  for (const auto& [size, bound] : {Bound{"64", 40}, Bound{"65536", 42}}) {
    const test::Accesses pair = hits().count_accesses(size, 100, 1000);
    ASSERT_GT(pair.reads, 0) << size;
    RecordProperty(std::string("accesses_of_") + size, std::to_string(pair.reads + pair.writes));
    EXPECT_LE(pair.reads + pair.writes, bound) << size << " bytes: " << pair.reads << " reads, " << pair.writes << " writes";
  }
}

TEST_F(Instructions, OfProgramsOfMixedSizesAreFew) {
  // 900 while every size had a bin, 416 while each run went to the store by itself.
  const double turn = count("mixed", 20'000, 20'000).instructions;
  ASSERT_GT(turn, 0);
  RecordProperty("turn", std::to_string(turn));
  EXPECT_LE(turn, 350);
}

// Who is not recorded pays nothing for those who are, or were: the branch by which hits look whether anything is up is there for
// learning, trimming and forking as well, and is predicted.
TEST_F(Instructions, OfAPairAreTheSameWhateverIsRecorded) {
  for (const std::string size : {"64", "65536"}) {
    const test::Counted plain = count(size, 100, 1000);
    ASSERT_GT(plain.instructions, 0) << size;
    EXPECT_LE(plain.mispredicted, 0.01) << size;
    for (const char* const when : {" recorded before", " another recorded"}) {
      const test::Counted other = count(size + when, 100, 1000);
      EXPECT_NEAR(other.instructions, plain.instructions, 0.1) << size << when;
      EXPECT_NEAR(other.branches, plain.branches, 0.1) << size << when;
      EXPECT_LE(other.mispredicted, 0.01) << size << when;
    }
  }
}

// Of pairs that are recorded, without what asking for the place takes.
TEST_F(Instructions, OfARecordedPairAreFew) {
  struct Bound {
    const char* work;
    double instructions;
  };
  for (const auto& [work, bound] :
       {Bound{"64 in events", 720}, Bound{"65536 in events", 720}, Bound{"64 in totals", 590}, Bound{"65536 in totals", 590}}) {
    const double pair = count(work, 100, 1000).instructions;
    ASSERT_GT(pair, 0) << work;
    RecordProperty(work, std::to_string(pair));
    EXPECT_LE(pair, bound) << work;
  }
}

const bool g_counted_child = test::act_as_child("pool", count_work);

}  // namespace
}  // namespace rtpool::pool
