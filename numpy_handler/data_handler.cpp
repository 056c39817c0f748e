#include "data_handler.hpp"

#include <cstring>

#include "pool_type.hpp"

namespace rtpool::binding {
namespace {

pool::Pool* pool_of(void* context) noexcept { return static_cast<pool::Pool*>(context); }

void* data_malloc(void* context, size_t size) { return pool_of(context)->allocate(size); }

void* data_calloc(void* context, size_t count, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
  return pool_of(context)->allocate_zeroed(bytes);
}

void* data_realloc(void* context, void* block, size_t size) { return pool_of(context)->resize(block, size); }

void data_free(void* context, void* block, size_t /* wrong in practice */) { pool_of(context)->release(block); }

void destroy_capsule(PyObject* capsule) {
  if (is_finalizing()) return;
  const SavedException saved;
  auto* handler = static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, k_handler_capsule_name));
  if (handler == nullptr) {
    PyErr_WriteUnraisable(capsule);
    return;
  }
  pool_of(handler->allocator.ctx)->drop_reference();
  PyMem_RawFree(handler);
}

}  // namespace

PyObject* make_handler_capsule(pool::Pool* pool) noexcept {
  auto* handler = static_cast<PyDataMem_Handler*>(PyMem_RawCalloc(1, sizeof(PyDataMem_Handler)));
  if (handler == nullptr) {
    pool->drop_reference();
    return PyErr_NoMemory();
  }
  std::strcpy(handler->name, k_handler_name);
  handler->version = 1;
  handler->allocator = {pool, data_malloc, data_calloc, data_realloc, data_free};
  PyObject* capsule = PyCapsule_New(handler, k_handler_capsule_name, destroy_capsule);
  if (capsule == nullptr) {
    PyMem_RawFree(handler);
    pool->drop_reference();
  }
  return capsule;
}

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
