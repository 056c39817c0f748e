// `_core.Pool`: the Python object over a core pool. `rtpool.Pool` derives from it and adds units, texts and docs.
//
// A Python object holds its pool through one handler capsule. Several Python objects may stand for one core pool (the
// first may be gone while arrays live on): they compare equal.
#pragma once

#include "numpy_handler/pool/common.hpp"
#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"
#include "pool/pool.hpp"

namespace rtpool::binding {

using PoolObject = ObjectOver<pool::Pool>;

inline PoolObject* pool_object(PyObject* object) noexcept { return object_over<pool::Pool>(object); }

inline bool is_pool(const ModuleState* state, PyObject* object) noexcept {
  return PyObject_TypeCheck(object, state->pool_type);
}

// The Python object of a core pool that the caller knows to be alive: the one that exists, else a new one. A new
// reference, or nullptr with an exception.
PyObject* object_of_pool(ModuleState* state, pool::Pool* core) noexcept;

// Methods of `_core.Pool` by purpose, each list ended by an empty entry; pool_type.cpp joins them.
extern PyMethodDef k_pool_report_methods[];   // reports.cpp: figures out of the pool
extern PyMethodDef k_pool_control_methods[];  // controls.cpp: what changes the pool

}  // namespace rtpool::binding
