#include "numpy_handler/copy/copy_support.hpp"

namespace rtpool::binding {
namespace {

// True if every byte of an item belongs to a value of it and none is a reference.
bool is_plain_bytes(PyArray_Descr* type) noexcept;

// Fields one behind the other, in the order of their names, from the first byte to the last.
bool has_no_gaps(PyArray_Descr* type) noexcept {
  PyObject* const names = PyDataType_NAMES(type);
  PyObject* const fields = PyDataType_FIELDS(type);
  npy_intp expected = 0;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
    PyObject* const field = PyDict_GetItem(fields, PyTuple_GET_ITEM(names, i));
    if (field == nullptr || !PyTuple_Check(field) || PyTuple_GET_SIZE(field) < 2) return false;
    PyObject* const member = PyTuple_GET_ITEM(field, 0);
    if (!PyArray_DescrCheck(member)) return false;
    auto* const member_type = reinterpret_cast<PyArray_Descr*>(member);
    if (PyLong_AsLong(PyTuple_GET_ITEM(field, 1)) != expected || !is_plain_bytes(member_type)) return false;
    expected += PyDataType_ELSIZE(member_type);
  }
  return expected == PyDataType_ELSIZE(type);
}

bool is_plain_bytes(PyArray_Descr* type) noexcept {
  // Types of other packages and those newer than the built-in set may keep more than bytes in an item.
  if (type->type_num < 0 || type->type_num >= NPY_NTYPES_LEGACY || type->type_num == NPY_OBJECT) return false;
  if (type->type_num != NPY_VOID) return true;
  if (PyDataType_HASSUBARRAY(type)) return is_plain_bytes(PyDataType_SUBARRAY(type)->base);
  return !PyDataType_HASFIELDS(type) || has_no_gaps(type);
}

// The array that `array` is a view of, as far as arrays go: whoever owns the memory behind that one keeps it for it.
copy::Owner owner_of(PyArrayObject* array) noexcept {
  for (PyObject* base = PyArray_BASE(array); base != nullptr && PyArray_Check(base); base = PyArray_BASE(array)) {
    array = reinterpret_cast<PyArrayObject*>(base);
  }
  const MemoryRange range = memory_range(array);
  return {reinterpret_cast<std::uintptr_t>(range.begin), static_cast<std::size_t>(range.end - range.begin)};
}

}  // namespace

bool same_bytes(PyArray_Descr* dst, PyArray_Descr* src) noexcept {
  return is_plain_bytes(dst) && (dst == src || (is_plain_bytes(src) && PyArray_EquivTypes(dst, src) != 0));
}

MemoryRange memory_range(PyArrayObject* array) noexcept {
  const char* const data = PyArray_BYTES(array);
  MemoryRange range = {data, data};
  if (PyArray_SIZE(array) == 0) return range;
  range.end += PyArray_ITEMSIZE(array);
  for (int i = 0; i < PyArray_NDIM(array); ++i) {
    const npy_intp span = PyArray_STRIDE(array, i) * (PyArray_DIM(array, i) - 1);
    if (span < 0) {
      range.begin += span;
    } else {
      range.end += span;
    }
  }
  return range;
}

bool parse_request(PyObject* mode, PyObject* threads, copy::Request* out) noexcept {
  if (mode != nullptr) {
    if (!PyUnicode_Check(mode)) {
      PyErr_Format(PyExc_TypeError, "mode must be 'auto', 'cached' or 'stream', not %R", mode);
      return false;
    }
    if (PyUnicode_CompareWithASCIIString(mode, "auto") == 0) {
      out->mode = copy::Mode::automatic;
    } else if (PyUnicode_CompareWithASCIIString(mode, "cached") == 0) {
      out->mode = copy::Mode::cached;
    } else if (PyUnicode_CompareWithASCIIString(mode, "stream") == 0) {
      out->mode = copy::Mode::stream;
    } else {
      PyErr_Format(PyExc_ValueError, "mode must be 'auto', 'cached' or 'stream', not %R", mode);
      return false;
    }
  }
  if (threads != nullptr && threads != Py_None) {
    const Py_ssize_t wanted = PyNumber_AsSsize_t(threads, nullptr);
    if (wanted == -1 && PyErr_Occurred() != nullptr) {
      if (!PyErr_ExceptionMatches(PyExc_TypeError)) return false;
      PyErr_Format(PyExc_TypeError, "threads must be None or a number from 1 on, not %R", threads);
      return false;
    }
    if (wanted < 1) {
      PyErr_Format(PyExc_ValueError, "threads must be None or a number from 1 on, not %R", threads);
      return false;
    }
    out->threads = wanted < copy::k_max_threads ? static_cast<unsigned>(wanted) : copy::k_max_threads;
  }
  return true;
}

void copy_into(PyArrayObject* dst, const copy::Block* blocks, std::size_t count, std::size_t bytes,
               std::size_t shortest_row, const copy::Request& request) noexcept {
  if (bytes < k_release_gil_bytes) {
    copy::copy_call(blocks, count, bytes, shortest_row, request, {});
    return;
  }
  const copy::Owner owner = owner_of(dst);
  const WithoutGil released;
  copy::copy_call(blocks, count, bytes, shortest_row, request, owner);
}

}  // namespace rtpool::binding
