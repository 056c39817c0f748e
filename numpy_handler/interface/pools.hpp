// The functions of the C interface that need Python, or what this binding knows of pools. Their promises are in rtpool/rtpool.h.
#pragma once

#include <rtpool/rtpool.h>

namespace rtpool::binding {

// Puts in the members from `default_pool` to `current_pool`, and those of Python objects.
void fill_python_functions(rtpool_api* api) noexcept;

}  // namespace rtpool::binding
