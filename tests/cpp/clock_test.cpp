// Promises of os/clock.hpp against the kernel itself.
#include "os/clock.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <thread>

namespace rtpool::os {
namespace {

TEST(Clock, SleepsUntilTheInstantAndNotBefore) {
  const Nanoseconds until = clock().now() + 3'000'000;
  EXPECT_EQ(clock().sleep_until(until), 0);
  EXPECT_GE(clock().now(), until);
}

TEST(Clock, InstantsThatHavePassedReturnAtOnce) {
  EXPECT_EQ(clock().sleep_until(clock().now() - 1), 0);
  EXPECT_EQ(clock().sleep_until(0), 0);
  EXPECT_EQ(clock().sleep_until(-1), 0);
}

TEST(Clock, SignalsEndASleepWithEintr) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  const pthread_t self = ::pthread_self();
  // Again and again: the first signal may come before the sleep begins.
  std::atomic<bool> awake{false};
  std::thread sender([self, &awake] {
    while (!awake) {
      clock().sleep_until(clock().now() + 5'000'000);
      ::pthread_kill(self, SIGUSR1);
    }
  });
  const Nanoseconds until = clock().now() + 10'000'000'000;
  EXPECT_EQ(clock().sleep_until(until), EINTR);
  EXPECT_LT(clock().now(), until);
  awake = true;
  sender.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}

}  // namespace
}  // namespace rtpool::os
