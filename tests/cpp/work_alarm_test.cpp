// Promises of os/work_alarm: it sleeps while the process does, ends when that has worked or is told to, and takes no signal that
// is somebody else's.
#include "os/work_alarm.hpp"

#include <gtest/gtest.h>

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <thread>

#include "os/helper_thread.hpp"
#include "os/process_sample.hpp"

namespace rtpool::os {
namespace {

constexpr Nanoseconds k_ms = 1'000'000;

// A thread as the scavenger's, asleep for so much work.
class Sleeper {
 public:
  explicit Sleeper(Nanoseconds work) : work_(work) {
    EXPECT_EQ(thread_.start("sleeper", [](void* self) { static_cast<Sleeper*>(self)->run(); }, this), 0);
    while (!begun) std::this_thread::yield();
  }
  ~Sleeper() { join(); }
  void wake() {
    ++word_;
    alarm_.wake();
  }
  WorkAlarm::Ended join() {
    thread_.join();
    return ended_;
  }
  std::atomic<bool> begun{false};
  std::atomic<bool> over{false};

 private:
  void run() {
    begun = true;
    ended_ = alarm_.sleep_while(word_, 0, work_);
    over = true;
  }
  Nanoseconds work_;
  std::atomic<std::uint32_t> word_{0};
  WorkAlarm alarm_;
  HelperThread thread_;
  WorkAlarm::Ended ended_ = WorkAlarm::Ended::refused;
};

void work_until(const std::atomic<bool>& over, Nanoseconds most) {
  const Nanoseconds end = process_time() + most;
  while (!over && process_time() < end) {
  }
}

TEST(WorkAlarm, EndsWhenTheProcessHasWorkedAndNotBefore) {
  const Nanoseconds before = process_time();
  Sleeper sleeper(100 * k_ms);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // of waiting: right also if it were longer
  EXPECT_FALSE(sleeper.over && process_time() - before < 100 * k_ms);
  work_until(sleeper.over, 10'000 * k_ms);
  EXPECT_TRUE(sleeper.over);
  EXPECT_GE(process_time() - before, 100 * k_ms);
  EXPECT_EQ(sleeper.join(), WorkAlarm::Ended::worked);
}

TEST(WorkAlarm, EndsWhenWokenWhereverTheSleeperIs) {
  for (int i = 0; i < 2000; ++i) {
    Sleeper sleeper(3'600'000 * k_ms);
    if (i % 3 == 1) std::this_thread::yield();
    if (i % 100 == 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    sleeper.wake();
    ASSERT_EQ(sleeper.join(), WorkAlarm::Ended::woken) << i;
  }
}

TEST(WorkAlarm, AWordThatHasChangedIsNotSleptOn) {
  WorkAlarm alarm;
  const std::atomic<std::uint32_t> word{7};
  EXPECT_EQ(alarm.sleep_while(word, 6, 3'600'000 * k_ms), WorkAlarm::Ended::woken);
  alarm.wake();  // nobody
}

TEST(WorkAlarm, LeavesErrnoAlone) {
  WorkAlarm alarm;
  const std::atomic<std::uint32_t> word{1};
  errno = ENOTTY;
  (void)alarm.sleep_while(word, 0, 3'600'000 * k_ms);
  alarm.wake();
  EXPECT_EQ(errno, ENOTTY);
}

// A process of its own for each: the signal's handler is the process's.
std::atomic<int> handled{0};

TEST(WorkAlarm, SignalsOfTheProgramReachTheProgram) {
  ASSERT_EQ(::signal(62, [](int) { ++handled; }), SIG_DFL);
  Sleeper sleeper(3'600'000 * k_ms);
  for (int i = 1; i <= 50; ++i) {
    ASSERT_EQ(::kill(::getpid(), 62), 0);
    for (int tries = 0; handled < i && tries < 10'000; ++tries) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_EQ(handled, i);
  }
  sleeper.wake();
  (void)sleeper.join();
  EXPECT_EQ(handled, 50);
  ::signal(62, SIG_DFL);
}

}  // namespace
}  // namespace rtpool::os
