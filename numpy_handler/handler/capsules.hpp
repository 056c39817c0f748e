// The capsules by which NumPy's arrays draw their data from somewhere: what is in one, and which one an object has.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"

namespace rtpool::binding {

// The handler inside a capsule, or nullptr with TypeError / ValueError saying what `what` should have been.
PyDataMem_Handler* handler_of_capsule(PyObject* capsule, const char* what) noexcept;

// The capsule of anything that has one: a pool, or an object with the attribute `_capsule`. A new reference, or nullptr
// with TypeError.
PyObject* capsule_of(ModuleState* state, PyObject* source, const char* what) noexcept;

}  // namespace rtpool::binding
