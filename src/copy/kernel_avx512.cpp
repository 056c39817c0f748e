// AVX-512F: a whole line a store.
#include <immintrin.h>

#include "copy/kernel_loop.hpp"
#include "copy/kernel_set.hpp"

namespace rtpool::copy {
namespace {

struct Vector {
  using Value = __m512i;
  static constexpr std::size_t k_bytes = 64;
  static Value load(const std::byte* at) noexcept { return _mm512_loadu_si512(at); }
  static void store(std::byte* at, Value value) noexcept { _mm512_storeu_si512(at, value); }
  static void stream(std::byte* at, Value value) noexcept {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(at), value);
  }
};

void fence() noexcept { _mm_sfence(); }

}  // namespace

const Kernel k_avx512_kernel = {"avx512", true, has_avx512, copy_rows_cached<Vector>, copy_rows_streaming<Vector>,
                                fence};

}  // namespace rtpool::copy
