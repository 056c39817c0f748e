// What a fork has made common is the process's own again after one call: no fault at the next write, the other's copy untouched.
#include "os/forked_pages.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/sanitizers.hpp"
#include "os/kernel_pages.hpp"

namespace rtpool::os {
namespace {

constexpr std::size_t k_pages = 200;

class ForkedPagesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (take_forked_pages_back().error == EINVAL) GTEST_SKIP() << "this kernel cannot populate";
    ASSERT_EQ(take_forked_pages_back().error, 0);
    room_ = static_cast<volatile char*>(::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(const_cast<char*>(room_), MAP_FAILED);
    ::madvise(const_cast<char*>(room_), bytes(), MADV_NOHUGEPAGE);
    // Every other twenty pages stay away.
    for (std::size_t i = 0; i < k_pages; ++i) {
      if (i / 20 % 2 == 0) room_[i * page_size()] = static_cast<char>(i);
    }
  }
  void TearDown() override {
    if (room_ != nullptr) ::munmap(const_cast<char*>(room_), bytes());
  }

  static std::size_t bytes() noexcept { return k_pages * page_size(); }

  // Page faults of writing to those that are resident.
  long faults_of_writing() noexcept {
    rusage before;
    rusage after;
    ::getrusage(RUSAGE_SELF, &before);
    for (std::size_t i = 0; i < k_pages; ++i) {
      if (i / 20 % 2 == 0) room_[i * page_size() + 1] = 1;
    }
    ::getrusage(RUSAGE_SELF, &after);
    return after.ru_minflt - before.ru_minflt;
  }

  // A child that lives until `end_child`; its exit code says whether it has seen what was there at the fork.
  void begin_child() {
    ASSERT_EQ(::pipe(gate_), 0);
    child_ = ::fork();
    ASSERT_GE(child_, 0);
    if (child_ != 0) return;
    char end = 0;
    ::close(gate_[1]);
    while (::read(gate_[0], &end, 1) < 0 && errno == EINTR) {
    }
    bool same = true;
    for (std::size_t i = 0; i < k_pages; ++i) {
      const bool made = i / 20 % 2 == 0;
      same = same && room_[i * page_size()] == (made ? static_cast<char>(i) : 0) && room_[i * page_size() + 1] == 0;
    }
    ::_exit(same ? 0 : 1);
  }
  int end_child() {
    ::close(gate_[0]);
    ::close(gate_[1]);
    int status = -1;
    EXPECT_EQ(::waitpid(child_, &status, 0), child_);
    return status;
  }

  volatile char* room_ = nullptr;
  pid_t child_ = -1;
  int gate_[2] = {-1, -1};
};

TEST_F(ForkedPagesTest, AreTakenFromALivingChild) {
  begin_child();
  const ForkedPages pages = take_forked_pages_back();
  EXPECT_EQ(pages.error, 0);
  EXPECT_GE(pages.copied, bytes() / 2);
  EXPECT_GE(pages.bytes, pages.copied);
#ifndef RTPOOL_SANITIZED
  EXPECT_LE(faults_of_writing(), 1);
#else
  faults_of_writing();
#endif
  std::size_t resident = 0;
  ASSERT_EQ(count_resident(const_cast<char*>(room_), bytes(), &resident), 0);
  EXPECT_EQ(resident, bytes() / 2);  // what was not there does not come
  EXPECT_EQ(take_forked_pages_back().bytes, 0U);
  EXPECT_EQ(end_child(), 0);
}

TEST_F(ForkedPagesTest, AreTakenBackWhenTheChildIsGone) {
  begin_child();
  EXPECT_EQ(end_child(), 0);
  const ForkedPages pages = take_forked_pages_back();
  EXPECT_EQ(pages.error, 0);
  EXPECT_GE(pages.bytes, bytes() / 2);
#ifndef RTPOOL_SANITIZED
  EXPECT_LE(faults_of_writing(), 1);
#endif
}

TEST_F(ForkedPagesTest, AreTakenByTheChildAsWell) {
  const unsigned before = forks();
  const pid_t child = ::fork();
  if (child == 0) {
    bool good = forks() == before + 1 && take_forked_pages_back().bytes >= bytes() / 2;
#ifndef RTPOOL_SANITIZED
    good = good && faults_of_writing() <= 1;
#endif
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(forks(), before + 1);
}

#ifndef RTPOOL_SANITIZED
TEST_F(ForkedPagesTest, OfALargeTableStayCommon) {
  const std::size_t large = std::size_t{300} << 20;
  void* const mapped = ::mmap(nullptr, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  auto* const table = static_cast<volatile char*>(mapped);
  for (std::size_t at = 0; at < large; at += page_size()) table[at] = 1;
  begin_child();
  const ForkedPages pages = take_forked_pages_back();
  EXPECT_GE(pages.left, large);
  EXPECT_LE(pages.copied, std::size_t{256} << 20);
  EXPECT_LE(faults_of_writing(), 1);  // the small ones come first
  EXPECT_EQ(end_child(), 0);
  // Nobody else has it any more: nothing would be copied.
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_LT(take_forked_pages_back().left, large);
  ::munmap(mapped, large);
}
#endif

}  // namespace
}  // namespace rtpool::os
