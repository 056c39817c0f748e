// What the functions of NumPy's own default handler draw from while rtpool is active.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"

namespace rtpool::binding {

// The functions of the active pool, which stays until the process ends; false while none is active. Thread rule: any thread, with
// or without Python state. Cost: two atomic loads.
bool active_allocator(PyDataMemAllocator* out) noexcept;

}  // namespace rtpool::binding
