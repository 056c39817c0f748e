// What AddressSanitizer and Valgrind find in code that uses a pool's blocks wrongly. Each needs its own conditions; where they
// are not met the test says so.
#include "base/watch.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/sanitizers.hpp"
#include "large_pages.hpp"
#include "pool/pool.hpp"

namespace rtpool::pool {
namespace {

Pool& watched_pool() {
  Options options;
  options.limit = std::size_t{64} << 20;
  options.watch = true;
  return *Pool::create(options, test::machine_memory()).pool;
}

// Uses one block after the other as its owner may.
void behave(Pool& pool) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{100}, std::size_t{4032}, std::size_t{100'000}}) {
    for (int i = 0; i < 3; ++i) {
      auto* made = static_cast<char*>(pool.allocate_zeroed(size));
      std::memset(made, i, size);
      made = static_cast<char*>(pool.resize(made, size * 2));
      std::memset(made, i, size * 2);
      pool.release(made);
    }
  }
}

char read_after_free(Pool& pool, std::size_t size) {
  auto* const made = static_cast<volatile char*>(pool.allocate_zeroed(size));
  pool.release(const_cast<char*>(made));
  return made[size / 2];
}

void write_past_the_end(Pool& pool, std::size_t size) {
  auto* const made = static_cast<volatile char*>(pool.allocate_zeroed(size));
  made[size] = 1;
  pool.release(const_cast<char*>(made));
}

TEST(Watch, AddressSanitizerFindsUseAfterFreeAndOverruns) {
  if (!base::watched() || base::knows_valgrind()) GTEST_SKIP() << "the core is not built with -fsanitize=address";
  Pool& pool = watched_pool();
  EXPECT_TRUE(pool.debug());
  behave(pool);
  for (const std::size_t size : {std::size_t{8}, std::size_t{1000}, std::size_t{100'000}}) {
    EXPECT_DEATH(read_after_free(pool, size), "use-after-poison");
    EXPECT_DEATH(write_past_the_end(pool, size), "use-after-poison");
  }
  EXPECT_TRUE(pool.check().ok);
  EXPECT_EQ(pool.stats().misuses, 0U);
  pool.drop_reference();
}

#ifndef RTPOOL_SANITIZED
// What a child under Valgrind does; its exit code is Valgrind's when that found an error.
[[noreturn]] void misuse(const std::string& part) {
  Pool& pool = watched_pool();
  if (!pool.debug()) std::_Exit(3);
  behave(pool);
  if (part == "read") static_cast<void>(read_after_free(pool, 1000));
  if (part == "read-large") static_cast<void>(read_after_free(pool, 100'000));
  if (part == "write") write_past_the_end(pool, 1000);
  if (part == "uninitialised") {
    auto* const made = static_cast<volatile char*>(pool.allocate(64));
    if (made[3] == 17) std::puts("seventeen");
  }
  std::_Exit(0);
}

struct Outcome {
  int status = -1;
  std::string text;
};

Outcome under_valgrind(const std::string& part) {
  char self[4096] = {};
  if (::readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return {};
  const std::string command = "RTPOOL_WATCH_PART=" + part + " valgrind --quiet --error-exitcode=99 '" + self + "' 2>&1";
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  Outcome outcome;
  char piece[4096];
  while (std::fgets(piece, sizeof piece, pipe) != nullptr) outcome.text += piece;
  const int status = ::pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}
#endif

TEST(Watch, ValgrindFindsUseAfterFreeOverrunsAndUninitialisedReads) {
#ifdef RTPOOL_SANITIZED
  GTEST_SKIP() << "a sanitizer's process cannot run inside Valgrind";
#else
  if (!base::knows_valgrind()) GTEST_SKIP() << "built without valgrind/memcheck.h; on Debian and Ubuntu: apt-get install valgrind";
  if (std::system("valgrind --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no valgrind; on Debian and Ubuntu: apt-get install valgrind";
  const Outcome well_behaved = under_valgrind("nothing");
  EXPECT_EQ(well_behaved.status, 0) << well_behaved.text;
  const struct {
    const char* part;
    const char* told;
  } cases[] = {{"read", "inside a block of size 1,000 free'd"},
               {"read-large", "inside a block of size 100,000 free'd"},
               {"write", "0 bytes after a block of size 1,000 alloc'd"},
               {"uninitialised", "depends on uninitialised value"}};
  for (const auto& [part, told] : cases) {
    const Outcome outcome = under_valgrind(part);
    EXPECT_EQ(outcome.status, 99) << part << outcome.text;
    EXPECT_NE(outcome.text.find(told), std::string::npos) << part << ":\n" << outcome.text;
  }
#endif
}

#ifndef RTPOOL_SANITIZED
// Runs instead of the tests in the children of the test above.
const bool g_watched_child = [] {
  if (const char* const part = std::getenv("RTPOOL_WATCH_PART")) misuse(part);
  return false;
}();
#endif

}  // namespace
}  // namespace rtpool::pool
