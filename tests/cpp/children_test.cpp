// Promises of os/children.hpp against the kernel itself: whoever starts a thread or a process, by whichever way, it begins
// with what it is to begin with. What this machine does not permit is skipped by name.
#include "os/children.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

extern char** environ;

namespace rtpool::os {
namespace {

int processors() {
  cpu_set_t set;
  return scheduling().thread_affinity(&set) == 0 ? CPU_COUNT(&set) : -1;
}

Policy policy() {
  ThreadScheduling now;
  return scheduling().thread_scheduling(&now) == 0 ? now.policy : Policy::unknown;
}

class Children : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(scheduling().thread_affinity(&affinity_), 0);
    ASSERT_EQ(scheduling().thread_scheduling(&scheduling_), 0);
    all_ = CPU_COUNT(&affinity_);
    if (all_ < 2) GTEST_SKIP() << "one processor: every child has the same";
    int first = 0;
    while (!CPU_ISSET(first, &affinity_)) ++first;
    CPU_ZERO(&settings_.own_affinity);
    CPU_SET(first, &settings_.own_affinity);
    settings_.affinity = true;
    settings_.child_affinity = affinity_;
    settings_.child_scheduling = scheduling_;
    ASSERT_EQ(scheduling().set_thread_affinity(settings_.own_affinity), 0);
    separate();
  }
  void TearDown() override {
    ChildSettings ours;
    EXPECT_EQ(scheduling().exchange_child_settings({}, &ours), 0);
    EXPECT_EQ(scheduling().set_thread_scheduling(scheduling_), 0);
    EXPECT_EQ(scheduling().set_thread_affinity(affinity_), 0);
  }
  void separate() {
    ChildSettings before;
    const int error = scheduling().exchange_child_settings(settings_, &before);
    if (error == ENOSYS) GTEST_SKIP() << "calls of libraries are not seen on this machine";
    ASSERT_EQ(error, 0);
  }
  // False where the machine does not permit it.
  bool raise(bool reset_on_fork) {
    settings_.own_scheduling = {Policy::fifo, 3, 0, reset_on_fork};
    settings_.scheduling = true;
    if (scheduling().set_thread_scheduling(settings_.own_scheduling) != 0) return false;
    separate();
    return true;
  }
  void expect_still_own() const {
    cpu_set_t now;
    ASSERT_EQ(scheduling().thread_affinity(&now), 0);
    EXPECT_TRUE(CPU_EQUAL(&now, &settings_.own_affinity));
    EXPECT_TRUE(!settings_.scheduling || policy() == Policy::fifo);
  }
  // A program that succeeds if it may use all processors and is no real-time one.
  std::string program() const { return "test $(nproc) = " + std::to_string(all_) + " && ! chrt -p $$ | grep -q FIFO"; }

  cpu_set_t affinity_;
  ThreadScheduling scheduling_;
  ChildSettings settings_;
  int all_ = 0;
};

int run_by_vfork(char* const* arguments) {
  const pid_t child = ::vfork();
  if (child == 0) {
    ::execve("/there/is/no/such/program", arguments, environ);
    ::execve(arguments[0], arguments, environ);
    ::_exit(9);
  }
  int status = -1;
  return ::waitpid(child, &status, 0) == child ? status : -1;
}

struct Seen {
  int processors = 0;
  Policy policy = Policy::unknown;
};

void* look(void* out) {
  *static_cast<Seen*>(out) = {processors(), policy()};
  return nullptr;
}

TEST_F(Children, ThreadsBeginWithTheirOwn) {
  for (int round = 0; round < 3; ++round) {
    if (round > 0 && !raise(round == 1)) GTEST_SKIP() << "SCHED_FIFO refused";
    Seen seen;
    pthread_t thread;
    ASSERT_EQ(::pthread_create(&thread, nullptr, look, &seen), 0);
    ASSERT_EQ(::pthread_join(thread, nullptr), 0);
    EXPECT_EQ(seen.processors, all_);
    EXPECT_EQ(seen.policy, scheduling_.policy);
    seen = {};
    std::thread(look, &seen).join();  // from within the C++ library
    EXPECT_EQ(seen.processors, all_);
    EXPECT_EQ(seen.policy, scheduling_.policy);
    expect_still_own();
  }
}

TEST_F(Children, ForkedProcessesBeginWithTheirOwn) {
  for (int round = 0; round < 3; ++round) {
    if (round > 0 && !raise(round == 1)) GTEST_SKIP() << "SCHED_FIFO refused";
    const pid_t child = ::fork();
    if (child == 0) ::_exit(processors() == all_ && policy() == scheduling_.policy ? 0 : 1);
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    expect_still_own();
  }
}

TEST_F(Children, ProgramsBeginWithTheirOwn) {
  for (int round = 0; round < 3; ++round) {
    if (round > 0 && !raise(round == 1)) GTEST_SKIP() << "SCHED_FIFO refused";
    const std::string text = program();
    EXPECT_EQ(::system(text.c_str()), 0);
    char shell[] = "/bin/sh", flag[] = "-c";
    char* const arguments[] = {shell, flag, const_cast<char*>(text.c_str()), nullptr};
    pid_t child = -1;
    int status = -1;
    ASSERT_EQ(::posix_spawn(&child, shell, nullptr, nullptr, arguments, environ), 0);
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    FILE* const pipe = ::popen(text.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    EXPECT_EQ(::pclose(pipe), 0);
    EXPECT_EQ(run_by_vfork(arguments), 0);
    expect_still_own();
  }
}

TEST_F(Children, WhatTheThreadHasSetItselfMeanwhileIsItsChildrens) {
  cpu_set_t other = affinity_;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &settings_.own_affinity)) CPU_CLR(i, &other);
  }
  ASSERT_EQ(scheduling().set_thread_affinity(other), 0);
  Seen seen;
  std::thread(look, &seen).join();
  EXPECT_EQ(seen.processors, all_ - 1);
  cpu_set_t now;
  ASSERT_EQ(scheduling().thread_affinity(&now), 0);
  EXPECT_TRUE(CPU_EQUAL(&now, &other));
}

TEST_F(Children, OtherThreadsAreNotConcerned) {
  std::thread([this] {
    EXPECT_EQ(scheduling().set_thread_affinity(settings_.own_affinity), 0);
    Seen seen;
    std::thread(look, &seen).join();
    EXPECT_EQ(seen.processors, 1);
  }).join();
}

TEST_F(Children, AfterwardsTheyInheritAsEver) {
  ChildSettings ours;
  ASSERT_EQ(scheduling().exchange_child_settings({}, &ours), 0);
  EXPECT_TRUE(ours.affinity);
  Seen seen;
  std::thread(look, &seen).join();
  EXPECT_EQ(seen.processors, 1);
}

}  // namespace
}  // namespace rtpool::os
