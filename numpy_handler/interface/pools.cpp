#include "numpy_handler/interface/pools.hpp"

#include <atomic>

#include "interface/functions.hpp"
#include "numpy_handler/handler/activation.hpp"
#include "numpy_handler/handler/capsules.hpp"
#include "numpy_handler/pool/default_pool.hpp"
#include "numpy_handler/pool/owner.hpp"
#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/support/data_handler.hpp"
#include "numpy_handler/support/frames.hpp"

namespace rtpool::binding {
namespace {

using interface::handle_of;
using interface::retain_pool;

// The module's state, which lives as long as the module: until the interpreter ends. nullptr with an exception.
ModuleState* find_state(Reference* module) noexcept {
  *module = Reference(PyImport_ImportModule("rtpool._core"));
  return *module ? state_of(module->get()) : nullptr;
}

// No reference; nullptr: it draws from no pool of ours.
rtpool_pool* handle_of_allocator(const PyDataMemAllocator& from) noexcept {
  if (pool::Pool* const core = HandlerOver<pool::Pool>::core_behind(from); core != nullptr) return handle_of(core);
  shared::SharedPool* const core = HandlerOver<shared::SharedPool>::core_behind(from);
  return core != nullptr ? handle_of(core) : nullptr;
}

// The default pool of the core once it was asked for, with a reference that is never given back: it is to be had after the
// interpreter's end, too.
std::atomic<pool::Pool*> known_default{nullptr};

// nullptr with an exception. Needs an attached thread state.
pool::Pool* make_default() noexcept {
  if (pool::Pool* const made = known_default.load(std::memory_order_acquire); made != nullptr) return made;
  Reference module;
  ModuleState* const state = find_state(&module);
  const Reference object(state != nullptr ? default_pool(state) : nullptr);
  if (!object) return nullptr;
  pool::Pool* const core = pool_object(object.get())->core;
  pool::Pool* first = nullptr;
  if (known_default.compare_exchange_strong(first, core, std::memory_order_acq_rel)) core->add_reference();
  return core;
}

pool::Pool* ask_for_default() noexcept {
  if (Py_IsInitialized() == 0 || is_finalizing()) return nullptr;
  const PyGILState_STATE attached = PyGILState_Ensure();
  pool::Pool* made = nullptr;
  {
    const SavedException saved;
    made = make_default();
    if (made == nullptr) PyErr_WriteUnraisable(nullptr);
  }
  PyGILState_Release(attached);
  return made;
}

rtpool_pool* default_pool_handle() {
  pool::Pool* core = known_default.load(std::memory_order_acquire);
  if (core == nullptr) core = ask_for_default();
  return core != nullptr ? retain_pool(handle_of(core)) : nullptr;
}

rtpool_pool* active_pool_handle() {
  PyDataMemAllocator active;
  return active_allocator(&active) ? retain_pool(handle_of_allocator(active)) : nullptr;
}

rtpool_pool* current_pool_handle() {
  if (attached_thread() == nullptr || is_finalizing()) return active_pool_handle();
  const SavedException saved;
  const Reference capsule(PyDataMem_GetHandler());
  if (!capsule || capsule.get() == PyDataMem_DefaultHandler) {
    PyErr_Clear();
    return active_pool_handle();
  }
  const auto* const handler = static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(capsule.get(), k_handler_capsule_name));
  if (handler == nullptr) PyErr_Clear();
  return handler != nullptr ? retain_pool(handle_of_allocator(handler->allocator)) : nullptr;
}

rtpool_pool* pool_from_object(void* object) {
  auto* const source = static_cast<PyObject*>(object);
  if (source == Py_None) {
    pool::Pool* const core = make_default();
    return core != nullptr ? retain_pool(handle_of(core)) : nullptr;
  }
  Reference module;
  ModuleState* const state = find_state(&module);
  if (state == nullptr) return nullptr;
  const Reference capsule(PyCapsule_CheckExact(source) ? Py_NewRef(source) : capsule_of(state, source, "pool"));
  if (!capsule) return nullptr;
  const PyDataMem_Handler* const handler = handler_of_capsule(capsule.get(), "pool");
  if (handler == nullptr) return nullptr;
  rtpool_pool* const handle = handle_of_allocator(handler->allocator);
  if (handle == nullptr) {
    PyErr_Format(PyExc_TypeError, "pool must be a pool of rtpool or None; the handler \"%.100s\" draws from none", handler->name);
  }
  return retain_pool(handle);
}

void* object_from_pool(rtpool_pool* handle) {
  Reference module;
  ModuleState* const state = find_state(&module);
  if (state == nullptr) return nullptr;
  if (!interface::is_shared(handle)) return object_of_pool(state, interface::private_pool(handle));
  return pool_at(state, interface::shared_pool(handle)->data());
}

}  // namespace

void fill_python_functions(rtpool_api* api) noexcept {
  api->default_pool = default_pool_handle;
  api->active_pool = active_pool_handle;
  api->current_pool = current_pool_handle;
  api->pool_from_object = pool_from_object;
  api->object_from_pool = object_from_pool;
}

}  // namespace rtpool::binding
