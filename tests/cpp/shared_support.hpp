// What the tests of src/shared have in common: pools, and functions that run in a process of their own.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>

#include "large_pages_shared.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::shared {

inline SharedPool* make_pool(std::uint64_t size, const char* name = "", bool fall_back = false) {
  Options options;
  options.size = size;
  options.fall_back = fall_back;
  std::strncpy(options.name, name, sizeof options.name - 1);
  const CreateResult result = SharedPool::create(options, test::machine_shared_memory());
  EXPECT_NE(result.pool, nullptr) << "error " << result.error;
  return result.pool;
}

// Forks; the child runs `work` and ends with its answer. At most 20 s.
template <class Work>
pid_t start_child(Work work) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::alarm(20);
  const int answer = work();
  ::_exit(answer);
}

inline int end_of(pid_t child) {
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

template <class Work>
int in_child(Work work) {
  return end_of(start_child(work));
}

inline void let_go(SharedPool* pool) {
  pool->close();
  pool->drop_reference();
}

// A name for a segment that no other process of the tests uses.
inline std::string own_name(const char* what) { return std::string("test.") + what + "." + std::to_string(::getpid()); }

// After everything of this process was given back and the dead were recovered, every granule is free.
inline void expect_empty(SharedPool* pool) {
  const pool::CheckResult check = pool->check();
  EXPECT_TRUE(check.ok) << check.invariant << ": " << check.text;
  pool->trim();
  const Stats stats = pool->stats();
  EXPECT_EQ(stats.shared_count, 0U);
  EXPECT_EQ(stats.common.current_bytes, 0U);
  EXPECT_EQ(stats.common.largest_free_bytes, pool->geometry().data_bytes);
}

}  // namespace rtpool::shared
