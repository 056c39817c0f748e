// The shared pools this process has open.
//
// Thread rule: everything else under `Lock`. Around a fork the lock is held, so the child finds the list whole.
// Cost: O(number of pools).
#pragma once

#include "shared/shared_pool.hpp"

namespace rtpool::shared {

struct Registry {
  class Lock {
   public:
    Lock() noexcept;
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
  };
  static void install_fork_handlers() noexcept;
  static void add(SharedPool* pool) noexcept;
  static void remove(SharedPool* pool) noexcept;
  // With one more reference; nullptr when there is none, or its last reference goes just now.
  static SharedPool* find(const os::SegmentId& id) noexcept;
  // Without a reference.
  static SharedPool* find(const void* address) noexcept;
  // As that, for blocks the caller knows to be alive: takes no lock, so it may be called from a free.
  static SharedPool* find_block(const void* address) noexcept;
  static SharedPool* first() noexcept;
  static SharedPool* next(const SharedPool* pool) noexcept { return pool->next_; }
};

}  // namespace rtpool::shared
