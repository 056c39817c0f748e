// Which place made the block at an address, and when: a word a page for large blocks, a word a unit of 64 bytes for small
// ones, found by subtraction.
//
// Addresses are reserved for all of a pool's; memory is committed as far as the pool's blocks reach (whoever locks all memory
// of the process locks what is committed), and becomes resident where it is used: 0.2 % of what large blocks take, an eighth
// of what small ones take. `make_resident` does so beforehand, `discard` gives it back.
//
// Thread rule: all but begin and release by any thread, these by one alone. Cost: one store or load; a kernel
// call or two where a pool has reached further than ever before. Failure: an errno value from those that speak to the
// kernel; a block whose word cannot be kept has none (0).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/bits.hpp"
#include "os/memory.hpp"

namespace rtpool::trace {

// Place and time of an allocation in one word; the time is kept to 42 bits of the trace's units, some hours.
struct Origin {
  static constexpr unsigned k_time_bits = 42;
  static constexpr std::uint64_t k_time_mask = (std::uint64_t{1} << k_time_bits) - 1;

  static constexpr std::uint64_t pack(std::uint32_t place, std::uint64_t time) noexcept {
    return std::uint64_t{place} << k_time_bits | (time & k_time_mask);
  }
  static constexpr std::uint32_t place(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word >> k_time_bits); }
  static constexpr std::uint64_t age(std::uint64_t word, std::uint64_t now) noexcept { return (now - word) & k_time_mask; }
};
inline constexpr std::uint32_t k_most_places = std::uint32_t{1} << (64 - Origin::k_time_bits);

class Origins {
 public:
  enum class Table : std::uint8_t { large, small };
  // Larger blocks have their words in the one table, others in the other.
  static constexpr std::size_t k_largest_small = 4032;  // as blocks/size_class.hpp; a debug pool's blocks go by it as well

  int begin(os::Memory& memory, const void* first, std::size_t bytes) noexcept;
  void release(os::Memory& memory) noexcept;
  // For the first `bytes` of the addresses, or for those of one table from `begin` to `end`, counted from the first.
  int make_resident(os::Memory& memory, std::size_t bytes) noexcept;
  int make_resident(os::Memory& memory, Table table, std::size_t begin, std::size_t end) noexcept;
  // All words are 0 afterwards. What is set meanwhile may stay.
  void discard(os::Memory& memory) noexcept;

  // `size` decides between the two tables: the same for a block's `set` and `get`. `may_wait`: whether the kernel may be called.
  void set(const void* block, std::size_t size, std::uint64_t word, bool may_wait) noexcept {
    if (RTPOOL_UNLIKELY(!is_covered(block)) && (!may_wait || cover(offset(block) + 1) != 0)) return;
    at(block, size).store(word, std::memory_order_relaxed);
  }
  std::uint64_t get(const void* block, std::size_t size) const noexcept {
    return is_covered(block) ? at(block, size).load(std::memory_order_relaxed) : 0;
  }
  bool covers(const void* block) const noexcept { return offset(block) < bytes_; }

 private:
  using Word = std::atomic<std::uint64_t>;
  static constexpr std::size_t k_unit = 64;

  std::size_t offset(const void* block) const noexcept {
    return static_cast<std::size_t>(static_cast<const char*>(block) - static_cast<const char*>(first_));
  }
  Word& at(const void* block, std::size_t size) const noexcept {
    return size > k_largest_small ? pages_[offset(block) / os::k_page_size] : units_[offset(block) / k_unit];
  }

  bool is_covered(const void* block) const noexcept { return offset(block) < covered_.load(std::memory_order_acquire); }
  int cover(std::size_t bytes) noexcept;  // commits what the first `bytes` of the addresses need

  os::Memory* memory_ = nullptr;
  std::atomic<std::size_t> covered_{0};
  const void* first_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t reserved_ = 0;
  Word* pages_ = nullptr;
  Word* units_ = nullptr;
};

}  // namespace rtpool::trace
