#include "base/crc32.hpp"

#include <array>
#include <cstring>

namespace rtpool::base {
namespace {

constexpr std::size_t k_slices = 8;
using Table = std::array<std::array<std::uint32_t, 256>, k_slices>;

constexpr Table make_table() noexcept {
  Table table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xEDB88320U : 0U);
    table[0][i] = value;
  }
  for (std::size_t slice = 1; slice < k_slices; ++slice) {
    for (std::size_t i = 0; i < 256; ++i) {
      const std::uint32_t value = table[slice - 1][i];
      table[slice][i] = (value >> 8) ^ table[0][value & 0xFF];
    }
  }
  return table;
}

constexpr Table k_table = make_table();

}  // namespace

std::uint32_t crc32(const void* data, std::size_t bytes, std::uint32_t before) noexcept {
  const auto* at = static_cast<const unsigned char*>(data);
  std::uint32_t value = ~before;
  for (; bytes >= k_slices; bytes -= k_slices, at += k_slices) {  // eight bytes at once, each through a table of its own
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    word ^= value;
    value = 0;
    for (std::size_t i = 0; i < k_slices; ++i) value ^= k_table[k_slices - 1 - i][(word >> (8 * i)) & 0xFF];
  }
  for (; bytes != 0; --bytes) value = (value >> 8) ^ k_table[0][(value ^ *at++) & 0xFF];
  return ~value;
}

}  // namespace rtpool::base
