#include "numpy_handler/pool/owner.hpp"

#include <atomic>

#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/pool/register.hpp"

namespace rtpool::binding {
namespace {

std::atomic<FindAllocator> address_finders[k_max_address_finders];

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
  return pool_at(state_of(module), PyArray_DATA(reinterpret_cast<PyArrayObject*>(array)));
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

PyMethodDef functions[] = {
    {"owner", owner, METH_O, nullptr},
    {"_add_owner_finder", add_owner_finder, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyObject* pool_at(ModuleState* state, void* address) noexcept {
  if (pool::Pool* core = pool::Pool::find(address); core != nullptr && !core->in_object_arena(address)) {
    return object_of_pool(state, core);
  }
  return ask_finders(state->owner_finders, address);
}

bool add_address_finder(FindAllocator finder) noexcept {
  for (auto& slot : address_finders) {
    FindAllocator empty = nullptr;
    if (slot.compare_exchange_strong(empty, finder, std::memory_order_acq_rel)) return true;
  }
  return false;
}

bool find_allocator(const void* address, PyDataMemAllocator* out) noexcept {
  for (const auto& slot : address_finders) {
    const FindAllocator finder = slot.load(std::memory_order_acquire);
    if (finder == nullptr) break;
    if (finder(address, out)) return true;
  }
  return false;
}

int register_owner(PyObject* module) {
  ModuleState* state = state_of(module);
  state->owner_finders = PyList_New(0);
  if (state->owner_finders == nullptr) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace rtpool::binding
