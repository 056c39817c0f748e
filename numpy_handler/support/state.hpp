// What the module keeps: its types, and the few objects that all of its parts share.
//
// Thread rule: the types and the context variable are set while the module loads and never change. `default_pool` is
// set once and read through `std::atomic_ref`. Everything else is read and written in RTPOOL_BEGIN_EXCLUSIVE of the
// module.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

struct ModuleState {
  PyTypeObject* pool_type;       // _core.Pool
  PyTypeObject* handler_type;    // _core.Handler
  PyTypeObject* shared_pool_type;   // _core.SharedPool
  PyTypeObject* shared_array_type;  // _core.SharedArray
  PyTypeObject* opened_array_type;  // _core._OpenedArray, what arrays sent by reference are unpickled by
  PyTypeObject* shared_block_type;  // _core.SharedBlock, the base of opened arrays
  PyObject* creation_failure;    // exception: (step, errno, asked, got)
  PyObject* handler_stack;       // ContextVar: what the entered handlers of this context replaced
  PyObject* explain_refusal;     // callable (exception): tells why a pool refused this thread's last request
  PyObject* pools;               // dict: id of a core pool -> weak reference to its Python object
  PyObject* pool_class;          // the class of Python objects made for core pools that lost theirs
  PyObject* owner_finders;       // list of callables (address) -> pool or None, for pools of other kinds
  PyObject* default_pool;        // set once
  PyObject* default_pool_maker;  // callable () -> pool
  PyObject* active_pool;         // what `activate` was given, while it is on
  PyObject* numpy_copyto;        // NumPy's own, for everything that is no plain copy of bytes
  PyTypeObject* tick_type;       // _core.Tick
  PyTypeObject* histogram_type;  // _core.Histogram
};

// The definition of `rtpool._core` (module/module.cpp); its address identifies our types.
extern PyModuleDef core_module;

inline ModuleState* state_of(PyObject* module) noexcept { return static_cast<ModuleState*>(PyModule_GetState(module)); }

// The state behind an instance's type, also for Python subclasses; nullptr with an exception when it is not ours.
inline ModuleState* state_of(PyTypeObject* type) noexcept {
  PyObject* module = module_by_definition(type, &core_module);
  return module == nullptr ? nullptr : state_of(module);
}

// Hands `visit` a reference to each member. Stops where it answers other than 0, and gives that answer.
template <typename Visit>
int for_each_member(ModuleState* state, Visit visit) noexcept {
  const auto all = [&](auto&... members) {
    int answer = 0;
    (void)(((answer = visit(members)) != 0) || ...);
    return answer;
  };
  return all(state->pool_type, state->handler_type, state->shared_pool_type, state->shared_array_type,
             state->opened_array_type, state->shared_block_type, state->creation_failure, state->handler_stack,
             state->pools, state->pool_class, state->owner_finders, state->default_pool, state->default_pool_maker,
             state->active_pool, state->numpy_copyto, state->tick_type, state->histogram_type);
}

}  // namespace rtpool::binding
