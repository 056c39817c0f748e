// The capsule by which NumPy's arrays draw their data from a pool.
#pragma once

#include "numpy_api.hpp"
#include "pool/pool.hpp"
#include "state.hpp"

namespace rtpool::binding {

// The name arrays made inside `rtpool.handler()` answer to `get_handler_name`.
inline constexpr const char* k_handler_name = "rtpool";

// A new capsule over `pool`, or nullptr with an exception. It takes over one reference to the pool, also when it
// fails. Every array made through it holds the capsule; when the last holder goes, the reference is dropped, except
// while the interpreter ends: then the pool stays, since frees may still come.
PyObject* make_handler_capsule(pool::Pool* pool) noexcept;

// The handler inside a capsule, or nullptr with TypeError / ValueError saying what `what` should have been.
PyDataMem_Handler* handler_of_capsule(PyObject* capsule, const char* what) noexcept;

// The capsule of anything that has one: a pool, or an object with the attribute `_capsule`. A new reference, or nullptr
// with TypeError.
PyObject* capsule_of(ModuleState* state, PyObject* source, const char* what) noexcept;

}  // namespace rtpool::binding
