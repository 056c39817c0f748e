// The places in the program that blocks of a debug pool were made and freed at: each text once, named by a small number.
//
// Thread rule: under the debug layer's lock; `text` by any thread, for a number it has. Cost: O(1) expected; memory from
// libc, about the length of each text. Failure: without memory, or with k_most places kept, further ones are k_unkept.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::pool {

using SiteNumber = std::uint32_t;
inline constexpr SiteNumber k_no_site = 0;
inline constexpr SiteNumber k_unkept_site = 1;

class CallSites {
 public:
  static constexpr std::size_t k_longest = 400;  // of a text
  static constexpr std::uint32_t k_most = 65536;

  CallSites() = default;
  CallSites(const CallSites&) = delete;
  CallSites& operator=(const CallSites&) = delete;
  ~CallSites();

  SiteNumber number_of(const char* text, std::size_t length) noexcept;
  const char* text(SiteNumber number) const noexcept;

 private:
  struct Entry {
    char* text = nullptr;
    std::uint32_t hash = 0;
  };
  bool make_room() noexcept;

  // texts_[number - k_first]; never moved, so that `text` needs no lock.
  static constexpr SiteNumber k_first = 2;
  Entry* texts_ = nullptr;
  std::uint32_t used_ = 0;
  std::uint32_t* places_ = nullptr;  // open addressing: number or 0
  std::uint32_t place_count_ = 0;
};

}  // namespace rtpool::pool
