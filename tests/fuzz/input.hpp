// Turns the bytes of a fuzzer's input into operations: numbers, sizes at the places where allocators break, choices.
//
// Every byte means something, so that a mutation changes an operation instead of invalidating the input. A read past the
// end gives zeros and `empty` says so.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) noexcept : at_(data), end_(data + size) {}

  bool empty() const noexcept { return at_ == end_; }
  std::uint8_t byte() noexcept { return empty() ? 0 : *at_++; }
  std::uint16_t word() noexcept {
    const std::uint16_t low = byte();
    return static_cast<std::uint16_t>(low | byte() << 8);
  }
  std::uint32_t double_word() noexcept {
    const std::uint32_t low = word();
    return low | static_cast<std::uint32_t>(word()) << 16;
  }
  std::uint64_t quad_word() noexcept {
    const std::uint64_t low = double_word();
    return low | static_cast<std::uint64_t>(double_word()) << 32;
  }
  // In [0, bound); 0 if bound is 0.
  std::size_t below(std::size_t bound) noexcept {
    if (bound <= 1) return 0;
    return (bound <= 256 ? byte() : word()) % bound;
  }
  // Bytes asked of an allocator: mostly small, often next to a boundary between size classes or page counts, seldom absurd.
  std::size_t request() noexcept {
    const unsigned kind = byte();
    switch (kind % 8) {
      case 0:
      case 1: return word() % 4200;
      case 2: return edge(64 * (1 + byte() % 64), kind);
      case 3: return edge(4096 * (1 + std::size_t{byte()} % 16), kind);
      case 4: return edge(4096 * (1 + std::size_t{byte()}), kind);
      case 5: return std::size_t{word()} * 32;
      case 6: return edge(std::size_t{byte()} << 16, kind);
      default: return kind < 128 ? edge(std::size_t{1} << byte() % 64, kind) : SIZE_MAX - word();
    }
  }

 private:
  static std::size_t edge(std::size_t size, unsigned kind) noexcept { return size + kind / 8 % 3 - 1; }

  const std::uint8_t* at_;
  const std::uint8_t* const end_;
};

}  // namespace rtpool::fuzz
