// Promises of os/priority_lock: one holder at a time, also across the slow paths, and a usable lock in a forked child.
#include "os/priority_lock.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
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

// Some hold it for so long that others go to sleep, and threads of real-time priority, where they may be had, take part.
TEST(PriorityLock, WhoSleepsIsWoken) {
  constexpr int k_threads = 8;
  constexpr int k_turns = 3000;
  PriorityLock lock;
  long count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < k_threads; ++t) {
    threads.emplace_back([&, t] {
      sched_param priority{};
      priority.sched_priority = 1;
      if (t < 2) (void)::sched_setscheduler(0, SCHED_FIFO, &priority);
      for (int turn = 0; turn < k_turns; ++turn) {
        lock.lock();
        ++count;
        if (turn % 100 == t) std::this_thread::sleep_for(std::chrono::microseconds(200));
        lock.unlock();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, k_threads * k_turns);
  EXPECT_FALSE(lock.wanted());
}

// The last one of real-time priority that it was handed over to wakes who sleeps beside it.
TEST(PriorityLock, WhoSleepsIsWokenByWhoHadItHandedOver) {
  for (int round = 0; round < 20; ++round) {
    PriorityLock lock;
    lock.lock();
    std::atomic<bool> realtime{false};
    std::thread favoured([&] {
      sched_param priority{};
      priority.sched_priority = 1;
      (void)::sched_setscheduler(0, SCHED_FIFO, &priority);
      realtime = true;
      lock.lock();
      lock.unlock();
    });
    std::thread other([&] {
      lock.lock();
      lock.unlock();
    });
    while (!realtime) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // both sleep by then; if not, nothing is shown
    lock.unlock();
    favoured.join();
    other.join();
    EXPECT_FALSE(lock.wanted());
  }
}

// While a holder can be told that others wait, whether they sleep already or not.
TEST(PriorityLock, SaysThatItIsWanted) {
  PriorityLock lock;
  lock.lock();
  EXPECT_FALSE(lock.wanted());
  std::thread other([&] {
    lock.lock();
    lock.unlock();
  });
  while (!lock.wanted()) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(lock.wanted());
  lock.unlock();
  other.join();
  EXPECT_FALSE(lock.wanted());
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
