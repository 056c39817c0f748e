#include "numpy_handler/pool/default_pool.hpp"

#include <atomic>

#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/pool/register.hpp"

namespace rtpool::binding {
namespace {

// _set_default_pool_maker(callable): () -> pool, called at the first need of the default pool.
PyObject* set_default_pool_maker(PyObject* module, PyObject* maker) {
  ModuleState* state = state_of(module);
  RTPOOL_BEGIN_EXCLUSIVE(module);
  Py_XSETREF(state->default_pool_maker, Py_NewRef(maker));
  RTPOOL_END_EXCLUSIVE();
  Py_RETURN_NONE;
}

PyObject* get_default_pool(PyObject* module, PyObject*) { return default_pool(state_of(module)); }

PyMethodDef functions[] = {
    {"default_pool", get_default_pool, METH_NOARGS, nullptr},
    {"_set_default_pool_maker", set_default_pool_maker, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyObject* default_pool(ModuleState* state) noexcept {
  const std::atomic_ref<PyObject*> slot(state->default_pool);
  if (PyObject* made = slot.load(std::memory_order_acquire); made != nullptr) return Py_NewRef(made);
  if (state->default_pool_maker == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "the default pool needs the package rtpool; import it first");
    return nullptr;
  }
  Reference pool(PyObject_CallNoArgs(state->default_pool_maker));
  if (!pool) return nullptr;
  if (!is_pool(state, pool.get())) {
    PyErr_Format(PyExc_TypeError, "the default pool must be a pool, not %.200s", Py_TYPE(pool.get())->tp_name);
    return nullptr;
  }
  PyObject* first = nullptr;
  // Two threads may have made one each: the first stays, the other goes with its reference.
  if (slot.compare_exchange_strong(first, pool.get(), std::memory_order_acq_rel)) return Py_NewRef(pool.release());
  return Py_NewRef(first);
}

int register_default_pool(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
