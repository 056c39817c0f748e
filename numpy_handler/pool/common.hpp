// What the Python objects over pools of the core have in common, private ones and shared ones: their layout, and the
// methods that only pass on what the core answers. Thread rule: as py_support.hpp.
#pragma once

#include <cstddef>
#include <cstring>

#include "numpy_handler/pool/figures.hpp"
#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"

namespace rtpool::binding {

// The beginning of every such object.
template <class Core>
struct ObjectOver {
  PyObject_HEAD
  ModuleState* state;  // lives as long as the type, and so as long as this object
  Core* core;          // kept by the capsule
  PyObject* capsule;   // "mem_handler"; holds one reference to the core pool
  PyObject* weak_references;
};

template <class Core>
ObjectOver<Core>* object_over(PyObject* object) noexcept {
  return reinterpret_cast<ObjectOver<Core>*>(object);
}

template <class Core>
Core* core_of(PyObject* object) noexcept {
  return object_over<Core>(object)->core;
}

// Equal where they stand for one pool of the core; `k_type` is where the module keeps their type.
template <class Core, PyTypeObject* ModuleState::*k_type>
PyObject* compare_pools(PyObject* left, PyObject* right, int operation) {
  const ModuleState* state = state_of(Py_TYPE(left));
  if (state == nullptr) return nullptr;
  if ((operation != Py_EQ && operation != Py_NE) || !PyObject_TypeCheck(right, state->*k_type)) Py_RETURN_NOTIMPLEMENTED;
  const bool same = core_of<Core>(left) == core_of<Core>(right);
  return PyBool_FromLong(same == (operation == Py_EQ));
}

// `array in pool`
template <class Core>
int pool_contains(PyObject* object, PyObject* array) {
  if (!PyArray_Check(array)) {
    PyErr_Format(PyExc_TypeError, "`in` asks a pool about a NumPy array, not about %.200s", Py_TYPE(array)->tp_name);
    return -1;
  }
  const void* const data = PyArray_DATA(reinterpret_cast<PyArrayObject*>(array));
  const Core* const core = core_of<Core>(object);
  // What lies in an object of Python's own is none of the pool's arrays.
  if constexpr (requires { core->in_object_arena(data); }) {
    if (core->in_object_arena(data)) return 0;
  }
  return core->contains(data) ? 1 : 0;
}

template <class Core>
PyObject* pool_name(PyObject* self, PyObject*) {
  const char* name = core_of<Core>(self)->name();
  return PyUnicode_DecodeUTF8(name, static_cast<Py_ssize_t>(std::strlen(name)), "replace");
}

// _key(): what `_core.take_refusal` calls the pool.
template <class Core>
PyObject* pool_key(PyObject* self, PyObject*) {
  return PyLong_FromVoidPtr(core_of<Core>(self));
}

// _effective(), see effective_tuple
template <class Core>
PyObject* pool_effective(PyObject* self, PyObject*) {
  pool::Effective force;
  {
    const WithoutGil others_run;
    force = core_of<Core>(self)->effective();
  }
  return effective_tuple(force);
}

// _check() -> None, or (invariant, text) of the first one broken
template <class Core>
PyObject* check_pool(PyObject* self, PyObject*) {
  pool::CheckResult result;
  {
    const WithoutGil others_run;
    result = core_of<Core>(self)->check();
  }
  if (result.ok) Py_RETURN_NONE;
  return Py_BuildValue("(ss)", result.invariant, result.text);
}

// _trim() -> bytes given back
template <class Core>
PyObject* trim_pool(PyObject* self, PyObject*) {
  std::size_t given_back = 0;
  {
    const WithoutGil others_run;
    given_back = core_of<Core>(self)->trim();
  }
  return PyLong_FromSize_t(given_back);
}

template <class Core>
PyObject* reset_peak(PyObject* self, PyObject*) {
  core_of<Core>(self)->reset_peak();
  Py_RETURN_NONE;
}

template <class Core>
inline PyMemberDef k_pool_members[] = {
    {"_capsule", T_OBJECT_EX, offsetof(ObjectOver<Core>, capsule), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ObjectOver<Core>, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

// Ended by an empty entry, for join_methods.
template <class Core>
inline PyMethodDef k_common_pool_methods[] = {
    {"_name", pool_name<Core>, METH_NOARGS, nullptr},
    {"_key", pool_key<Core>, METH_NOARGS, nullptr},
    {"_effective", pool_effective<Core>, METH_NOARGS, nullptr},
    {"_check", check_pool<Core>, METH_NOARGS, nullptr},
    {"_trim", trim_pool<Core>, METH_NOARGS, nullptr},
    {"_reset_peak", reset_peak<Core>, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace rtpool::binding
