// Room for the objects of a loop on free-threaded builds. Nobody serves arenas there: each thread has heaps of mimalloc, one
// for each kind of memory, and each heap cuts the blocks of a class (four of them between a size and its double) from pages
// of their own. A page is touched only as blocks come to lie in it; once all of it is free it goes back to the kernel, some
// milliseconds later.
//
// So of each class of each heap some blocks are made, touched and given back, 8 KiB and two blocks at least, and one more
// stays for as long as the thread does: its page stays, and with it the memory of those given back. It takes 6 MiB a thread.
// Blocks beyond 128 KiB have pages of their own, which nothing holds but MIMALLOC_PURGE_DELAY.
#include "numpy_handler/objects/room.hpp"

#ifdef Py_GIL_DISABLED
#include <array>
#include <cstddef>
#include <cstring>
#include <new>

namespace rtpool::binding {
namespace {

constexpr std::size_t k_least = 64;  // smaller ones are cut from the same few pages, which any program has touched
constexpr std::size_t k_most_small = 512;
constexpr std::size_t k_most = std::size_t{128} << 10;
constexpr std::size_t k_most_collected = std::size_t{8} << 10;  // what holds references: their tables come from memory's heap
constexpr std::size_t k_touched = 8192;                         // bytes a class
constexpr std::size_t k_classes = 64;

// The next class: every 16 bytes up to 512, from there on four to a doubling.
constexpr std::size_t class_after(std::size_t size) noexcept {
  if (size < k_most_small) return size + 16;
  std::size_t step = k_most_small / 4;
  while (size >= 8 * step) step *= 2;
  return size + step;
}

constexpr std::size_t classes_until(std::size_t most) noexcept {
  std::size_t count = 0;
  for (std::size_t size = k_least; size <= most; size = class_after(size)) ++count;
  return count;
}
static_assert(classes_until(k_most) <= k_classes);

// An object that the collector counts among its own and never meets: it is not tracked. Of the second type are objects with
// a dictionary of their own, as instances of classes are.
int traverse(PyObject*, visitproc, void*) { return 0; }

PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse)}, {0, nullptr}};
constexpr unsigned k_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION;
PyType_Spec collected_spec{"rtpool._core._Collected", sizeof(PyVarObject), 1, k_flags, slots};
PyType_Spec instance_spec{"rtpool._core._Instance", sizeof(PyVarObject), 1, k_flags | Py_TPFLAGS_MANAGED_DICT, slots};
// What lies in front of an instance: its dictionary and its weak references.
constexpr std::size_t k_before_instance = 2 * sizeof(void*);

PyTypeObject* type_of(const PyType_Spec* spec) noexcept {
  static PyTypeObject* const collected = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&collected_spec));
  static PyTypeObject* const instance = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&instance_spec));
  return spec == &collected_spec ? collected : instance;
}

void* take_collected(const PyType_Spec* spec, std::size_t size) noexcept {
  PyTypeObject* const type = type_of(spec);
  if (type == nullptr) return nullptr;
  const std::size_t before = spec == &instance_spec ? k_before_instance : 0;
  const std::size_t payload = size - before - sizeof(PyVarObject);
  PyVarObject* const object = PyObject_GC_NewVar(PyVarObject, type, static_cast<Py_ssize_t>(payload));
  if (object != nullptr) std::memset(object + 1, 0, payload);
  return object;
}

void give_collected(void* object) noexcept {
  PyTypeObject* const type = Py_TYPE(static_cast<PyObject*>(object));
  PyObject_GC_Del(object);
  Py_DECREF(type);
}

struct Heap {
  void* (*take)(std::size_t size);  // touched to its end, nullptr: no memory
  void (*give)(void* block);
  std::size_t most;
};

void* touched(void* block, std::size_t size) noexcept { return block != nullptr ? std::memset(block, 0, size) : nullptr; }

constexpr Heap k_heaps[] = {
    {[](std::size_t size) { return touched(PyMem_RawMalloc(size), size); }, PyMem_RawFree, k_most},
    {[](std::size_t size) { return touched(PyMem_Malloc(size), size); }, PyMem_Free, k_most},
    {[](std::size_t size) -> void* {
       PyObject* const bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size) - PyBytes_Type.tp_basicsize);
       if (bytes != nullptr) touched(PyBytes_AS_STRING(bytes), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes)));
       return bytes;
     },
     [](void* bytes) { Py_DECREF(static_cast<PyObject*>(bytes)); }, k_most},
    {[](std::size_t size) { return take_collected(&collected_spec, size); }, give_collected, k_most_collected},
    {[](std::size_t size) { return take_collected(&instance_spec, size); }, give_collected, k_most_collected},
};

// The blocks that stay while their thread does.
struct Anchors {
  std::array<std::array<void*, k_classes>, std::size(k_heaps)> blocks{};
};

constexpr const char* k_name = "rtpool.object_room";

void drop(PyObject* capsule) noexcept {
  auto* const anchors = static_cast<Anchors*>(PyCapsule_GetPointer(capsule, k_name));
  for (std::size_t i = 0; i < std::size(k_heaps); ++i) {
    for (void* const block : anchors->blocks[i]) {
      if (block != nullptr) k_heaps[i].give(block);
    }
  }
  delete anchors;
}

// Those of the calling thread; nullptr: no memory.
Anchors* anchors_here() noexcept {
  PyObject* const kept = PyThreadState_GetDict();  // borrowed
  if (kept == nullptr) return nullptr;
  if (PyObject* const capsule = PyDict_GetItemString(kept, k_name)) {
    return static_cast<Anchors*>(PyCapsule_GetPointer(capsule, k_name));
  }
  auto* const anchors = new (std::nothrow) Anchors;
  if (anchors == nullptr) return nullptr;
  const Reference capsule(PyCapsule_New(anchors, k_name, drop));
  if (!capsule) {
    delete anchors;
    return nullptr;
  }
  return PyDict_SetItemString(kept, k_name, capsule.get()) == 0 ? anchors : nullptr;
}

void make_class(const Heap& heap, std::size_t size, void** anchor) noexcept {
  if (*anchor == nullptr) *anchor = heap.take(size);
  std::array<void*, k_touched / k_least> made;
  std::size_t count = 0;
  for (; count < made.size() && (count < 2 || count * size < k_touched); ++count) {
    made[count] = heap.take(size);
    if (made[count] == nullptr) break;
  }
  while (count != 0) heap.give(made[--count]);
}

}  // namespace

void make_room() noexcept {
  if (Anchors* const anchors = anchors_here()) {
    for (std::size_t i = 0; i < std::size(k_heaps); ++i) {
      std::size_t at = 0;
      for (std::size_t size = k_least; size <= k_heaps[i].most; size = class_after(size)) {
        make_class(k_heaps[i], size, &anchors->blocks[i][at++]);
      }
    }
  }
  PyErr_Clear();
}

}  // namespace rtpool::binding
#endif
