// Arithmetic on powers of two and bit positions. All functions are O(1), never fail, any thread.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace rtpool::base {

constexpr bool is_power_of_two(std::size_t n) noexcept { return n != 0 && (n & (n - 1)) == 0; }
// `alignment` must be a power of two. Wraps around when n is within `alignment` of SIZE_MAX: callers bound n first.
constexpr std::size_t align_up(std::size_t n, std::size_t alignment) noexcept { return (n + alignment - 1) & ~(alignment - 1); }
constexpr std::size_t align_down(std::size_t n, std::size_t alignment) noexcept { return n & ~(alignment - 1); }
constexpr std::size_t divide_up(std::size_t n, std::size_t divisor) noexcept { return n / divisor + (n % divisor != 0); }
// Position of the highest set bit; n must not be 0.
constexpr unsigned log2_floor(std::uint64_t n) noexcept { return 63U - static_cast<unsigned>(std::countl_zero(n)); }
// Position of the lowest set bit; n must not be 0.
constexpr unsigned lowest_bit(std::uint64_t n) noexcept { return static_cast<unsigned>(std::countr_zero(n)); }

}  // namespace rtpool::base

#define RTPOOL_LIKELY(x) __builtin_expect(static_cast<bool>(x), 1)
#define RTPOOL_UNLIKELY(x) __builtin_expect(static_cast<bool>(x), 0)
// Of two ways that are both common, the one without a jump.
#define RTPOOL_FIRST(x) __builtin_expect_with_probability(static_cast<bool>(x), 1, 0.6)
