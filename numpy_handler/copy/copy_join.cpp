// The fast path of rtpool.concatenate and rtpool.stack: one job for all arrays, so that threads share the whole result.
#include "numpy_handler/copy/copy_support.hpp"

namespace rtpool::binding {
namespace {

// What every version of NumPy can make.
constexpr int k_max_joined_dimensions = 32;

// Blocks on the heap of Python, freed with the scope.
class Blocks {
 public:
  explicit Blocks(Py_ssize_t count) noexcept
      : blocks_(static_cast<copy::Block*>(PyMem_Calloc(static_cast<std::size_t>(count), sizeof(copy::Block)))) {}
  ~Blocks() { PyMem_Free(blocks_); }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;
  copy::Block* get() const noexcept { return blocks_; }

 private:
  copy::Block* blocks_;
};

PyArrayObject* array_at(PyObject* arrays, Py_ssize_t i) noexcept {
  return reinterpret_cast<PyArrayObject*>(PyTuple_GET_ITEM(arrays, i));
}

// Every axis steps over all of the next one: NumPy gives such arrays a result in C order.
bool is_in_c_order(PyArrayObject* array) noexcept {
  if (PyArray_IS_C_CONTIGUOUS(array)) return true;
  npy_intp inner = PyArray_ITEMSIZE(array);
  for (int i = PyArray_NDIM(array) - 1; i >= 0; --i) {
    if (PyArray_DIM(array, i) == 1) continue;
    if (PyArray_STRIDE(array, i) < inner) return false;
    inner = PyArray_STRIDE(array, i) * PyArray_DIM(array, i);
  }
  return true;
}

// Will the array's rows, in a result in C order joined along `axis`, hold more than one item?
bool brings_long_rows(PyArrayObject* array, int axis) noexcept {
  if (PyArray_SIZE(array) <= 1) return true;
  for (int i = PyArray_NDIM(array) - 1; i >= axis; --i) {
    if (PyArray_DIM(array, i) != 1) return PyArray_STRIDE(array, i) == PyArray_ITEMSIZE(array);
  }
  return false;
}

// The type of the result is the arrays' own, untouched by NumPy's rules of promotion.
bool is_result_type(PyArray_Descr* type) noexcept {
  return PyDataType_ISNOTSWAPPED(type) && !PyDataType_HASFIELDS(type) && PyDataType_METADATA(type) == nullptr;
}

// Shape of the joined array, or false where NumPy must join (or refuse).
struct Joined {
  int dimensions = 0;
  int axis = 0;
  npy_intp shape[copy::k_max_dimensions];
};

bool join_shapes(PyObject* arrays, bool stacked, PyObject* axis_object, Joined* out) noexcept {
  const Py_ssize_t count = PyTuple_GET_SIZE(arrays);
  if (count == 0) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!PyArray_CheckExact(PyTuple_GET_ITEM(arrays, i))) return false;
  }
  PyArrayObject* const first = array_at(arrays, 0);
  const int dimensions = PyArray_NDIM(first);
  if (dimensions >= k_max_joined_dimensions || (dimensions == 0 && !stacked)) return false;
  out->dimensions = dimensions + (stacked ? 1 : 0);
  if (!PyLong_CheckExact(axis_object)) return false;
  int overflow = 0;
  const long axis = PyLong_AsLongAndOverflow(axis_object, &overflow);
  if (overflow != 0 || axis < -out->dimensions || axis >= out->dimensions) return false;
  out->axis = static_cast<int>(axis < 0 ? axis + out->dimensions : axis);
  for (int i = 0; i < dimensions; ++i) out->shape[i + (stacked && i >= out->axis ? 1 : 0)] = PyArray_DIM(first, i);
  if (stacked) out->shape[out->axis] = count;
  for (Py_ssize_t i = 1; i < count; ++i) {
    PyArrayObject* const array = array_at(arrays, i);
    if (PyArray_NDIM(array) != dimensions || !same_bytes(PyArray_DESCR(first), PyArray_DESCR(array))) return false;
    for (int k = 0; k < dimensions; ++k) {
      if (PyArray_DIM(array, k) != PyArray_DIM(first, k) && (stacked || k != out->axis)) return false;
    }
    if (!stacked) out->shape[out->axis] += PyArray_DIM(array, out->axis);
  }
  return true;
}

// The array to join into: `out` if that will do, else a new one in C order. Empty without an exception where NumPy must
// join, with one if there is no memory.
Reference target_of(PyObject* arrays, const Joined& joined, PyObject* out) noexcept {
  const Py_ssize_t count = PyTuple_GET_SIZE(arrays);
  PyArray_Descr* const type = PyArray_DESCR(array_at(arrays, 0));
  if (out == Py_None) {
    if (!is_result_type(type)) return Reference();
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyArrayObject* const array = array_at(arrays, i);
      if (!is_in_c_order(array) || !brings_long_rows(array, joined.axis)) return Reference();
    }
    Py_INCREF(type);
    return Reference(PyArray_Empty(joined.dimensions, joined.shape, type, 0));
  }
  if (!PyArray_CheckExact(out)) return Reference();
  auto* const target = reinterpret_cast<PyArrayObject*>(out);
  if (!is_plainly_writeable(target) || PyArray_NDIM(target) != joined.dimensions ||
      !PyArray_CompareLists(PyArray_DIMS(target), joined.shape, joined.dimensions) ||
      !same_bytes(PyArray_DESCR(target), type)) {
    return Reference();
  }
  const MemoryRange range = memory_range(target);
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (range.meets(memory_range(array_at(arrays, i)))) return Reference();
  }
  return Reference::borrow(out);
}

// One block an array, at its place in the target. False if one of them is not for us.
bool fill_blocks(PyObject* arrays, bool stacked, int axis, PyArrayObject* target, copy::Block* blocks,
                 std::size_t* bytes, std::size_t* shortest_row) noexcept {
  npy_intp strides[copy::k_max_dimensions];
  int dimensions = 0;
  for (int i = 0; i < PyArray_NDIM(target); ++i) {
    if (!stacked || i != axis) strides[dimensions++] = PyArray_STRIDE(target, i);
  }
  char* place = PyArray_BYTES(target);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(arrays); ++i) {
    PyArrayObject* const array = array_at(arrays, i);
    const copy::Layout layout = {reinterpret_cast<std::byte*>(place),
                                 reinterpret_cast<const std::byte*>(PyArray_BYTES(array)),
                                 static_cast<std::size_t>(PyArray_ITEMSIZE(array)),
                                 static_cast<unsigned>(dimensions),
                                 PyArray_DIMS(array),
                                 strides,
                                 PyArray_STRIDES(array)};
    copy::Block& block = blocks[i];
    if (!copy::make_block(layout, &block)) return false;
    if (!has_long_rows(block, layout.item_bytes)) return false;
    if (block.row_bytes != 0) {
      *bytes += block.bytes();
      if (block.row_bytes < *shortest_row) *shortest_row = block.row_bytes;
    }
    place += PyArray_STRIDE(target, axis) * (stacked ? 1 : PyArray_DIM(array, axis));
  }
  return true;
}

}  // namespace

// join_arrays(arrays, axis, out, stacked, mode, threads) -> the joined array, or None where NumPy must join
PyObject* join_arrays(PyObject*, PyObject* const* arguments, Py_ssize_t count) noexcept {
  if (count != 6) return PyErr_Format(PyExc_TypeError, "join_arrays() takes 6 arguments, not %zd", count);
  copy::Request request;
  if (!parse_request(arguments[4], arguments[5], &request)) return nullptr;
  // Other iterables are NumPy's to accept or refuse: looking at them could use them up.
  if (!PyList_CheckExact(arguments[0]) && !PyTuple_CheckExact(arguments[0])) Py_RETURN_NONE;
  const Reference arrays(PySequence_Tuple(arguments[0]));
  if (!arrays) return nullptr;
  const bool stacked = arguments[3] == Py_True;
  Joined joined;
  if (!join_shapes(arrays.get(), stacked, arguments[1], &joined)) Py_RETURN_NONE;
  Reference result = target_of(arrays.get(), joined, arguments[2]);
  if (!result) {
    if (PyErr_Occurred() != nullptr) return nullptr;
    Py_RETURN_NONE;
  }
  const Py_ssize_t parts = PyTuple_GET_SIZE(arrays.get());
  const Blocks blocks(parts);
  if (blocks.get() == nullptr) return PyErr_NoMemory();
  std::size_t bytes = 0;
  std::size_t shortest_row = SIZE_MAX;
  auto* const target = reinterpret_cast<PyArrayObject*>(result.get());
  if (!fill_blocks(arrays.get(), stacked, joined.axis, target, blocks.get(), &bytes, &shortest_row)) {
    Py_RETURN_NONE;
  }
  copy_into(target, blocks.get(), static_cast<std::size_t>(parts), bytes, shortest_row, request);
  return result.release();
}

}  // namespace rtpool::binding
