// Arithmetic on powers of two and bit positions. All functions are O(1), never fail, any thread.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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

// Where a key belongs in a table of so many places, a power of two (Fibonacci hashing).
constexpr std::size_t hash_place(std::uint64_t key, std::size_t places) noexcept {
  return (key * 0x9E3779B97F4A7C15ULL >> 32) & (places - 1);
}

// Which of eight numbers in a row are not `value`: bit i for number i. Without a jump for each.
inline unsigned others_of_eight(const std::uint32_t* numbers, std::uint32_t value) noexcept {
#if defined(__SSE2__)
  const __m128i same = _mm_set1_epi32(static_cast<int>(value));
  const auto* const from = reinterpret_cast<const __m128i*>(numbers);
  const __m128i low = _mm_cmpeq_epi32(_mm_loadu_si128(from), same);
  const __m128i high = _mm_cmpeq_epi32(_mm_loadu_si128(from + 1), same);
  const __m128i bytes = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
  return ~static_cast<unsigned>(_mm_movemask_epi8(bytes)) & 0xFFU;
#else
  unsigned others = 0;
  for (unsigned i = 0; i < 8; ++i) others |= static_cast<unsigned>(numbers[i] != value) << i;
  return others;
#endif
}

// The line is about to be written, and another processor may hold it: one turn between them instead of one to read it and one to
// write it, and several lines at once.
inline void prefetch_to_write(const void* line) noexcept {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));  // does nothing on processors that do not know it
#else
  __builtin_prefetch(line, 1);
#endif
}

}  // namespace rtpool::base

#define RTPOOL_LIKELY(x) __builtin_expect(static_cast<bool>(x), 1)
#define RTPOOL_UNLIKELY(x) __builtin_expect(static_cast<bool>(x), 0)
// From here on the compiler knows nothing of the value, as if it had been read anew; no instruction. What was computed from it
// before is computed again, which is for nothing where it is a part of an address.
#define RTPOOL_OPAQUE(x) asm("" : "+r"(x))
// Of two ways that are both common, the one without a jump.
#define RTPOOL_FIRST(x) __builtin_expect_with_probability(static_cast<bool>(x), 1, 0.6)
#define RTPOOL_SECOND(x) __builtin_expect_with_probability(static_cast<bool>(x), 0, 0.6)
