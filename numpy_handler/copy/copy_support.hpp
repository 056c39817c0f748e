// What the copying functions share: when the bytes of one array are the bytes of the other, and the layout of a copy.
// Thread rule: as py_support.hpp. Nothing here sets an exception unless it says so.
#pragma once

#include "copy/copier.hpp"
#include "copy/workers.hpp"
#include "numpy_handler/support/numpy_api.hpp"

namespace rtpool::binding {

// Rows of a single item are NumPy's: its loops over items (0.4 ns each) cost less than a row does here (2 ns). From two
// items on it is the other way round (8 ns).
inline bool has_long_rows(const copy::Block& block, std::size_t item_bytes) noexcept {
  return block.dimensions == 0 || block.row_bytes > item_bytes;
}
// Copies of at least this many bytes let other threads run meanwhile.
inline constexpr std::size_t k_release_gil_bytes = std::size_t{64} << 10;

// True if items of both types are equal exactly when their bytes are and all of those bytes belong to them: built-in
// types of the same kind and byte order, and structures of such without gaps. False for objects.
bool same_bytes(PyArray_Descr* dst, PyArray_Descr* src) noexcept;

// An array that may be written without a word from NumPy.
inline bool is_plainly_writeable(PyArrayObject* array) noexcept {
  return (PyArray_FLAGS(array) & (NPY_ARRAY_WRITEABLE | k_warns_on_write)) == NPY_ARRAY_WRITEABLE;
}

// First byte and one past the last byte that the array's items occupy; equal for an empty array.
struct MemoryRange {
  const char* begin;
  const char* end;
  bool meets(const MemoryRange& other) const noexcept { return begin < other.end && other.begin < end; }
};
MemoryRange memory_range(PyArrayObject* array) noexcept;

// `mode` and `threads` as the public functions take them; nullptr stands for the default. False with TypeError or
// ValueError.
bool parse_request(PyObject* mode, PyObject* threads, copy::Request* out) noexcept;

// Copies the blocks, whose destinations lie in `dst`, without the GIL if they are large. Never fails.
void copy_into(PyArrayObject* dst, const copy::Block* blocks, std::size_t count, std::size_t bytes,
               std::size_t shortest_row, const copy::Request& request) noexcept;

// _core.join_arrays, in copy_join.cpp.
PyObject* join_arrays(PyObject* module, PyObject* const* arguments, Py_ssize_t count) noexcept;

}  // namespace rtpool::binding
