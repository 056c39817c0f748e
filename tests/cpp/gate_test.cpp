// Promises of os/gate: many inside at a time, nobody while it is closed, and one that opens anew in a forked child.
#include "os/gate.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

namespace rtpool::os {
namespace {

TEST(Gate, ManyAreInsideAtATime) {
  Gate gate;
  const Gate::Inside first(gate);
  std::thread([&] { const Gate::Inside second(gate); }).join();
}

TEST(Gate, NobodyIsInsideWhileItIsClosed) {
  Gate gate;
  std::atomic<bool> stop{false};
  std::atomic<int> inside{0};
  std::atomic<unsigned> passed{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        const Gate::Inside now(gate);
        ++inside;
        ++passed;
        --inside;
      }
    });
  }
  while (passed == 0) std::this_thread::yield();
  for (int i = 0; i < 200; ++i) {
    gate.close();
    const unsigned before = passed;
    ASSERT_EQ(inside, 0);
    std::this_thread::yield();
    ASSERT_EQ(inside, 0);
    ASSERT_EQ(passed, before);
    gate.open();
  }
  const unsigned before = passed;
  while (passed == before) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST(Gate, NewInAForkedChild) {
  Gate gate;
  gate.close();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::alarm(10);
    PriorityLock::forget_thread();
    gate.reset_after_fork();
    gate.enter();
    gate.leave();
    gate.close();
    gate.open();
    ::_exit(0);
  }
  gate.open();
  gate.enter();
  gate.leave();
  int status = 1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace rtpool::os
