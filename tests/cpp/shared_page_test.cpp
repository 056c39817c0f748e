// What os/shared_page.hpp promises.
#include "bytes.hpp"
#include "os/helper_thread.hpp"
#include "os/shared_page.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>


namespace rtpool::os {
namespace {

constexpr std::size_t k_shown_bytes = 8192;
constexpr Nanoseconds k_soon = 1'000'000;

TEST(SharedPage, isZeroHasANameAndAFixedSizeAndStaysWithThisProgram) {
  int fd = -1;
  void* address = nullptr;
  ASSERT_EQ(open_shared_page("looked-at", k_shown_bytes, &fd, &address), 0);
  EXPECT_TRUE(test::all_are(0, address, k_shown_bytes));
  char link[256] = {};
  ASSERT_GT(::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), link, sizeof link - 1), 0);
  EXPECT_EQ(std::strncmp(link, "/memfd:looked-at", 16), 0) << link;
  EXPECT_EQ(::ftruncate(fd, 100), -1);
  EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  struct stat info {};
  ASSERT_EQ(::fstat(fd, &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  const pid_t child = ::fork();
  if (child == 0) {
    unsigned char resident = 0;
    ::_exit(::mincore(address, 4096, &resident) == -1 && errno == ENOMEM ? 0 : 1);  // not mapped there
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close_shared_page(fd, address, k_shown_bytes);
}

TEST(SharedPage, processesWakeEachOther) {
  int fd = -1;
  void* address = nullptr;
  ASSERT_EQ(open_shared_page("words", k_shown_bytes, &fd, &address), 0);
  auto& asked = *static_cast<std::atomic<std::uint32_t>*>(address);
  auto& answered = *(static_cast<std::atomic<std::uint32_t>*>(address) + 1);
  const pid_t child = ::fork();
  if (child == 0) {
    const std::uint32_t question = 41;
    std::uint32_t answer = 0;
    if (::pwrite(fd, &question, sizeof question, 0) != sizeof question || wake_in_file(fd, 0) != 0) ::_exit(1);
    while (answer == 0) {
      if (sleep_in_file(fd, 4, 0, k_for_ever) != 0 || ::pread(fd, &answer, sizeof answer, 4) != sizeof answer) ::_exit(2);
    }
    ::_exit(answer == 42 ? 0 : 3);
  }
  while (asked.load() == 0) sleep_while_shared(asked, 0, k_for_ever);
  answered.store(asked.load() + 1);
  wake_shared(answered);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  close_shared_page(fd, address, k_shown_bytes);
}

TEST(SharedPage, wordsOfOthersFilesAreNeverASignal) {
  const int fd = ::memfd_create("short", 0);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  EXPECT_EQ(wake_in_file(fd, 0), 0);
  EXPECT_EQ(sleep_in_file(fd, 0, 1, k_for_ever), 0) << "another value already";
  EXPECT_EQ(sleep_in_file(fd, 0, 0, k_soon), ETIMEDOUT);
  EXPECT_EQ(wake_in_file(fd, 2), EINVAL);
  ASSERT_EQ(::ftruncate(fd, 0), 0);
  EXPECT_EQ(sleep_in_file(fd, 0, 0, k_soon), EFAULT);
  const int error = wake_in_file(fd, 0);
  EXPECT_TRUE(error == EFAULT || error == 0) << error;
  ::close(fd);
  EXPECT_EQ(wake_in_file(fd, 0), EBADF);
}

}  // namespace
}  // namespace rtpool::os
