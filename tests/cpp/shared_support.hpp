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
#include "patience.hpp"
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

// Forks; the child runs `work` and ends with its answer, after 20 s at most (patience.hpp).
template <class Work>
pid_t start_child(Work work) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  test::end_if_hung(20);
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

// A block that goes to another process.
struct Sent {
  BlockRef ref;
  Tenancy sender;
};

// Two processes and the pipes by which they take turns. What the maker makes, shares and lets go of, the other one opens.
struct Pair {
  explicit Pair(std::uint64_t size) : Pair() { pool = make_pool(size); }
  // The pool comes later: who is forked before has no part in it yet.
  Pair() {
    EXPECT_EQ(::pipe(to_maker), 0);
    EXPECT_EQ(::pipe(to_other), 0);
  }
  ~Pair() {
    for (const int fd : {to_maker[0], to_maker[1], to_other[0], to_other[1]}) ::close(fd);
    let_go(pool);
  }
  static void tell(const int* pipe) { EXPECT_EQ(::write(pipe[1], "x", 1), 1); }
  static bool wait(const int* pipe) {
    char byte = 0;
    return ::read(pipe[0], &byte, 1) == 1;
  }
  bool make_and_send(std::size_t size) {
    Sent sent;
    BlockRange range;
    void* const block = pool->allocate(size);
    if (block == nullptr || pool->share(block, &sent.ref, &range) != 0 || pool->depart(sent.ref, &sent.sender) != 0) return false;
    std::memset(block, 0x5a, size);
    pool->release(block);
    pool->drop(sent.ref, pool->lineage());
    return ::write(to_other[1], &sent, sizeof sent) == sizeof sent;
  }
  bool receive(BlockRef* ref, BlockRange* range) {
    Sent sent;
    if (::read(to_other[0], &sent, sizeof sent) != sizeof sent) return false;
    *ref = sent.ref;
    return pool->arrive(sent.ref, sent.sender, range) == 0;
  }

  SharedPool* pool = nullptr;
  int to_maker[2];
  int to_other[2];
};

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
