// Promises of os/priority_lock: one holder at a time, also across the slow paths, and a usable lock in a forked child.
#include "os/priority_lock.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "patience.hpp"

namespace rtpool::os {
namespace {

TEST(PriorityLock, OneHolderAtATime) {
  PriorityLock lock;
  long count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 50000; ++turn) {
        lock.lock();
        ++count;
        if (turn % 1000 == 0) std::this_thread::yield();  // so that others come to wait
        lock.unlock();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 200000);
}

TEST(PriorityLock, TriesWithoutWaiting) {
  PriorityLock lock;
  ASSERT_TRUE(lock.try_lock());
  std::thread([&] { EXPECT_FALSE(lock.try_lock()); }).join();
  lock.unlock();
  std::thread([&] {
    EXPECT_TRUE(lock.try_lock());
    lock.unlock();
  }).join();
}

TEST(PriorityLock, NewAfterAFork) {
  PriorityLock lock;
  lock.lock();
  const pid_t child = ::fork();
  if (child == 0) {
    test::end_if_hung(10);
    PriorityLock::forget_thread();
    lock.reset_after_fork();
    lock.lock();
    lock.unlock();
    ::_exit(0);
  }
  int status = 1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  lock.unlock();
}

}  // namespace
}  // namespace rtpool::os
