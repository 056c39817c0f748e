#include "numpy_handler/handler/capsules.hpp"

#include <cstring>

#include "numpy_handler/pool/pool_type.hpp"

namespace rtpool::binding {

PyDataMem_Handler* handler_of_capsule(PyObject* capsule, const char* what) noexcept {
  if (!PyCapsule_CheckExact(capsule)) {
    PyErr_Format(PyExc_TypeError, "%s must be a pool, a capsule named \"%s\" or None, not %.200s", what,
                 k_handler_capsule_name, Py_TYPE(capsule)->tp_name);
    return nullptr;
  }
  const char* name = PyCapsule_GetName(capsule);
  if (name == nullptr && PyErr_Occurred()) return nullptr;
  if (name == nullptr || std::strcmp(name, k_handler_capsule_name) != 0) {
    PyErr_Format(PyExc_ValueError, "%s is a capsule named \"%.200s\"; NumPy's handlers are in capsules named \"%s\"",
                 what, name == nullptr ? "" : name, k_handler_capsule_name);
    return nullptr;
  }
  return static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, k_handler_capsule_name));
}

PyObject* capsule_of(ModuleState* state, PyObject* source, const char* what) noexcept {
  if (is_pool(state, source)) return Py_NewRef(pool_object(source)->capsule);
  Reference capsule(PyObject_GetAttrString(source, "_capsule"));
  if (capsule && handler_of_capsule(capsule.get(), what) != nullptr) return capsule.release();
  if (!capsule && !PyErr_ExceptionMatches(PyExc_AttributeError)) return nullptr;
  if (!capsule) {
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "%s must be a pool (rtpool.Pool, rtpool.SharedPool) or None, not %.200s", what,
                 Py_TYPE(source)->tp_name);
  }
  return nullptr;
}

}  // namespace rtpool::binding
