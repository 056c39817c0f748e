// Which pool an address belongs to: as a Python object for `rtpool.owner`, as a handler for the default handler.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"

namespace rtpool::binding {

// Finds the handler whose memory contains an address, nullptr if none does. Called from NumPy's free and realloc, by any
// thread, with or without Python state: no Python, no lock that may be held for long.
using FindHandler = PyDataMem_Handler* (*)(const void* address) noexcept;

// Adds a kind of pools besides those of `_core.Pool`, which are known already. At most k_max_address_finders; false
// beyond. Thread rule: with the GIL held, while the module loads.
inline constexpr int k_max_address_finders = 4;
bool add_address_finder(FindHandler finder) noexcept;

// Asks the finders in the order they were added; nullptr when none knows the address. Thread rule: as FindHandler.
PyDataMem_Handler* find_handler(const void* address) noexcept;

}  // namespace rtpool::binding
