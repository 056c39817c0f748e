// Address space that the interpreter's allocator has reserved and holds nothing in.
//
// Thread rule: a thread that is attached. Cost: reads /proc/self/maps. Failure: nothing is told.
#pragma once

#include <cstddef>

#include "os/memory.hpp"

namespace rtpool::binding {

// Appends to `out`, by address; how many. Free-threaded builds only; elsewhere there is nothing of that kind.
std::size_t reserved_for_objects(os::AddressRange* out, std::size_t capacity) noexcept;
// The mapping in which objects are made on free-threaded builds; empty elsewhere, and where it is not known.
os::AddressRange mapping_of_objects() noexcept;

}  // namespace rtpool::binding
