// `_core.SharedPool`: the Python object over a shared pool, and the capsule by which NumPy draws from it.
//
// Thread rule: everything here needs an attached thread state; the four functions of the capsule need none.
#pragma once

#include "numpy_handler/pool/common.hpp"
#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::binding {

struct SharedPoolObject {
  ObjectOver<shared::SharedPool> pool;  // has a reference of its own besides the capsule's
  bool closed;
};

inline SharedPoolObject* shared_pool_object(PyObject* object) noexcept {
  return reinterpret_cast<SharedPoolObject*>(object);
}

// Methods by purpose, each list ended by an empty entry; pool_type.cpp joins them.
extern PyMethodDef k_shared_pool_report_methods[];    // pool_methods.cpp
extern PyMethodDef k_shared_pool_exchange_methods[];  // array_type.cpp

}  // namespace rtpool::binding
