// Handles of arrays in shared pools: what travels between processes instead of the data.
//
// Thread rule: with an attached thread state. What changes a handle (open, drop, pickling) is exclusive to it.
#pragma once

#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::binding {

// Where an array lies in a pool and how it is laid out. Without a block: an array of no bytes.
struct SharedLayout {
  shared::BlockRef ref;
  std::uint64_t offset = 0;  // of the first element, in the pool's data
  int dimensions = 0;
  bool writeable = false;
  npy_intp* extents = nullptr;  // shape, then strides; from PyMem
};

struct SharedArrayObject {
  PyObject_HEAD
  ModuleState* state;
  shared::SharedPool* core;  // with a reference; nullptr when the pool could not be found
  SharedLayout layout;
  shared::BlockRange range;
  std::uint32_t lineage;     // of the hold
  bool held;                 // the handle keeps the block
  int error;                 // why it does not; 0 after it was opened or dropped
  PyArray_Descr* dtype;
  PyObject* weak_references;
};

inline SharedArrayObject* shared_array_object(PyObject* object) noexcept {
  return reinterpret_cast<SharedArrayObject*>(object);
}

// False with TypeError for dtypes whose elements are or hold pointers.
bool check_shareable(PyArray_Descr* dtype) noexcept;

// False with TypeError for subclasses: a handle carries shape, strides, dtype and place, and nothing of what they add.
bool check_plain(PyObject* array) noexcept;

// Whether every element lies inside `range`. Sizes that overflow do not.
bool lies_within(const SharedLayout& layout, npy_intp item_size, const shared::BlockRange& range) noexcept;

// The handle as bytes, and back. `decode` fills `layout` (extents from PyMem) and answers false with ValueError for
// bytes that are no such message.
struct SharedMessage {
  shared::Address address;
  shared::Tenancy sender;
  int type = -1;  // NumPy's number of a plain dtype; -1: the dtype travels beside the bytes
};
PyObject* encode(const SharedLayout& layout, const SharedMessage& message) noexcept;
bool decode(PyObject* bytes, SharedLayout* layout, SharedMessage* message) noexcept;

// The number of a dtype that is NumPy's own for it, in native byte order and without anything added; else -1.
int plain_type(PyArray_Descr* dtype) noexcept;

// LookupError, FileNotFoundError, ...: why a block cannot be had. Returns nullptr.
PyObject* raise_unavailable(int error) noexcept;

}  // namespace rtpool::binding
