// The copy loops, written once for any vector type. Included by one file per instruction set, each compiled with that
// set's flags: everything here has internal linkage, because a function shared between those files could be linked in
// the variant that this machine cannot run. For the same reason nothing of the standard library's templates is used.
//
// `Vector` has: k_bytes (16, 32 or 64), Value, load(const std::byte*), store(std::byte*, Value), stream(std::byte*,
// Value); loads and stores at any address, streams at multiples of k_bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "copy/kernel.hpp"

namespace rtpool::copy {
namespace {

template <typename Word>
inline void move_word(std::byte* dst, const std::byte* src) noexcept {
  Word word;
  __builtin_memcpy(&word, src, sizeof word);
  __builtin_memcpy(dst, &word, sizeof word);
}

// Two words that meet or overlap in the middle: `bytes` is between one word and two.
template <typename Word>
inline void move_two_words(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  const std::size_t last = bytes - sizeof(Word);
  Word first_word;
  Word last_word;
  __builtin_memcpy(&first_word, src, sizeof(Word));
  __builtin_memcpy(&last_word, src + last, sizeof(Word));
  __builtin_memcpy(dst, &first_word, sizeof(Word));
  __builtin_memcpy(dst + last, &last_word, sizeof(Word));
}

struct SixteenBytes {
  std::uint64_t low;
  std::uint64_t high;
};

template <typename Vector>
inline void move_two_vectors(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  const std::size_t last = bytes - Vector::k_bytes;
  const typename Vector::Value first_value = Vector::load(src);
  const typename Vector::Value last_value = Vector::load(src + last);
  Vector::store(dst, first_value);
  Vector::store(dst + last, last_value);
}

// Up to four vectors, any length down to 0.
template <typename Vector>
inline void copy_short(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  constexpr std::size_t step = Vector::k_bytes;
  if (bytes >= 2 * step) {
    move_two_vectors<Vector>(dst, src, 2 * step);
    const std::size_t rest = bytes - 2 * step;
    move_two_vectors<Vector>(dst + rest, src + rest, 2 * step);
  } else if (bytes >= step) {
    move_two_vectors<Vector>(dst, src, bytes);
  } else if (step > 32 && bytes >= 32) {
    move_two_words<SixteenBytes>(dst, src, 32);
    move_two_words<SixteenBytes>(dst + bytes - 32, src + bytes - 32, 32);
  } else if (step > 16 && bytes >= 16) {
    move_two_words<SixteenBytes>(dst, src, bytes);
  } else if (bytes >= 8) {
    move_two_words<std::uint64_t>(dst, src, bytes);
  } else if (bytes >= 4) {
    move_two_words<std::uint32_t>(dst, src, bytes);
  } else if (bytes >= 2) {
    move_two_words<std::uint16_t>(dst, src, bytes);
  } else if (bytes == 1) {
    move_word<std::uint8_t>(dst, src);
  }
}

// More than four vectors: an unaligned one, then aligned stores four at a time, then the last four up to the end. The
// ends overlap what the loop writes, with the same bytes.
template <typename Vector>
inline void copy_long(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  constexpr std::size_t step = Vector::k_bytes;
  Vector::store(dst, Vector::load(src));
  const std::size_t head = step - (reinterpret_cast<std::uintptr_t>(dst) & (step - 1));
  std::size_t at = head;
  for (; at + 4 * step < bytes; at += 4 * step) {
    const typename Vector::Value a = Vector::load(src + at);
    const typename Vector::Value b = Vector::load(src + at + step);
    const typename Vector::Value c = Vector::load(src + at + 2 * step);
    const typename Vector::Value d = Vector::load(src + at + 3 * step);
    Vector::store(dst + at, a);
    Vector::store(dst + at + step, b);
    Vector::store(dst + at + 2 * step, c);
    Vector::store(dst + at + 3 * step, d);
  }
  const std::size_t last = bytes - 4 * step;
  move_two_vectors<Vector>(dst + last, src + last, 2 * step);
  move_two_vectors<Vector>(dst + last + 2 * step, src + last + 2 * step, 2 * step);
}

// The same from the last byte to the first.
template <typename Vector>
inline void copy_long_downwards(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  constexpr std::size_t step = Vector::k_bytes;
  Vector::store(dst + bytes - step, Vector::load(src + bytes - step));
  std::size_t at = bytes - (reinterpret_cast<std::uintptr_t>(dst + bytes) & (step - 1));
  for (; at > 4 * step; at -= 4 * step) {
    const typename Vector::Value a = Vector::load(src + at - step);
    const typename Vector::Value b = Vector::load(src + at - 2 * step);
    const typename Vector::Value c = Vector::load(src + at - 3 * step);
    const typename Vector::Value d = Vector::load(src + at - 4 * step);
    Vector::store(dst + at - step, a);
    Vector::store(dst + at - 2 * step, b);
    Vector::store(dst + at - 3 * step, c);
    Vector::store(dst + at - 4 * step, d);
  }
  move_two_vectors<Vector>(dst, src, 2 * step);
  move_two_vectors<Vector>(dst + 2 * step, src + 2 * step, 2 * step);
}

// Upwards, a load soon after a store whose address differs from its own by a multiple of 4096 looks as if it had to
// wait for it. That meets arrays whose places in a page differ by little; downwards the loads are ahead on the other
// side. Long rows also gain a few per cent from it where nothing aliases (Zen 3, 256 KiB and up).
constexpr std::size_t k_downwards_bytes = std::size_t{128} << 10;
constexpr std::size_t k_alias_bytes = 2048;

inline bool goes_downwards(const std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  if (bytes >= k_downwards_bytes) return true;
  const std::uintptr_t ahead = (reinterpret_cast<std::uintptr_t>(dst) - reinterpret_cast<std::uintptr_t>(src)) & 4095;
  return bytes >= k_alias_bytes && ahead != 0 && ahead < 256;
}

template <typename Vector>
inline void copy_row(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  if (bytes <= 4 * Vector::k_bytes) {
    copy_short<Vector>(dst, src, bytes);
  } else if (goes_downwards(dst, src, bytes)) {
    copy_long_downwards<Vector>(dst, src, bytes);
  } else {
    copy_long<Vector>(dst, src, bytes);
  }
}

// Ordinary stores up to the first whole line and behind the last one, so that no line is written in both ways; between
// them each line is written whole, which lets the processor send it to memory without reading it first. No prefetching:
// with the hardware's own at work, every distance tried (512 bytes to a page) was level or slower on Zen 3.
template <typename Vector>
inline void stream_row(std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
  constexpr std::size_t step = Vector::k_bytes;
  static_assert(k_line_bytes % step == 0);
  const std::size_t head =
      (k_line_bytes - (reinterpret_cast<std::uintptr_t>(dst) & (k_line_bytes - 1))) & (k_line_bytes - 1);
  if (head != 0) copy_row<Vector>(dst, src, head);
  std::size_t at = head;
  const std::size_t body_end = head + ((bytes - head) & ~(k_line_bytes - 1));
  for (; at + 2 * k_line_bytes <= body_end; at += 2 * k_line_bytes) {
    typename Vector::Value values[2 * k_line_bytes / step];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * k_line_bytes / step; ++i) values[i] = Vector::load(src + at + i * step);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * k_line_bytes / step; ++i) Vector::stream(dst + at + i * step, values[i]);
  }
  if (at < body_end) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < k_line_bytes / step; ++i)
      Vector::stream(dst + at + i * step, Vector::load(src + at + i * step));
    at += k_line_bytes;
  }
  if (at < bytes) copy_row<Vector>(dst + at, src + at, bytes - at);
}

template <typename Vector>
void copy_rows_cached(const Rows& rows) noexcept {
  std::byte* dst = rows.dst;
  const std::byte* src = rows.src;
  for (std::size_t i = 0; i < rows.count; ++i, dst += rows.dst_step, src += rows.src_step) {
    copy_row<Vector>(dst, src, rows.bytes);
  }
}

template <typename Vector>
void copy_rows_streaming(const Rows& rows) noexcept {
  if (rows.bytes < k_min_stream_row) {
    copy_rows_cached<Vector>(rows);
    return;
  }
  std::byte* dst = rows.dst;
  const std::byte* src = rows.src;
  for (std::size_t i = 0; i < rows.count; ++i, dst += rows.dst_step, src += rows.src_step) {
    stream_row<Vector>(dst, src, rows.bytes);
  }
}

}  // namespace
}  // namespace rtpool::copy
