// The arenas of Python's allocator of small objects come from where objects/arenas.hpp says.
//
//   OB-1: the hook is set by the first pool that is to serve, and stays: arenas of pools come back at any time. What was there
//         before it serves and takes back whatever no pool does.
//   OB-2: the two functions of the hook call the core and what was there before; never Python.
#include <dlfcn.h>

#include <atomic>
#include <cstring>

#include "base/watch.hpp"
#include "numpy_handler/objects/register.hpp"
#include "numpy_handler/pool/pool_type.hpp"
#include "objects/arenas.hpp"

namespace rtpool::binding {
namespace {

// The pool that `activate` has let in, if it has.
std::atomic<pool::Pool*> activated{nullptr};

#ifndef Py_GIL_DISABLED
void* take_arena(void*, size_t bytes) { return objects::arenas().take(bytes); }
void give_arena(void*, void* arena, size_t bytes) { objects::arenas().give(arena, bytes); }

// False: somebody has set a hook of his own over ours, which may or may not pass requests on.
bool set_hook() noexcept {
  static bool done = false;
  PyObjectArenaAllocator found;
  PyObject_GetArenaAllocator(&found);
  if (done) return found.alloc == take_arena;
  done = true;
  objects::arenas().set_source({found.ctx, found.alloc, found.free});
  PyObjectArenaAllocator ours{nullptr, take_arena, give_arena};
  PyObject_SetArenaAllocator(&ours);
  return true;
}

// "pymalloc", "malloc_debug", ...; nullptr where Python does not say, as with hooks of tracemalloc around it.
const char* allocator_name() noexcept {
  using Name = const char* (*)();
  static const auto name = reinterpret_cast<Name>(::dlsym(RTLD_DEFAULT, "_PyMem_GetCurrentAllocatorName"));
  return name != nullptr ? name() : nullptr;
}
#endif

// Why no arenas are asked for in this process; nullptr: they are.
const char* refusal() noexcept {
#ifdef Py_GIL_DISABLED
  return "free-threaded";
#else
  if (base::watched()) return "watched";
  static const char* known = nullptr;  // Python's allocator is chosen before any module is loaded
  static bool asked = false;
  if (!asked) {
    const char* const name = allocator_name();
    asked = name != nullptr;
    // "pymalloc" and "pymalloc_debug" have arenas; "default" is pymalloc in every build with a GIL.
    if (name != nullptr && std::strncmp(name, "pymalloc", 8) != 0 && std::strcmp(name, "default") != 0) known = name;
  }
  return known;
#endif
}

// object_arenas_refusal() -> None, or why Python asks for no arenas: the name of its allocator, "free-threaded" or "watched"
PyObject* object_arenas_refusal(PyObject*, PyObject*) {
  const char* const why = refusal();
  if (why == nullptr) Py_RETURN_NONE;
  return PyUnicode_FromString(why);
}

bool let_in(pool::Pool* core) noexcept {
#ifdef Py_GIL_DISABLED
  static_cast<void>(core);
  return false;
#else
  return refusal() == nullptr && set_hook() && objects::arenas().enter(*core);
#endif
}

pool::Pool* pool_in(PyObject* module, PyObject* object) noexcept {
  if (is_pool(state_of(module), object)) return pool_object(object)->core;
  PyErr_Format(PyExc_TypeError, "arenas for Python's objects come from a Pool, not from %.200s", Py_TYPE(object)->tp_name);
  return nullptr;
}

// enter_objects(pool) -> whether arenas come from that pool from now on, until `leave_objects` as often
PyObject* enter_objects(PyObject* module, PyObject* pool) {
  pool::Pool* const core = pool_in(module, pool);
  return core == nullptr ? nullptr : PyBool_FromLong(let_in(core));
}

PyObject* leave_objects(PyObject* module, PyObject* pool) {
  pool::Pool* const core = pool_in(module, pool);
  if (core == nullptr) return nullptr;
  objects::arenas().leave(*core);
  Py_RETURN_NONE;
}

// activate_objects(pool) -> whether arenas come from that pool from now on, until `deactivate_objects`; once, however often
// it is called
PyObject* activate_objects(PyObject* module, PyObject* pool) {
  pool::Pool* const core = pool_in(module, pool);
  if (core == nullptr) return nullptr;
  pool::Pool* before = nullptr;
  if (!activated.compare_exchange_strong(before, core)) return PyBool_FromLong(before == core);
  if (let_in(core)) Py_RETURN_TRUE;
  activated.store(nullptr);
  Py_RETURN_FALSE;
}

PyObject* deactivate_objects(PyObject*, PyObject*) {
  if (pool::Pool* const core = activated.exchange(nullptr)) objects::arenas().leave(*core);
  Py_RETURN_NONE;
}

// serves_objects(pool) -> whether the pool has been let in
PyObject* serves_objects(PyObject* module, PyObject* pool) {
  pool::Pool* const core = pool_in(module, pool);
  return core == nullptr ? nullptr : PyBool_FromLong(objects::arenas().has_entered(*core));
}

// object_misses() -> arenas that frozen pools could not serve
PyObject* object_misses(PyObject*, PyObject*) { return PyLong_FromUnsignedLongLong(objects::arenas().frozen_misses()); }

// object_arena_bytes() -> bytes of each, 0 as long as none was asked for
PyObject* object_arena_bytes(PyObject*, PyObject*) { return PyLong_FromSize_t(objects::arenas().arena_bytes()); }

// begin_object_watch() -> number of the watch, -1 for none
PyObject* begin_object_watch(PyObject*, PyObject*) { return PyLong_FromLong(objects::arenas().begin_watch()); }

PyObject* tell_need(PyObject* number, objects::Need (objects::Arenas::*ask)(int) noexcept) {
  const long watch = PyLong_AsLong(number);
  if (watch == -1 && PyErr_Occurred()) return nullptr;
  const objects::Need need = (objects::arenas().*ask)(static_cast<int>(watch));
  return Py_BuildValue("(KLn)", static_cast<unsigned long long>(need.most), static_cast<long long>(need.alive),
                       static_cast<Py_ssize_t>(need.bytes));
}

// look_at_object_watch(number) -> (most arenas handed out at once beyond those at its begin, those handed out now beyond them,
// bytes of each)
PyObject* look_at_object_watch(PyObject*, PyObject* number) { return tell_need(number, &objects::Arenas::look_at_watch); }

// end_object_watch(number) -> the same, for the last time
PyObject* end_object_watch(PyObject*, PyObject* number) { return tell_need(number, &objects::Arenas::end_watch); }

// in_object_arena(address) -> whether it lies in an arena of a pool
PyObject* in_object_arena(PyObject*, PyObject* address) {
  const void* const pointer = PyLong_AsVoidPtr(address);
  if (pointer == nullptr && PyErr_Occurred()) return nullptr;
  return PyBool_FromLong(objects::Arenas::contains(pointer));
}

PyMethodDef functions[] = {
    {"object_arenas_refusal", object_arenas_refusal, METH_NOARGS, nullptr},
    {"enter_objects", enter_objects, METH_O, nullptr},
    {"leave_objects", leave_objects, METH_O, nullptr},
    {"activate_objects", activate_objects, METH_O, nullptr},
    {"deactivate_objects", deactivate_objects, METH_NOARGS, nullptr},
    {"serves_objects", serves_objects, METH_O, nullptr},
    {"object_misses", object_misses, METH_NOARGS, nullptr},
    {"object_arena_bytes", object_arena_bytes, METH_NOARGS, nullptr},
    {"begin_object_watch", begin_object_watch, METH_NOARGS, nullptr},
    {"look_at_object_watch", look_at_object_watch, METH_O, nullptr},
    {"end_object_watch", end_object_watch, METH_O, nullptr},
    {"in_object_arena", in_object_arena, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_object_arenas(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
