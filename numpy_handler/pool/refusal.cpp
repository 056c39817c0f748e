// What errors need to tell why a pool refused: the request itself, and who finds the words for it.
#include "pool/refusal.hpp"

#include "numpy_handler/pool/register.hpp"
#include "numpy_handler/support/state.hpp"

namespace rtpool::binding {
namespace {

// take_refusal() -> (pool's _key(), bytes, errno of the kernel or 0, whether the fallback was asked as well) of this thread's
// last refused request, or None; once
PyObject* take_refusal(PyObject*, PyObject*) {
  const pool::Refusal last = pool::take_refusal();
  if (last.pool == nullptr) Py_RETURN_NONE;
  return Py_BuildValue("(NniN)", PyLong_FromVoidPtr(const_cast<void*>(last.pool)), static_cast<Py_ssize_t>(last.size), last.error,
                       PyBool_FromLong(last.passed_on ? 1 : 0));
}

// _set_refusal_explainer(callable): called with each MemoryError that leaves a handler.
PyObject* set_refusal_explainer(PyObject* module, PyObject* explain) {
  ModuleState* state = state_of(module);
  RTPOOL_BEGIN_EXCLUSIVE(module);
  Py_XSETREF(state->explain_refusal, Py_NewRef(explain));
  RTPOOL_END_EXCLUSIVE();
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"take_refusal", take_refusal, METH_NOARGS, nullptr},
    {"_set_refusal_explainer", set_refusal_explainer, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_refusal(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
