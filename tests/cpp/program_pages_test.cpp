// The program's own pages: all present after one call, and nothing done twice.
#include "os/program_pages.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/sanitizers.hpp"

namespace rtpool::os {
namespace {

// Tables of several pages each, in what the program maps from its file and in what it starts as zero.
constexpr std::size_t k_table_bytes = 64 * 4096;
alignas(4096) volatile char g_filled[k_table_bytes] = {1};
alignas(4096) volatile char g_zero[k_table_bytes];

// What the loader makes read-only after it has written one pointer into it: nobody has seen the rest.
struct Relocated {
  const volatile char* pointer;
  char rest[k_table_bytes];
};
alignas(4096) extern const Relocated g_relocated;
alignas(4096) const Relocated g_relocated = {g_filled, {1}};

[[maybe_unused]] long faults_of_reading(const volatile char* table) {
  rusage before;
  rusage after;
  ::getrusage(RUSAGE_SELF, &before);
  for (std::size_t at = 0; at < k_table_bytes; at += 4096) static_cast<void>(table[at]);
  ::getrusage(RUSAGE_SELF, &after);
  return after.ru_minflt - before.ru_minflt;
}

[[maybe_unused]] long faults_of_writing(volatile char* table) {
  rusage before;
  rusage after;
  ::getrusage(RUSAGE_SELF, &before);
  for (std::size_t at = 0; at < k_table_bytes; at += 4096) table[at] = 2;
  ::getrusage(RUSAGE_SELF, &after);
  return after.ru_minflt - before.ru_minflt;
}

TEST(ProgramPages, AreAllPresentAfterwardsAndStayWhatTheyWere) {
  const ProgramPages pages = make_program_resident();
  if (pages.error == EINVAL) GTEST_SKIP() << "this kernel cannot populate";
  EXPECT_EQ(pages.error, 0);
  EXPECT_GT(pages.bytes, 2 * k_table_bytes);
  EXPECT_EQ(g_filled[0], 1);
#ifndef RTPOOL_SANITIZED
  EXPECT_LE(faults_of_reading(g_relocated.rest), 1);
  EXPECT_LE(faults_of_writing(g_filled), 1);
  EXPECT_LE(faults_of_writing(g_zero), 1);
#endif
}

TEST(ProgramPages, AreNotLookedAtAgainUntilTheProcessForks) {
  if (make_program_resident().error == EINVAL) GTEST_SKIP() << "this kernel cannot populate";
  EXPECT_EQ(make_program_resident().bytes, 0U);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(make_program_resident().bytes > k_table_bytes ? 0 : 1);
  int status = 1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_GT(make_program_resident().bytes, k_table_bytes);  // the fork has made the parent's pages common as well
#ifndef RTPOOL_SANITIZED
  EXPECT_LE(faults_of_writing(g_zero), 1);
#endif
  EXPECT_EQ(make_program_resident().bytes, 0U);
}

}  // namespace
}  // namespace rtpool::os
