// Which pool an address belongs to, as a Python object; and the default pool.
#include <atomic>

#include "numpy_handler/pool/pool_type.hpp"

namespace rtpool::binding {
namespace {

// Asks the finders of other kinds of pools in the order they were added. A new reference; None when no one knows it.
PyObject* ask_finders(PyObject* finders, void* address) noexcept {
  if (PyList_GET_SIZE(finders) == 0) Py_RETURN_NONE;
  const Reference copy(PyList_AsTuple(finders));
  const Reference number(PyLong_FromVoidPtr(address));
  if (!copy || !number) return nullptr;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(copy.get()); ++i) {
    Reference found(PyObject_CallOneArg(PyTuple_GET_ITEM(copy.get(), i), number.get()));
    if (!found || found.get() != Py_None) return found.release();
  }
  Py_RETURN_NONE;
}

// owner(array) -> pool or None. The data's address decides, so views, and arrays over memory of other arrays, answer as
// the array that holds the memory.
PyObject* owner(PyObject* module, PyObject* array) {
  if (!PyArray_Check(array)) {
    PyErr_Format(PyExc_TypeError, "owner() needs a NumPy array, not %.200s", Py_TYPE(array)->tp_name);
    return nullptr;
  }
  ModuleState* state = state_of(module);
  void* address = PyArray_DATA(reinterpret_cast<PyArrayObject*>(array));
  if (pool::Pool* core = pool::Pool::find(address); core != nullptr) return object_of_pool(state, core);
  return ask_finders(state->owner_finders, address);
}

// _add_owner_finder(callable): (address) -> pool or None, asked by `owner` about memory that is not a core pool's.
PyObject* add_owner_finder(PyObject* module, PyObject* finder) {
  if (!PyCallable_Check(finder)) {
    PyErr_SetString(PyExc_TypeError, "_add_owner_finder needs a callable (address) -> pool or None");
    return nullptr;
  }
  if (PyList_Append(state_of(module)->owner_finders, finder) < 0) return nullptr;
  Py_RETURN_NONE;
}

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
    {"owner", owner, METH_O, nullptr},
    {"default_pool", get_default_pool, METH_NOARGS, nullptr},
    {"_add_owner_finder", add_owner_finder, METH_O, nullptr},
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

int register_owner(PyObject* module) {
  ModuleState* state = state_of(module);
  state->owner_finders = PyList_New(0);
  if (state->owner_finders == nullptr) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace rtpool::binding
