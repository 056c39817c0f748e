// `_core.Pool`: the Python object over a core pool. `rtpool.Pool` derives from it and adds units, texts and docs.
//
// A Python object holds its pool through one handler capsule. Several Python objects may stand for one core pool (the
// first may be gone while arrays live on): they compare equal.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"
#include "pool/pool.hpp"

namespace rtpool::binding {

struct PoolObject {
  PyObject_HEAD
  ModuleState* state;        // lives as long as the type, and so as long as this object
  pool::Pool* core;          // kept by the capsule
  PyObject* capsule;         // "mem_handler"; holds one reference to the core pool
  PyObject* weak_references;
};

inline PoolObject* pool_object(PyObject* object) noexcept { return reinterpret_cast<PoolObject*>(object); }

inline bool is_pool(const ModuleState* state, PyObject* object) noexcept {
  return PyObject_TypeCheck(object, state->pool_type);
}

// The Python object of a core pool that the caller knows to be alive: the one that exists, else a new one. A new
// reference, or nullptr with an exception.
PyObject* object_of_pool(ModuleState* state, pool::Pool* core) noexcept;

// Methods of `_core.Pool` by purpose, each list ended by an empty entry; pool_type.cpp joins them.
extern PyMethodDef k_pool_report_methods[];   // pool_reports.cpp: figures out of the pool
extern PyMethodDef k_pool_control_methods[];  // pool_controls.cpp: what changes the pool

// What `_stats()` and `_effective()` answer, also for pools of other kinds. A new reference, or nullptr with an exception.
PyObject* stats_tuple(const pool::Stats& counters) noexcept;
PyObject* effective_tuple(const pool::Effective& force) noexcept;

// Adds STATS_FIELDS, the names of what `_stats()` answers, in its order. 0, or -1 with an exception.
int add_stats_fields(PyObject* module) noexcept;

}  // namespace rtpool::binding
