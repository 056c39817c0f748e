// Which pool an address belongs to: as a Python object for `rtpool.owner`, as functions for the default handler.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"

namespace rtpool::binding {

// The pool whose memory holds an address, or None. A new reference, or nullptr with an exception. Thread rule: as py_support.hpp.
PyObject* pool_at(ModuleState* state, void* address) noexcept;

// Gives the four functions of the pool whose memory contains an address; false, and nothing given, if none does. Called from
// NumPy's free and realloc, by any thread, with or without Python state: no Python, no lock that may be held for long.
using FindAllocator = bool (*)(const void* address, PyDataMemAllocator* out) noexcept;

// Adds a kind of pools besides those of `_core.Pool`, which are known already. At most k_max_address_finders; false
// beyond. Thread rule: with the GIL held, while the module loads.
inline constexpr int k_max_address_finders = 4;
bool add_address_finder(FindAllocator finder) noexcept;

// Asks the finders in the order they were added. Result and thread rule: as FindAllocator.
bool find_allocator(const void* address, PyDataMemAllocator* out) noexcept;

}  // namespace rtpool::binding
