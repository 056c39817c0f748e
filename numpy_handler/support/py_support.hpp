// What every binding file needs of Python: an owned reference, and the differences between Python 3.10 and 3.14 in one
// place. Thread rule: everything here needs an attached thread state (the GIL, where there is one). Nothing throws.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <utility>

namespace rtpool::binding {

// Owns one reference or none. Moves, does not copy.
class Reference {
 public:
  Reference() = default;
  explicit Reference(PyObject* stolen) noexcept : object_(stolen) {}
  Reference(Reference&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Reference& operator=(Reference&& other) noexcept {
    PyObject* old = std::exchange(object_, std::exchange(other.object_, nullptr));
    Py_XDECREF(old);
    return *this;
  }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  ~Reference() { Py_XDECREF(object_); }

  static Reference borrow(PyObject* object) noexcept { return Reference(Py_XNewRef(object)); }

  PyObject* get() const noexcept { return object_; }
  PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// Keeps the exception that is set, if any, over code that must run in a destructor; gives it back at the end.
class SavedException {
 public:
#if PY_VERSION_HEX >= 0x030C0000
  SavedException() noexcept : raised_(PyErr_GetRaisedException()) {}
  ~SavedException() { PyErr_SetRaisedException(raised_); }
#else
  SavedException() noexcept { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~SavedException() { PyErr_Restore(type_, value_, traceback_); }
#endif
  SavedException(const SavedException&) = delete;
  SavedException& operator=(const SavedException&) = delete;

 private:
#if PY_VERSION_HEX >= 0x030C0000
  PyObject* raised_;
#else
  PyObject* type_ = nullptr;
  PyObject* value_ = nullptr;
  PyObject* traceback_ = nullptr;
#endif
};

// Runs other threads while it lives. No Python call may be made inside its scope.
class WithoutGil {
 public:
  WithoutGil() noexcept : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

inline bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// The object a weak reference points to; empty, without an exception, when it is gone.
inline Reference weak_target(PyObject* weak) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* target = nullptr;
  if (PyWeakref_GetRef(weak, &target) < 0) PyErr_Clear();
  return Reference(target);
#else
  PyObject* target = PyWeakref_GetObject(weak);
  return target == Py_None ? Reference() : Reference::borrow(target);
#endif
}

// The value under `key` as an owned reference; empty without an exception when there is none, with one on failure.
inline Reference dict_item(PyObject* dict, PyObject* key) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* value = nullptr;
  (void)PyDict_GetItemRef(dict, key, &value);
  return Reference(value);
#else
  return Reference::borrow(PyDict_GetItemWithError(dict, key));
#endif
}

// The module whose definition is `definition` among the classes of `type`, borrowed; TypeError when there is none.
inline PyObject* module_by_definition(PyTypeObject* type, PyModuleDef* definition) noexcept {
#if PY_VERSION_HEX >= 0x030B0000
  return PyType_GetModuleByDef(type, definition);
#else
  PyObject* bases = type->tp_mro;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bases); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(bases, i));
    if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE)) continue;
    PyObject* module = reinterpret_cast<PyHeapTypeObject*>(base)->ht_module;
    if (module != nullptr && PyModule_GetDef(module) == definition) return module;
  }
  PyErr_Format(PyExc_TypeError, "%.200s is no type of rtpool", type->tp_name);
  return nullptr;
#endif
}

// Appends `methods` to the table that a type is made of; the table's last entry stays empty.
template <std::size_t n>
void join_methods(PyMethodDef (&table)[n], const PyMethodDef* methods) noexcept {
  std::size_t used = 0;
  while (table[used].ml_name != nullptr) ++used;
  for (; methods->ml_name != nullptr && used + 1 < n; ++methods) table[used++] = *methods;
}

}  // namespace rtpool::binding

// One writer at a time on free-threaded builds; nothing where the GIL does it.
#if PY_VERSION_HEX >= 0x030D0000
#define RTPOOL_BEGIN_EXCLUSIVE(object) Py_BEGIN_CRITICAL_SECTION(object)
#define RTPOOL_END_EXCLUSIVE() Py_END_CRITICAL_SECTION()
#else
#define RTPOOL_BEGIN_EXCLUSIVE(object) {
#define RTPOOL_END_EXCLUSIVE() }
#endif
