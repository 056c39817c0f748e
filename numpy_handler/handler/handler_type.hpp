// `_core.Handler`: entering it makes a pool NumPy's handler for this context, leaving it restores what was before.
//
// One handler object may be entered many times, by many threads and tasks at once: what was replaced is not kept in
// the object but on a stack in a context variable. An entry of that stack is an immutable tuple
// (handler, replaced capsule, entry below or None), so copies of a context share entries without harm.
//
//   HS-1: the entries of a context, from the top, are the handlers entered and not yet left in it, last one first.
//   HS-2: the replaced capsule of an entry is what becomes current when the entry is left as the top.
//   HS-3: leaving an entry below the top (a generator that was suspended inside the block) takes it out and hands its
//         replaced capsule to the entry above; what is current does not change.
#pragma once

#include <atomic>

#include "numpy_handler/support/state.hpp"

namespace rtpool::binding {

struct HandlerObject {
  PyObject_HEAD
  ModuleState* state;
  PyObject* source;             // what was given: a pool, an object with a capsule; nullptr for the default pool
  PyObject* capsule;            // its capsule; nullptr for the default pool and with per_thread
  PyObject* thread_local_pool;  // threading.local with attribute `pool`; nullptr without per_thread
  std::atomic<Py_ssize_t> entered;  // entries not yet left, in all contexts
};

}  // namespace rtpool::binding
