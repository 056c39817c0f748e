// What this machine can stream: bare loops of non-temporal copies, without anything around them. bench/copies.py compiles
// and calls it; it shares no code with rtpool on purpose. Rows must be multiples of 128 bytes, destinations of 32.
#include <immintrin.h>

#include <cstddef>

namespace {

inline void stream(char* dst, const char* src, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 128) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i + 32));
    const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i + 64));
    const __m256i d = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i + 96));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(dst + i), a);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(dst + i + 32), b);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(dst + i + 64), c);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(dst + i + 96), d);
  }
}

}  // namespace

// `count` images of `rows` contiguous rows of `row_bytes`, side by side in a canvas of `pitch` bytes a row.
extern "C" void limit_tiles(char* canvas, std::size_t pitch, const char* const* images, std::size_t count, std::size_t rows,
                            std::size_t row_bytes) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t row = 0; row < rows; ++row) {
      stream(canvas + row * pitch + i * row_bytes, images[i] + row * row_bytes, row_bytes);
    }
  }
  _mm_sfence();
}

// The same bytes, one image behind the other.
extern "C" void limit_flat(char* canvas, const char* const* images, std::size_t count, std::size_t image_bytes) {
  for (std::size_t i = 0; i < count; ++i) stream(canvas + i * image_bytes, images[i], image_bytes);
  _mm_sfence();
}
