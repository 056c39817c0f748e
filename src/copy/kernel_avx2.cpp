// AVX2: half a line a store.
#include <immintrin.h>

#include "copy/kernel_loop.hpp"
#include "copy/kernel_set.hpp"

namespace rtpool::copy {
namespace {

struct Vector {
  using Value = __m256i;
  static constexpr std::size_t k_bytes = 32;
  static Value load(const std::byte* at) noexcept { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }
  static void store(std::byte* at, Value value) noexcept { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), value); }
  static void stream(std::byte* at, Value value) noexcept {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(at), value);
  }
};

void fence() noexcept { _mm_sfence(); }

}  // namespace

const Kernel k_avx2_kernel = {"avx2", true, has_avx2, copy_rows_cached<Vector>, copy_rows_streaming<Vector>, fence};

}  // namespace rtpool::copy
