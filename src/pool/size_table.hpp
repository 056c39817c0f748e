// Counts by size: open addressing over sizes, for learning and for the misses of a frozen pool.
//
// Thread rule: the caller's lock. Cost: O(1) expected. Failure: a full table that may not grow counts under size 0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::pool {

struct SizeCount {
  std::uint64_t size = 0;  // the key; 0 in place 0 of the table only: everything that found no place
  std::uint64_t requested = 0;
  std::int64_t alive = 0;
  std::uint64_t most_alive = 0;
  std::uint64_t count = 0;
  std::uint64_t zeroed = 0;
};

class SizeTable {
 public:
  // Empty, with room for `places` sizes (a power of two); false: no memory.
  bool reset(std::size_t places, bool may_grow) noexcept;
  void clear() noexcept;
  // The entry of that size, made if need be.
  SizeCount& at(std::uint64_t size) noexcept;
  // Calls `function` for each entry in use, in no order.
  template <class Function>
  void for_each(Function&& function) const noexcept {
    if (other_.count != 0) function(other_);
    for (std::size_t i = 0; i < places_; ++i) {
      if (entries_[i].size != 0) function(entries_[i]);
    }
  }
  std::size_t size() const noexcept { return used_ + (other_.count != 0 ? 1 : 0); }
  bool ready() const noexcept { return entries_ != nullptr; }
  ~SizeTable() { clear(); }
  SizeTable() = default;
  SizeTable(const SizeTable&) = delete;
  SizeTable& operator=(const SizeTable&) = delete;

 private:
  SizeCount* entries_ = nullptr;
  SizeCount other_;
  std::size_t places_ = 0;
  std::size_t used_ = 0;
  bool may_grow_ = false;
};

}  // namespace rtpool::pool
