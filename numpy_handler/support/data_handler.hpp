// NumPy's four data functions over a pool of the core, private or shared, and the capsule that holds them.
//
// The functions call the core and nothing of Python: NumPy calls them from any thread, with or without Python state,
// during garbage collection and at interpreter exit. The sizes NumPy passes to `free` are not looked at.
#pragma once

#include <cstring>

#include "numpy_handler/support/numpy_api.hpp"

namespace rtpool::binding {

// The name arrays made inside `rtpool.handler()` answer to `get_handler_name`.
inline constexpr const char* k_handler_name = "rtpool";

template <class CorePool>
struct HandlerOver {
  static PyDataMemAllocator allocator(CorePool* core) noexcept {
    return {core, data_malloc, data_calloc, data_realloc, data_free};
  }

  // The pool such functions were made over; nullptr: they are others.
  static CorePool* core_behind(const PyDataMemAllocator& from) noexcept {
    return from.malloc == data_malloc ? core_of(from.ctx) : nullptr;
  }

  // A new capsule, or nullptr with an exception. Takes over one reference to the pool, also when it fails.
  static PyObject* make_capsule(CorePool* core) noexcept {
    auto* handler = static_cast<PyDataMem_Handler*>(PyMem_RawCalloc(1, sizeof(PyDataMem_Handler)));
    if (handler == nullptr) {
      core->drop_reference();
      return PyErr_NoMemory();
    }
    std::strcpy(handler->name, k_handler_name);
    handler->version = 1;
    handler->allocator = allocator(core);
    PyObject* capsule = PyCapsule_New(handler, k_handler_capsule_name, destroy_capsule);
    if (capsule == nullptr) {
      PyMem_RawFree(handler);
      core->drop_reference();
    }
    return capsule;
  }

 private:
  static CorePool* core_of(void* context) noexcept { return static_cast<CorePool*>(context); }

  static void* data_malloc(void* context, size_t size) { return core_of(context)->allocate(size); }

  static void* data_calloc(void* context, size_t count, size_t size) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
    return core_of(context)->allocate_zeroed(bytes);
  }

  static void* data_realloc(void* context, void* block, size_t size) { return core_of(context)->resize(block, size); }

  static void data_free(void* context, void* block, size_t /* wrong in practice */) { core_of(context)->release(block); }

  // While the interpreter ends the pool stays: frees may still come.
  static void destroy_capsule(PyObject* capsule) {
    if (is_finalizing()) return;
    const SavedException saved;
    auto* handler = static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, k_handler_capsule_name));
    if (handler == nullptr) {
      PyErr_WriteUnraisable(capsule);
      return;
    }
    core_of(handler->allocator.ctx)->drop_reference();
    PyMem_RawFree(handler);
  }
};

}  // namespace rtpool::binding
