// Activation: NumPy's own default handler draws from a pool, in every thread at once.
//
// `PyDataMem_DefaultHandler` is a capsule that NumPy exports and every thread starts with. The first activation points
// it to a handler of ours (same name and version as NumPy's), and it stays pointed there: arrays made meanwhile hold
// that capsule. What changes afterwards is only the target of new blocks.
//
//   AC-1: the four functions call the core, the handlers of other pools and NumPy's originals; never Python.
//   AC-2: a block goes back to where it came from: the pool or shared pool its address lies in, the target that had its
//         fallback serve it, else NumPy's originals.
//   AC-3: a target that was in force once is kept until the process ends: a thread may be inside it at any time.
//   AC-4: the capsule is never pointed back.
#include <atomic>
#include <cstring>

#include "base/bits.hpp"
#include "base/loads.hpp"
#include "numpy_handler/handler/activation.hpp"
#include "numpy_handler/handler/capsules.hpp"
#include "numpy_handler/handler/register.hpp"
#include "numpy_handler/pool/default_pool.hpp"
#include "numpy_handler/pool/owner.hpp"
#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/support/data_handler.hpp"

namespace rtpool::binding {
namespace {

// NumPy's own handler as it was before the first activation. Written once, before the capsule is redirected.
PyDataMem_Handler original;

// Where new blocks come from. At most one is set; neither: NumPy's originals. AC-3 makes loads without a lock enough.
std::atomic<pool::Pool*> target_pool{nullptr};
std::atomic<PyDataMem_Handler*> target_handler{nullptr};

// The last pool that was a target, also after deactivation: most frees are its own, so it is asked first.
std::atomic<pool::Pool*> likely_owner{nullptr};

// Every pool that was a target, last one first: their fallback may have served blocks that are still alive. Entries are
// added by `activate` alone and stay (AC-3).
struct PastTarget {
  pool::Pool* pool;
  PastTarget* next;
};
std::atomic<PastTarget*> past_targets{nullptr};

// AC-2 for core pools, the likely one first.
pool::Pool* find_pool(const void* address) noexcept {
  pool::Pool* likely = base::pointer_load(likely_owner);
  if (RTPOOL_LIKELY(likely != nullptr && likely->contains(address))) return likely;
  if (pool::Pool* pool = pool::Pool::find(address); pool != nullptr) return pool;
  for (const PastTarget* past = base::pointer_load(past_targets); past != nullptr; past = past->next) {
    if (past->pool->is_fallback_block(address)) return past->pool;
  }
  return nullptr;
}

// AC-2 for everything else.
PyDataMemAllocator allocator_of(const void* block) noexcept {
  PyDataMemAllocator owner = original.allocator;
  (void)find_allocator(block, &owner);
  return owner;
}

// Where blocks come from while no core pool is the target.
const PyDataMemAllocator& other_source() noexcept {
  const PyDataMem_Handler* target = base::pointer_load(target_handler);
  return target != nullptr ? target->allocator : original.allocator;
}

void* default_malloc(void*, size_t size) {
  if (pool::Pool* pool = base::pointer_load(target_pool); RTPOOL_LIKELY(pool != nullptr)) {
    return pool->allocate(size);
  }
  const PyDataMemAllocator& from = other_source();
  return from.malloc(from.ctx, size);
}

void* default_calloc(void*, size_t count, size_t size) {
  if (pool::Pool* pool = base::pointer_load(target_pool); RTPOOL_LIKELY(pool != nullptr)) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
    return pool->allocate_zeroed(bytes);
  }
  const PyDataMemAllocator& from = other_source();
  return from.calloc(from.ctx, count, size);
}

void* default_realloc(void* context, void* block, size_t size) {
  if (block == nullptr) return default_malloc(context, size);
  if (pool::Pool* pool = find_pool(block); pool != nullptr) return pool->resize(block, size);
  const PyDataMemAllocator owner = allocator_of(block);
  return owner.realloc(owner.ctx, block, size);
}

void default_free(void*, void* block, size_t size) {
  if (pool::Pool* pool = find_pool(block); RTPOOL_LIKELY(pool != nullptr)) {
    pool->release(block);
    return;
  }
  const PyDataMemAllocator owner = allocator_of(block);
  owner.free(owner.ctx, block, size);
}

// The handler behind NumPy's default capsule from the first activation on.
PyDataMem_Handler redirected;

// Points NumPy's default capsule to ours, once. False with an exception.
bool redirect() noexcept {
  static bool done = false;
  if (done) return true;
  const PyDataMem_Handler* found = handler_of_capsule(PyDataMem_DefaultHandler, "NumPy's default handler");
  if (found == nullptr) return false;
  original = *found;
  redirected = original;
  redirected.allocator = {nullptr, default_malloc, default_calloc, default_realloc, default_free};
  // Threads without a GIL may read the pointer at any time, and NumPy's store of it is a plain one.
  std::atomic_thread_fence(std::memory_order_release);
  if (PyCapsule_SetPointer(PyDataMem_DefaultHandler, &redirected) < 0) return false;
  done = true;
  return true;
}

// AC-3: this reference is never given back.
void keep_for_ever(PyObject* object) noexcept { (void)Py_NewRef(object); }

// False with an exception when there is no memory.
bool note_target(pool::Pool* pool) noexcept {
  for (const PastTarget* past = past_targets.load(std::memory_order_relaxed); past != nullptr; past = past->next) {
    if (past->pool == pool) return true;
  }
  auto* entry = static_cast<PastTarget*>(PyMem_RawMalloc(sizeof(PastTarget)));
  if (entry == nullptr) {
    PyErr_NoMemory();
    return false;
  }
  *entry = {pool, past_targets.load(std::memory_order_relaxed)};
  past_targets.store(entry, std::memory_order_release);
  return true;
}

PyObject* activate_locked(ModuleState* state, PyObject* source) noexcept {
  if (state->active_pool != nullptr) {
    const int same = PyObject_RichCompareBool(state->active_pool, source, Py_EQ);
    if (same < 0) return nullptr;
    if (same != 0) return Py_NewRef(state->active_pool);
    PyErr_Format(PyExc_RuntimeError, "%R is active already, so %R cannot be; call rtpool.deactivate() first",
                 state->active_pool, source);
    return nullptr;
  }
  const Reference capsule(capsule_of(state, source, "pool"));
  if (!capsule || !redirect()) return nullptr;
  keep_for_ever(capsule.get());
  if (is_pool(state, source)) {
    pool::Pool* pool = pool_object(source)->core;
    if (!note_target(pool)) return nullptr;
    likely_owner.store(pool, std::memory_order_release);
    target_pool.store(pool, std::memory_order_release);
  } else {
    keep_for_ever(source);
    target_handler.store(handler_of_capsule(capsule.get(), "pool"), std::memory_order_release);
  }
  state->active_pool = Py_NewRef(source);
  return Py_NewRef(source);
}

// activate(pool or None) -> the active pool
PyObject* activate(PyObject* module, PyObject* source) {
  ModuleState* state = state_of(module);
  const Reference pool(source == Py_None ? default_pool(state) : Py_NewRef(source));
  if (!pool) return nullptr;
  PyObject* active = nullptr;
  RTPOOL_BEGIN_EXCLUSIVE(module);
  active = activate_locked(state, pool.get());
  RTPOOL_END_EXCLUSIVE();
  return active;
}

// deactivate(): new blocks come from NumPy's own functions again. Nothing when not active.
PyObject* deactivate(PyObject* module, PyObject*) {
  ModuleState* state = state_of(module);
  RTPOOL_BEGIN_EXCLUSIVE(module);
  target_pool.store(nullptr, std::memory_order_release);
  target_handler.store(nullptr, std::memory_order_release);
  Py_CLEAR(state->active_pool);
  RTPOOL_END_EXCLUSIVE();
  Py_RETURN_NONE;
}

// active_pool() -> pool or None
PyObject* active_pool(PyObject* module, PyObject*) {
  ModuleState* state = state_of(module);
  PyObject* active = nullptr;
  RTPOOL_BEGIN_EXCLUSIVE(module);
  active = Py_NewRef(state->active_pool == nullptr ? Py_None : state->active_pool);
  RTPOOL_END_EXCLUSIVE();
  return active;
}

PyMethodDef functions[] = {
    {"activate", activate, METH_O, nullptr},
    {"deactivate", deactivate, METH_NOARGS, nullptr},
    {"active_pool", active_pool, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool active_allocator(PyDataMemAllocator* out) noexcept {
  if (pool::Pool* pool = target_pool.load(std::memory_order_acquire); pool != nullptr) {
    *out = HandlerOver<pool::Pool>::allocator(pool);
    return true;
  }
  const PyDataMem_Handler* target = target_handler.load(std::memory_order_acquire);
  if (target != nullptr) *out = target->allocator;
  return target != nullptr;
}

int register_activation(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
