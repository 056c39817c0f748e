// SSE2: what every 64-bit x86 processor has.
#include <immintrin.h>

#include "copy/kernel_loop.hpp"
#include "copy/kernel_set.hpp"

namespace rtpool::copy {
namespace {

struct Vector {
  using Value = __m128i;
  static constexpr std::size_t k_bytes = 16;
  static Value load(const std::byte* at) noexcept { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }
  static void store(std::byte* at, Value value) noexcept { _mm_storeu_si128(reinterpret_cast<__m128i*>(at), value); }
  static void stream(std::byte* at, Value value) noexcept { _mm_stream_si128(reinterpret_cast<__m128i*>(at), value); }
};

void fence() noexcept { _mm_sfence(); }

}  // namespace

const Kernel k_sse2_kernel = {"sse2", true, has_sse2, copy_rows_cached<Vector>, copy_rows_streaming<Vector>, fence};

}  // namespace rtpool::copy
