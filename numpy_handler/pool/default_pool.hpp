// The pool that is used where none is named.
#pragma once

#include "numpy_handler/support/state.hpp"

namespace rtpool::binding {

// A new reference, or nullptr with an exception. Made at the first call, by what the package gave as maker.
PyObject* default_pool(ModuleState* state) noexcept;

}  // namespace rtpool::binding
