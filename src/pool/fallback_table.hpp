// The live blocks that the fallback allocator served for a pool: address -> size.
//
// Why a table: `release` must tell them from foreign pointers without touching memory that may not be there, and
// zero_on_free needs their size. Thread rule: any thread (own lock). Cost: O(1) expected; memory from libc. Failure: `add`
// returns false when there is no memory for the table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/priority_lock.hpp"

namespace rtpool::pool {

class FallbackTable {
 public:
  bool add(void* block, std::size_t size) noexcept;
  // Takes the block out; false if it is not there.
  bool remove(void* block, std::size_t* size) noexcept;
  bool find(const void* block, std::size_t* size) noexcept;
  template <class Function>
  void for_each(Function&& function) noexcept {  // (block, size); the lock is held
    lock_.lock();
    for (std::size_t i = 0; i < places_; ++i) {
      if (entries_[i].block != nullptr) function(entries_[i].block, entries_[i].size);
    }
    lock_.unlock();
  }
  // Blocks in the tables of all pools.
  static std::size_t count_of_all() noexcept { return __atomic_load_n(&all_, __ATOMIC_RELAXED); }
  std::size_t count() const noexcept { return __atomic_load_n(&used_, __ATOMIC_RELAXED); }
  os::PriorityLock& lock() noexcept { return lock_; }

  FallbackTable() = default;
  FallbackTable(const FallbackTable&) = delete;
  FallbackTable& operator=(const FallbackTable&) = delete;
  ~FallbackTable();

 private:
  struct Entry {
    void* block;
    std::size_t size;
  };
  std::size_t place_of(const void* block) const noexcept;

  static inline constinit std::size_t all_ = 0;

  os::PriorityLock lock_;
  Entry* entries_ = nullptr;
  std::size_t places_ = 0;
  std::size_t used_ = 0;
};

}  // namespace rtpool::pool
