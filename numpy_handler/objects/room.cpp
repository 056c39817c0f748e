// Room for the objects of a loop in the arenas that Python has already.
#include <atomic>
#include <cstdint>
#include <cstring>

#include "numpy_handler/objects/register.hpp"
#include "numpy_handler/objects/room.hpp"
#include "objects/arenas.hpp"

namespace rtpool::binding {

#ifndef Py_GIL_DISABLED
namespace {

constexpr std::size_t k_largest = 512;  // bytes; larger objects come from libc

// A chain of objects of one size, the last one first.
void** add(void** made, std::size_t size) noexcept {
  void** const object = static_cast<void**>(PyObject_Malloc(size));
  if (object == nullptr) return made;
  *object = made;
  std::memset(object + 1, 0, size - sizeof(void*));
  return object;
}

// Python cuts its arenas into parts of 16 KiB, each for objects of one class, and takes an untouched one only when those that
// it has of a class are full.
constexpr std::size_t k_part = 16384;
constexpr std::size_t k_part_head = 48;
constexpr std::size_t k_most_bytes = std::size_t{16} << 20;

// Makes objects of one class until they have filled a part that was all free: then every older one is full, and has been
// touched to its end. At least `k_part` bytes.
void** fill_parts(void** made, std::size_t size) noexcept {
  const std::size_t objects_a_part = (k_part - k_part_head) / size;
  std::size_t in_a_row = 0;  // neighbours, the first of them at the beginning of a part
  for (std::size_t bytes = 0; bytes < k_most_bytes && (in_a_row < objects_a_part || bytes < k_part); bytes += size) {
    const auto last = reinterpret_cast<std::uintptr_t>(made);
    made = add(made, size);
    const auto now = reinterpret_cast<std::uintptr_t>(made);
    if (in_a_row != 0 && now == last + size) {
      ++in_a_row;
    } else {
      in_a_row = now % k_part == k_part_head ? 1 : 0;
    }
  }
  return made;
}

}  // namespace

// Python's allocator cuts objects of up to 512 bytes from arenas, in classes of 16 bytes, and touches their pages only as
// objects come to lie there. Some of each class are made and given back: 0.5 MiB and more. Where pools serve arenas, more are
// made until Python asks for the next one: then all that its arenas have free has been touched (most of it had been before).
void make_room() noexcept {
  const objects::Arenas::Unwatched unwatched(objects::arenas());
  const std::uint64_t asked = objects::arenas().requests();
  void** made = nullptr;
  for (std::size_t size = 16; size <= k_largest; size += 16) {
    made = fill_parts(made, size);
  }
  if (objects::arenas().serving()) {
    for (std::size_t bytes = 0; bytes < k_most_bytes && objects::arenas().requests() == asked; bytes += k_largest) {
      made = add(made, k_largest);
    }
  }
  // One object stays, or an arena in which all is free would go back to the kernel.
  static std::atomic<void*> anchor{nullptr};
  if (anchor.load() == nullptr) anchor.store(PyObject_Malloc(k_largest));
  while (made != nullptr) {
    void* const object = made;
    made = static_cast<void**>(*made);
    PyObject_Free(object);
  }
}
#endif

namespace {

// make_object_room()
PyObject* make_object_room(PyObject*, PyObject*) {
  make_room();
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"make_object_room", make_object_room, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_object_room(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
