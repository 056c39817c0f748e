// Every part of a job runs exactly once, whoever runs it; jobs work beside one another and after a fork.
#include "copy/workers.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>
#include <vector>

#include "base/sanitizers.hpp"
#include "patience.hpp"

namespace rtpool::copy {
namespace {

struct CountingJob : Job {
  explicit CountingJob(unsigned count) : runs(count) {
    parts = count;
    run_part = [](Job& job, unsigned part) noexcept { ++static_cast<CountingJob&>(job).runs[part]; };
    finish = [](Job& job) noexcept { static_cast<CountingJob&>(job).finished.fetch_add(1); };
  }
  bool each_once() const {
    for (const int n : runs) {
      if (n != 1) return false;
    }
    return true;
  }
  std::vector<int> runs;  // plain ints: the end of run_job must order them for the caller
  std::atomic<unsigned> finished{0};
};

TEST(Workers, RunEveryPartOnce) {
  for (const unsigned threads : {1U, 2U, 3U, 7U, 100U}) {
    for (const unsigned parts : {0U, 1U, 2U, 5U, 64U, 1000U}) {
      CountingJob job(parts);
      run_job(job, threads);
      ASSERT_TRUE(job.each_once()) << threads << " threads, " << parts << " parts";
      ASSERT_LE(job.finished.load(), threads);
      ASSERT_EQ(job.finished.load() >= 1, parts > 0);
    }
  }
  EXPECT_LE(helper_count(), k_max_threads - 1);
  EXPECT_GE(helper_count(), 1U);
}

TEST(Workers, RunJobsOfManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int k = 0; k < 200; ++k) {
        CountingJob job(16);
        run_job(job, 3);
        ASSERT_TRUE(job.each_once());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// ThreadSanitizer does not allow threads to be started after a fork of a process with several.
#ifndef RTPOOL_THREAD_SANITIZER
TEST(Workers, StartAgainInAChild) {
  CountingJob before(8);
  run_job(before, 3);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    bool good = helper_count() == 0;
    for (int i = 0; i < 50; ++i) {
      CountingJob job(32);
      run_job(job, 3);
      good = good && job.each_once();
    }
    good = good && helper_count() == 2;
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  CountingJob after(8);
  run_job(after, 3);
  EXPECT_TRUE(after.each_once());
}

TEST(Workers, ForkInTheMiddleOfAJobLeavesTheChildUsable) {
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop.load()) {
      CountingJob job(64);
      run_job(job, 3);
    }
  });
  for (int i = 0; i < 30; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      test::end_if_hung(20);  // a deadlock ends by signal
      CountingJob job(64);
      run_job(job, 3);
      ::_exit(job.each_once() ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  stop.store(true);
  other.join();
}
#endif

}  // namespace
}  // namespace rtpool::copy
