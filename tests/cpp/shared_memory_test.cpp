// Promises of os/shared_memory: sealed memory files, names that appear whole, mappings nobody can write, and telling the
// living from the dead.
#include "os/shared_memory.hpp"

#include "bytes.hpp"
#include "os/segment_door.hpp"
#include "patience.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

namespace rtpool::os {
namespace {

SharedMemory& real() { return shared_memory(); }

std::string own_name(const char* what) { return std::string("test.") + what + "." + std::to_string(::getpid()); }

TEST(SharedMemory, NamelessIsSealedAndReadsAsZeros) {
  const SegmentId id{{9, 8, 7}};
  int fd = -1;
  ASSERT_EQ(real().create_nameless(id, 1 << 20, 4096, &fd), 0);
  SegmentFile file;
  ASSERT_EQ(real().describe(fd, &file), 0);
  EXPECT_TRUE(file.sealed);
  EXPECT_TRUE(file.regular);
  EXPECT_EQ(file.bytes, std::size_t{1} << 20);
  EXPECT_EQ(file.held, 0U);
  EXPECT_NE(::ftruncate(fd, 4096), 0);
  EXPECT_NE(::ftruncate(fd, 2 << 20), 0);
  void* base = nullptr;
  ASSERT_EQ(real().map(fd, 1 << 20, 4096, true, &base), 0);
  EXPECT_EQ(reinterpret_cast<std::size_t>(base) % (2 << 20), 0U);
  ASSERT_EQ(real().prefault(base, 1 << 20, true), 0);
  std::size_t resident = 0;
  ASSERT_EQ(real().resident(base, 1 << 20, &resident), 0);
  EXPECT_EQ(resident, std::size_t{1} << 20);
  ASSERT_EQ(real().describe(fd, &file), 0);
  EXPECT_EQ(file.held, resident);
  EXPECT_TRUE(test::all_are(0, base, 1 << 20));
  // Found through the process that has it, by descriptor and by search.
  int other = -1;
  const auto never = [](void*, int) { return false; };
  ASSERT_EQ(real().open_of_process(id, ::getpid(), fd, never, nullptr, &other), 0);
  real().close(other);
  ASSERT_EQ(real().open_of_process(id, 0, -1, never, nullptr, &other), 0);
  real().close(other);
  EXPECT_EQ(real().open_of_process(SegmentId{{1}}, ::getpid(), fd, never, nullptr, &other), ENOENT);
  EXPECT_EQ(real().unmap(base, 1 << 20), 0);
  real().close(fd);
}

TEST(SharedMemory, NamesAppearWholeAndOnce) {
  const std::string name = own_name("names");
  int fd = -1;
  ASSERT_EQ(real().create_named(8192, &fd), 0);
  int found = -1;
  EXPECT_EQ(real().open_named(name.c_str(), &found), ENOENT);
  ASSERT_EQ(real().publish(fd, name.c_str()), 0);
  EXPECT_EQ(real().publish(fd, name.c_str()), EEXIST);
  ASSERT_EQ(real().open_named(name.c_str(), &found), 0);
  SegmentFile here;
  SegmentFile there;
  ASSERT_EQ(real().describe(fd, &here), 0);
  ASSERT_EQ(real().describe(found, &there), 0);
  EXPECT_EQ(here.inode, there.inode);
  EXPECT_EQ(there.mode, 0600U);
  EXPECT_EQ(there.user, ::geteuid());
  struct Seen {
    const char* name;
    bool seen;
  } seen{name.c_str(), false};
  ASSERT_EQ(real().for_each_name([](void* c, const char* n) {
    auto* const s = static_cast<Seen*>(c);
    s->seen |= std::strcmp(n, s->name) == 0;
    return true;
  }, &seen), 0);
  EXPECT_TRUE(seen.seen);
  EXPECT_EQ(real().try_lock_file(fd), 0);
  EXPECT_EQ(real().try_lock_file(found), EWOULDBLOCK);
  EXPECT_EQ(real().unlink_named(name.c_str()), 0);
  EXPECT_EQ(real().unlink_named(name.c_str()), ENOENT);
  real().close(fd);
  real().close(found);
}

TEST(SharedMemory, NamedFilesAreFoundThroughTheProcessThatHasThem) {
  const std::string name = own_name("found");
  int fd = -1;
  ASSERT_EQ(real().create_named(8192, &fd), 0);
  SegmentFile file;
  ASSERT_EQ(real().describe(fd, &file), 0);
  const auto is_it = [](void* context, int candidate) {
    SegmentFile seen;
    return real().describe(candidate, &seen) == 0 && seen.inode == static_cast<SegmentFile*>(context)->inode;
  };
  const auto finds = [&](std::int32_t pid, int there) {
    int found = -1;
    const int error = real().open_of_process(SegmentId{{1}}, pid, there, is_it, &file, &found);
    if (error == 0) real().close(found);
    return error;
  };
  EXPECT_EQ(finds(::getpid(), fd), 0) << "before it has a name";
  ASSERT_EQ(real().publish(fd, name.c_str()), 0);
  EXPECT_EQ(finds(::getpid(), fd), 0);
  EXPECT_EQ(finds(0, -1), 0) << "by its name, or by search";
  ASSERT_EQ(real().unlink_named(name.c_str()), 0);
  EXPECT_EQ(finds(::getpid(), fd), 0) << "after its name is gone";
  EXPECT_EQ(finds(0, -1), 0);
  real().close(fd);
  EXPECT_EQ(finds(::getpid(), fd), ENOENT);
}

// Two processes of one user without privileges, the first of which nobody but root may look at.
TEST(SharedMemory, AProcessThatMayNotBeLookedAtOffersItsSegments) {
  const SegmentId id{{77, 1}};
  int fd = -1;
  ASSERT_EQ(real().create_nameless(id, 8192, 4096, &fd), 0);
  int ready[2];
  int over[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(over), 0);
  const bool root = ::geteuid() == 0;
  const pid_t holder = ::fork();
  if (holder == 0) {
    test::end_if_hung(20);
    ::close(over[1]);
    if (root && ::setuid(65534) != 0) ::_exit(1);
    ::prctl(PR_SET_DUMPABLE, 0);
    if (offer_segment(id, fd) != 0) ::_exit(2);
    char byte = 0;
    if (::write(ready[1], "x", 1) != 1 || ::read(over[0], &byte, 1) != 0) ::_exit(3);
    withdraw_segment(id);
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  real().close(fd);
  const pid_t receiver = ::fork();
  if (receiver == 0) {
    test::end_if_hung(20);
    ::close(over[1]);
    if (root && ::setuid(65534) != 0) ::_exit(1);
    const auto never = [](void*, int) { return false; };
    int found = -1;
    if (real().open_of_process(id, holder, fd, never, nullptr, &found) != 0) ::_exit(4);
    SegmentFile file;
    ::_exit(real().describe(found, &file) == 0 && file.sealed && file.bytes == 8192 ? 0 : 5);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(receiver, &status, 0), receiver);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
  int nothing = -1;
  if (root) {
    EXPECT_EQ(ask_for_segment(id, holder, &nothing), EPERM) << "another user's is not taken, whoever asks";
  }
  EXPECT_EQ(ask_for_segment(SegmentId{{78}}, holder, &nothing), ECONNREFUSED);
  ::close(over[0]);
  ::close(over[1]);
  ASSERT_EQ(::waitpid(holder, &status, 0), holder);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
  // A process that is dumpable offers nothing.
  ASSERT_EQ(offer_segment(id, 0), 0);
  EXPECT_EQ(ask_for_segment(id, ::getpid(), &nothing), ECONNREFUSED);
}

TEST(SharedMemory, NamesThatLeaveTheFolderAreRefused) {
  for (const char* name : {"", ".", "..", "../x", "a/b", ".hidden", "a b", "a\n"}) EXPECT_FALSE(is_segment_name(name)) << name;
  EXPECT_FALSE(is_segment_name(std::string(k_segment_name_length + 1, 'x').c_str()));
  EXPECT_TRUE(is_segment_name(std::string(k_segment_name_length, 'x').c_str()));
  EXPECT_TRUE(is_segment_name("camera-0.left_eye"));
  int fd = -1;
  EXPECT_EQ(real().open_named("../../etc/passwd", &fd), EINVAL);
}

TEST(SharedMemory, ReadOnlyMappingsCannotBeWritten) {
  int fd = -1;
  ASSERT_EQ(real().create_nameless(SegmentId{{5}}, 8192, 4096, &fd), 0);
  void* base = nullptr;
  ASSERT_EQ(real().map(fd, 8192, 4096, false, &base), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGSEGV, SIG_DFL);  // also where a sanitizer has its own
    *static_cast<volatile char*>(base) = 1;
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGABRT)) << status;
  real().unmap(base, 8192);
  real().close(fd);
}

std::size_t count_mappings() {
  std::FILE* const file = std::fopen("/proc/self/maps", "re");
  EXPECT_NE(file, nullptr);
  std::size_t lines = 0;
  for (int c = 0; (c = std::fgetc(file)) != EOF;) lines += c == '\n' ? 1U : 0U;
  std::fclose(file);
  return lines;
}

// Of a file whose size is no multiple of the kernel's page as well, only its own mapping stays.
TEST(SharedMemory, MappingLeavesNoAddressSpaceBehind) {
  (void)count_mappings();
  for (const std::size_t bytes : {std::size_t{4096}, std::size_t{8192}, std::size_t{1} << 20, (std::size_t{1} << 20) + 20'480}) {
    int fd = -1;
    ASSERT_EQ(real().create_nameless(SegmentId{{6}}, bytes, 4096, &fd), 0);
    const std::size_t before = count_mappings();
    void* base = nullptr;
    ASSERT_EQ(real().map(fd, bytes, 4096, true, &base), 0);
    EXPECT_LE(count_mappings(), before + 1) << bytes;
    EXPECT_EQ(real().unmap(base, bytes), 0);
    EXPECT_EQ(count_mappings(), before) << bytes;
    real().close(fd);
  }
}

// Of a file that a transparent huge page ends, the kernel counts all of that page. In a /dev/shm of its own, which has such.
TEST(SharedMemory, WhatAHugePageHasPastTheEndIsTold) {
  enum End { k_right, k_wrong, k_no_place, k_no_huge_page };
  constexpr std::size_t k_huge = std::size_t{2} << 20;
  constexpr std::size_t k_bytes = k_huge + 12'288;
  if (real().page_size() != 4096) GTEST_SKIP() << "huge pages of this kernel are larger";
  const pid_t child = ::fork();
  if (child == 0) {
    test::end_if_hung(20);
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", "/dev/shm", "tmpfs", 0, "huge=always") != 0) {
      ::_exit(k_no_place);
    }
    int fd = -1;
    void* base = nullptr;
    if (real().create_named(k_bytes, &fd) != 0 || real().map(fd, k_bytes, 4096, true, &base) != 0) ::_exit(k_wrong);
    const auto told = [&](std::size_t* held, std::size_t* past) {
      SegmentFile file;
      if (real().describe(fd, &file) != 0 || real().held_past_end(fd, k_bytes, past) != 0) ::_exit(k_wrong);
      *held = file.held;
    };
    std::size_t held = 0;
    std::size_t past = 0;
    told(&held, &past);
    if (held != 0 || past != 0) ::_exit(k_wrong);
    // Memory that is set aside is not resident yet.
    if (real().set_aside(fd, k_bytes) != 0) ::_exit(k_wrong);
    static_cast<volatile char*>(base)[0] = 1;
    static_cast<volatile char*>(base)[k_huge] = 1;
    told(&held, &past);
    if (past == 0) ::_exit(held == k_bytes ? k_no_huge_page : k_wrong);
    std::size_t resident = 0;
    if (real().resident(base, k_bytes, &resident) != 0) ::_exit(k_wrong);
    ::_exit(resident == k_bytes && held - past == resident ? k_right : k_wrong);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  if (WEXITSTATUS(status) == k_no_place) GTEST_SKIP() << "a mount namespace takes root";
  if (WEXITSTATUS(status) == k_no_huge_page) GTEST_SKIP() << "this kernel has no huge page for it";
  EXPECT_EQ(WEXITSTATUS(status), k_right);
}

TEST(Liveness, SelfChildZombieAndGone) {
  ProcessIdentity self;
  ASSERT_EQ(real().identify(::getpid(), &self), 0);
  EXPECT_NE(self.start, 0U);
  EXPECT_EQ(real().liveness(::getpid(), self), Liveness::alive);
  ProcessIdentity earlier = self;
  --earlier.start;
  EXPECT_EQ(real().liveness(::getpid(), earlier), Liveness::dead);
  ProcessIdentity elsewhere = self;
  ++elsewhere.namespace_;
  EXPECT_EQ(real().liveness(::getpid(), elsewhere), Liveness::unknown);

  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    (void)!::read(pipe_ends[0], &byte, 1);
    ::_exit(0);
  }
  ProcessIdentity of_child;
  ASSERT_EQ(real().identify(child, &of_child), 0);
  EXPECT_EQ(real().liveness(child, of_child), Liveness::alive);
  ::kill(child, SIGKILL);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(real().liveness(child, of_child), Liveness::dead) << "a zombie";
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(real().liveness(child, of_child), Liveness::dead);
  EXPECT_EQ(real().identify(child, &of_child), ESRCH);
}

TEST(Liveness, AnotherProgramInTheSameProcessIsNotTheSame) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    (void)!::read(ready[0], &byte, 1);
    ::execl("/bin/sleep", "sleep", "30", nullptr);
    ::_exit(1);
  }
  ProcessIdentity before;
  ASSERT_EQ(real().identify(child, &before), 0);
  EXPECT_EQ(real().liveness(child, before), Liveness::alive);
  ASSERT_EQ(::write(ready[1], "x", 1), 1);
  Liveness after = Liveness::alive;
  for (int tries = 0; tries < 200 && after == Liveness::alive; ++tries) {
    ::usleep(10000);
    after = real().liveness(child, before);
  }
  EXPECT_EQ(after, Liveness::dead);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace rtpool::os
