// `_core.SharedPool`: the Python object over a shared pool, and the capsule by which NumPy draws from it.
//
// Thread rule: everything here needs an attached thread state; the four functions of the capsule need none.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::binding {

struct SharedPoolObject {
  PyObject_HEAD
  ModuleState* state;
  shared::SharedPool* core;  // one reference of this object's
  PyObject* capsule;         // "mem_handler"; holds a reference of its own
  PyObject* weak_references;
  bool closed;
};

inline SharedPoolObject* shared_pool_object(PyObject* object) noexcept {
  return reinterpret_cast<SharedPoolObject*>(object);
}

// Methods by purpose, each list ended by an empty entry; shared_pool_type.cpp joins them.
extern PyMethodDef k_shared_pool_report_methods[];    // shared_pool_methods.cpp
extern PyMethodDef k_shared_pool_exchange_methods[];  // shared_array_type.cpp

}  // namespace rtpool::binding
