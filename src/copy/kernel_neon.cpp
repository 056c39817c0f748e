// NEON: what every 64-bit Arm processor has. Streams by pairs of vectors with a non-temporal hint.
#include <arm_neon.h>

#include "copy/kernel_loop.hpp"
#include "copy/kernel_set.hpp"

namespace rtpool::copy {
namespace {

struct Vector {
  struct Value {
    uint8x16_t low;
    uint8x16_t high;
  };
  static constexpr std::size_t k_bytes = 32;
  static Value load(const std::byte* at) noexcept {
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(at);
    return {vld1q_u8(bytes), vld1q_u8(bytes + 16)};
  }
  static void store(std::byte* at, Value value) noexcept {
    auto* const bytes = reinterpret_cast<std::uint8_t*>(at);
    vst1q_u8(bytes, value.low);
    vst1q_u8(bytes + 16, value.high);
  }
  // No intrinsic makes this pair in all compilers.
  static void stream(std::byte* at, Value value) noexcept {
    asm volatile("stnp %q1, %q2, %0" : "=Q"(*reinterpret_cast<std::byte(*)[32]>(at)) : "w"(value.low), "w"(value.high));
  }
};

// The hint changes nothing about order: these are stores as any others, which a release orders too.
void fence() noexcept { __atomic_thread_fence(__ATOMIC_RELEASE); }

bool supported() noexcept { return true; }

}  // namespace

// Not chosen by itself: what the hint is worth differs from one processor to the next, and none has been measured.
const Kernel k_neon_kernel = {"neon", true, supported, copy_rows_cached<Vector>, copy_rows_streaming<Vector>, fence, false};

}  // namespace rtpool::copy
