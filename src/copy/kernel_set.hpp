// The kernels by name, for the dispatcher alone; callers use copy/kernel.hpp.
#pragma once

#include "copy/kernel.hpp"

namespace rtpool::copy {

extern const Kernel k_portable_kernel;
#ifdef RTPOOL_COPY_X86
extern const Kernel k_sse2_kernel;
extern const Kernel k_avx2_kernel;
extern const Kernel k_avx512_kernel;
// Asked before anything of the set's own file runs, so they live in the dispatcher's, compiled for any machine.
bool has_sse2() noexcept;
bool has_avx2() noexcept;
bool has_avx512() noexcept;
#endif
#ifdef RTPOOL_COPY_NEON
extern const Kernel k_neon_kernel;
#endif

}  // namespace rtpool::copy
