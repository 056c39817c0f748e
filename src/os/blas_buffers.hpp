// The OS contract for what OpenBLAS works in: a buffer for each thread that is in one of its routines at that moment.
//
// OpenBLAS maps one the first time that so many threads are inside at once, which may come hours into a program, and keeps
// it. How much of each a program needs shows in what it has used, and in how OpenBLAS divides products of common sizes.
#pragma once

#include <cstddef>

namespace rtpool::os {

struct BlasBuffers {
  std::size_t libraries = 0;  // loaded copies of OpenBLAS
  std::size_t buffers = 0;    // ready in each of them
  std::size_t bytes = 0;      // made resident now
};

// Has every loaded OpenBLAS map buffers for as many callers at once as the process has threads, at most 32, and makes as
// much of each resident as any of them has been used so far, in whichever copy (NumPy and SciPy bring one each), and at least
// the first 4 MiB if any has been used at all. Any thread. Costs the faults that would have come later, and some 50 us a buffer.
BlasBuffers make_blas_buffers_ready() noexcept;

// What is loaded that multiplies matrices.
struct BlasLibraries {
  std::size_t loaded = 0;
  std::size_t with_shared_buffers = 0;  // an OpenBLAS that lets them be asked for: a call takes one that no other call is in
};
BlasLibraries blas_libraries() noexcept;

}  // namespace rtpool::os
