// Activation: NumPy's own default handler draws from a pool, in every thread at once.
//
// `PyDataMem_DefaultHandler` is a capsule that NumPy exports and every thread starts with. The first activation points
// it to a handler of ours (same name and version as NumPy's), and it stays pointed there: arrays made meanwhile hold
// that capsule. What changes afterwards is only the target of new blocks.
//
//   AC-1: the four functions call the core, the handlers of other pools and NumPy's originals; never Python.
//   AC-2: a block goes back to where it came from: the pool or shared pool its address lies in, the target that had its
//         fallback serve it, else NumPy's originals.
//   AC-3: a target that was in force once is kept until the process ends: a thread may be inside it at any time.
//   AC-4: the capsule is never pointed back.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"

namespace rtpool::binding {

// Finds the handler whose memory contains an address, nullptr if none does. Called from NumPy's free and realloc, by any
// thread, with or without Python state: no Python, no lock that may be held for long.
using FindHandler = PyDataMem_Handler* (*)(const void* address) noexcept;

// Adds a kind of pools whose blocks may come to the default handler; those of the core are known already. At most
// k_max_address_finders; false beyond. Thread rule: with the GIL held, while the module loads.
inline constexpr int k_max_address_finders = 4;
bool add_address_finder(FindHandler finder) noexcept;

}  // namespace rtpool::binding
