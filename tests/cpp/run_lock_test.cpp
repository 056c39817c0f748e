// Promises of pages/run_lock: one holder at a time, whether it is biased, no longer biased or never was, and whatever becomes of the
// kernel's barrier. (tests/schedules has every order of two threads.)
#include "pages/run_lock.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "fake_memory.hpp"
#include "os/memory.hpp"

namespace rtpool::pages {
namespace {

class RunLockTest : public testing::Test {
 protected:
  void SetUp() override { lock_.initialise(os::memory(), kernel_calls_); }
  // Of `turns` of this thread, and as many of another. `between`: done by the other one half way.
  template <class Between>
  void count(int turns, Between&& between) {
    long sum = 0;
    const auto work = [&] {
      for (int turn = 0; turn < turns; ++turn) {
        const std::lock_guard guard(lock_);
        ++sum;
      }
    };
    std::thread other([&] {
      work();
      between();
      work();
    });
    work();
    work();
    other.join();
    EXPECT_EQ(sum, 4L * turns);
  }

  std::atomic<std::uint64_t> kernel_calls_{0};
  RunLock lock_;
};

TEST_F(RunLockTest, OneHolderAtATimeWhileBiased) {
  lock_.favour_this_thread();
  count(2000, [] {});
  EXPECT_EQ(lock_.favours_this_thread(), !lock_.is_shared());  // ThreadSanitizer does not know the barrier: nobody is favoured then
}

// Who is favoured and is taken for alone once more, as after every so many misses, asks the kernel for nothing.
TEST_F(RunLockTest, WhoIsFavouredPassesNoBarrierAgain) {
  test::FakeMemory memory;
  RunLock lock;
  lock.initialise(memory, kernel_calls_);
  lock.favour_this_thread();
  const int barriers = memory.barriers;
  for (int i = 0; i < 3; ++i) lock.favour_this_thread();
  EXPECT_EQ(memory.barriers, barriers);
  EXPECT_EQ(lock.favours_this_thread(), !lock.is_shared());
}

TEST_F(RunLockTest, OneHolderAtATimeUntilShared) {
  lock_.favour_this_thread();
  count(2000, [&] { lock_.share(); });
  EXPECT_TRUE(lock_.is_shared());
  EXPECT_FALSE(lock_.favours_this_thread());
  const std::uint64_t calls = kernel_calls_;
  count(2000, [] {});
  EXPECT_EQ(kernel_calls_, calls);
  lock_.favour_this_thread();  // for good
  EXPECT_FALSE(lock_.favours_this_thread());
}

TEST_F(RunLockTest, OthersAreNotFavouredWhileOneIs) {
  lock_.favour_this_thread();
  if (lock_.is_shared()) GTEST_SKIP() << "nobody is favoured here";
  std::thread([&] {
    lock_.favour_this_thread();
    EXPECT_FALSE(lock_.favours_this_thread());
    EXPECT_TRUE(lock_.try_lock());
    lock_.unlock();
  }).join();
  EXPECT_TRUE(lock_.favours_this_thread());
}

TEST_F(RunLockTest, TriesDoNotWaitForWhoHoldsTheMutex) {
  lock_.favour_this_thread();
  EXPECT_TRUE(lock_.try_lock());
  lock_.unlock();
  std::atomic<bool> held{false};
  std::atomic<bool> tried{false};
  std::thread other([&] {
    lock_.lock();
    held = true;
    while (!tried) std::this_thread::yield();
    lock_.unlock();
  });
  while (!held) std::this_thread::yield();
  EXPECT_FALSE(lock_.try_lock());
  tried = true;
  other.join();
  EXPECT_TRUE(lock_.try_lock());
  lock_.unlock();
}

TEST_F(RunLockTest, NewInAForkedChild) {
  lock_.favour_this_thread();
  for (const bool favoured : {true, false}) {
    if (!favoured) lock_.share();
    lock_.lock();
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(10);
      os::PriorityLock::forget_thread();
      lock_.reset_after_fork();
      if (lock_.favours_this_thread()) ::_exit(2);
      lock_.lock();
      lock_.unlock();
      lock_.favour_this_thread();
      lock_.lock();
      lock_.unlock();
      ::_exit(lock_.favours_this_thread() == lock_.is_shared() ? 3 : 0);
    }
    lock_.unlock();
    int status = 1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
}

TEST(RunLockWithoutBarrier, NobodyIsFavoured) {
  test::FakeMemory memory;
  memory.barrier_fails = true;
  std::atomic<std::uint64_t> kernel_calls{0};
  RunLock lock;
  lock.initialise(memory, kernel_calls);
  lock.favour_this_thread();
  EXPECT_FALSE(lock.favours_this_thread());
  lock.lock();
  lock.unlock();
}

// A seccomp filter that came after the bias may refuse the barrier.
TEST(RunLockWithoutBarrier, TheBiasEndsWhereTheKernelRefusesTheBarrierLater) {
  test::FakeMemory memory;
  std::atomic<std::uint64_t> kernel_calls{0};
  RunLock lock;
  lock.initialise(memory, kernel_calls);
  lock.favour_this_thread();
  memory.barrier_fails = true;
  std::thread([&] { const std::lock_guard guard(lock); }).join();
  EXPECT_FALSE(lock.favours_this_thread());
  EXPECT_TRUE(lock.is_shared());
  const std::lock_guard guard(lock);
}

}  // namespace
}  // namespace rtpool::pages
