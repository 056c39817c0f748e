// rtpool.copyto, and what tests and reports need of the copier. Everything that is not bytes moved as they are (other
// types, casting, overlap, scalars, errors) is NumPy's own copyto, so that it is right in the same words.
#include <utility>

#include "copy/kernel.hpp"
#include "numpy_handler/copy/copy_support.hpp"
#include "numpy_handler/copy/register.hpp"
#include "numpy_handler/support/state.hpp"

namespace rtpool::binding {
namespace {

// What decides about `__array_function__`: with a type's own, the call is for that type to answer.
bool is_plain_array(PyObject* object) noexcept { return PyArray_CheckExact(object); }

// The copy as a block; false where NumPy must do it.
bool block_of(PyArrayObject* dst, PyArrayObject* src, copy::Block* block) noexcept {
  const int dimensions = PyArray_NDIM(dst);
  const npy_intp* const shape = PyArray_DIMS(dst);
  if (PyArray_IS_C_CONTIGUOUS(dst) && PyArray_IS_C_CONTIGUOUS(src) && PyArray_SAMESHAPE(dst, src)) {
    block->dst = reinterpret_cast<std::byte*>(PyArray_BYTES(dst));
    block->src = reinterpret_cast<const std::byte*>(PyArray_BYTES(src));
    block->row_bytes = static_cast<std::size_t>(PyArray_NBYTES(dst));
    return true;
  }
  const npy_intp* src_shape = PyArray_DIMS(src);
  const npy_intp* src_strides = PyArray_STRIDES(src);
  int src_dimensions = PyArray_NDIM(src);
  while (src_dimensions > dimensions && src_shape[0] == 1) {
    ++src_shape;
    ++src_strides;
    --src_dimensions;
  }
  if (src_dimensions > dimensions || dimensions > static_cast<int>(copy::k_max_dimensions)) return false;
  npy_intp strides[copy::k_max_dimensions];
  const int missing = dimensions - src_dimensions;
  for (int i = 0; i < dimensions; ++i) {
    const int k = i - missing;
    if (k < 0 || (src_shape[k] == 1 && shape[i] != 1)) {
      strides[i] = 0;
    } else if (src_shape[k] == shape[i]) {
      strides[i] = src_strides[k];
    } else {
      return false;
    }
  }
  const copy::Layout layout = {reinterpret_cast<std::byte*>(PyArray_BYTES(dst)),
                               reinterpret_cast<const std::byte*>(PyArray_BYTES(src)),
                               static_cast<std::size_t>(PyArray_ITEMSIZE(dst)),
                               static_cast<unsigned>(dimensions),
                               shape,
                               PyArray_STRIDES(dst),
                               strides};
  return copy::make_block(layout, block);
}

// True if done.
bool copy_fast(PyObject* dst_object, PyObject* src_object, const copy::Request& request) noexcept {
  if (!is_plain_array(dst_object) || !is_plain_array(src_object)) return false;
  auto* const dst = reinterpret_cast<PyArrayObject*>(dst_object);
  auto* const src = reinterpret_cast<PyArrayObject*>(src_object);
  if (!is_plainly_writeable(dst) || !same_bytes(PyArray_DESCR(dst), PyArray_DESCR(src))) return false;
  copy::Block block;
  if (!block_of(dst, src, &block) || copy::may_overlap(block)) return false;
  if (!has_long_rows(block, static_cast<std::size_t>(PyArray_ITEMSIZE(dst)))) return false;
  copy_into(dst, &block, 1, block.bytes(), block.row_bytes, request);
  return true;
}

// What `copyto` was given by keyword, or nullptr.
struct Keywords {
  PyObject* dst = nullptr;
  PyObject* src = nullptr;
  PyObject* casting = nullptr;
  PyObject* where = nullptr;
  PyObject* mode = nullptr;
  PyObject* threads = nullptr;
};

// False with TypeError. `arguments` are those that `names` stands for.
bool parse_keywords(PyObject* names, PyObject* const* arguments, Keywords* out) noexcept {
  const struct {
    const char* name;
    PyObject** target;
  } known[] = {{"dst", &out->dst},     {"src", &out->src},   {"casting", &out->casting},
               {"where", &out->where}, {"mode", &out->mode}, {"threads", &out->threads}};
  for (Py_ssize_t i = 0; names != nullptr && i < PyTuple_GET_SIZE(names); ++i) {
    PyObject* const name = PyTuple_GET_ITEM(names, i);
    PyObject** target = nullptr;
    for (const auto& keyword : known) {
      if (PyUnicode_CompareWithASCIIString(name, keyword.name) == 0) target = keyword.target;
    }
    if (target == nullptr) {
      PyErr_Format(PyExc_TypeError, "copyto() got an unexpected keyword argument %R", name);
      return false;
    }
    if (*target != nullptr) {
      PyErr_Format(PyExc_TypeError, "copyto() got multiple values for argument %R", name);
      return false;
    }
    *target = arguments[i];
  }
  return true;
}

// True where every rule of casting lets equal types pass: all that NumPy knows. Others are for NumPy to refuse.
bool is_casting(PyObject* casting) noexcept {
  if (casting == nullptr) return true;
  if (!PyUnicode_Check(casting)) return false;
  for (const char* known : {"no", "equiv", "safe", "same_kind", "unsafe"}) {
    if (PyUnicode_CompareWithASCIIString(casting, known) == 0) return true;
  }
  return false;
}

PyObject* copy_by_numpy(PyObject* module, const Keywords& given) noexcept {
  PyObject* values[4] = {given.dst, given.src};
  Reference names(PyTuple_New((given.casting != nullptr) + (given.where != nullptr)));
  if (!names) return nullptr;
  Py_ssize_t options = 0;
  for (const auto& [text, value] : {std::pair{"casting", given.casting}, std::pair{"where", given.where}}) {
    if (value == nullptr) continue;
    PyObject* const name = PyUnicode_InternFromString(text);
    if (name == nullptr) return nullptr;
    PyTuple_SET_ITEM(names.get(), options, name);
    values[2 + options++] = value;
  }
  return PyObject_Vectorcall(state_of(module)->numpy_copyto, values, 2, names.get());
}

// copyto(dst, src, casting="same_kind", where=True, *, mode="auto", threads=None) -> None
PyObject* copyto(PyObject* module, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  if (count > 4) {
    return PyErr_Format(PyExc_TypeError, "copyto() takes from 2 to 4 positional arguments but %zd were given", count);
  }
  Keywords given;
  PyObject** const in_order[] = {&given.dst, &given.src, &given.casting, &given.where};
  for (Py_ssize_t i = 0; i < count; ++i) *in_order[i] = arguments[i];
  copy::Request request;
  if (!parse_keywords(names, arguments + count, &given) || !parse_request(given.mode, given.threads, &request)) {
    return nullptr;
  }
  if (given.dst == nullptr || given.src == nullptr) {
    return PyErr_Format(PyExc_TypeError, "copyto() missing required argument '%s'",
                        given.dst == nullptr ? "dst" : "src");
  }
  const bool is_whole = given.where == nullptr || given.where == Py_True;
  if (is_whole && is_casting(given.casting) && copy_fast(given.dst, given.src, request)) Py_RETURN_NONE;
  return copy_by_numpy(module, given);
}

// copy_kernels() -> ((name, supported), ...), best first
PyObject* copy_kernels(PyObject*, PyObject*) {
  const copy::KernelList list = copy::kernels();
  Reference result(PyTuple_New(static_cast<Py_ssize_t>(list.count)));
  if (!result) return nullptr;
  Py_ssize_t at = 0;
  for (const copy::Kernel* kernel : list) {
    PyObject* const entry = Py_BuildValue("(sN)", kernel->name, PyBool_FromLong(kernel->supported()));
    if (entry == nullptr) return nullptr;
    PyTuple_SET_ITEM(result.get(), at++, entry);
  }
  return result.release();
}

// copy_settings() -> (name of the kernel in use, bytes from which "auto" streams, helper threads alive)
PyObject* copy_settings(PyObject*, PyObject*) {
  return Py_BuildValue("(snI)", copy::active_kernel().name, static_cast<Py_ssize_t>(copy::stream_threshold()),
                       copy::helper_count());
}

// force_copy_kernel(name or None): ValueError if this machine cannot run it or there is none of that name.
PyObject* force_copy_kernel(PyObject*, PyObject* name) {
  const copy::Kernel* kernel = nullptr;
  if (name != Py_None) {
    const char* const text = PyUnicode_AsUTF8(name);
    if (text == nullptr) return nullptr;
    kernel = copy::find_kernel(text);
    if (kernel == nullptr) return PyErr_Format(PyExc_ValueError, "no copy kernel is called %R", name);
  }
  if (!copy::force_kernel(kernel)) {
    return PyErr_Format(PyExc_ValueError, "this processor cannot run the copy kernel %R", name);
  }
  Py_RETURN_NONE;
}

constexpr const char* k_copyto_doc = R"(copyto(dst, src, casting='same_kind', where=True, *, mode='auto', threads=None)
--

Copy the values of `src` into `dst`, past the processor's caches where that is faster.

Takes the place of ``numpy.copyto``: `src` is broadcast to the shape of `dst` and cast by the rule
of `casting`, overlapping arrays are right, and errors are NumPy's. Arrays of the same type that
consist of contiguous rows (whole arrays, slices and tiles of images, also with reversed or repeated
rows) are copied by rtpool, everything else by NumPy, where `mode` and `threads` have no meaning.

Parameters
----------
dst : numpy.ndarray
    Where the values go.
src : array_like
    Where they come from.
casting : {'no', 'equiv', 'safe', 'same_kind', 'unsafe'}
    As in ``numpy.copyto``.
where : array_like of bool, default True
    As in ``numpy.copyto``, which does what it leaves out.
mode : {'auto', 'cached', 'stream'}
    ``'stream'`` writes whole cache lines straight to memory without reading them first. It moves a
    third less data, leaves the caches to the program and is up to twice as fast for large copies; it
    loses when the copy would have fitted in the cache and is read again soon. ``'cached'`` copies
    through the caches. ``'auto'`` streams what is at least half as large as the last-level cache, if
    its rows are 256 bytes or longer. It also streams smaller pieces, from 64 KiB on, into an array of
    that size that is being filled call by call, unless the pieces are read as soon as they are written.
threads : int, optional
    At most so many threads copy, each at least 2 MiB. By default one below 128 MiB, and from there on
    as many as the calling thread has cores, up to 4. The helpers are started at the first large
    copy and kept. Use 1 where another thread's scheduling must not matter.

Raises
------
TypeError
    If `dst` is no array, or the values cannot be cast.
ValueError
    If the shapes do not fit, `dst` is read-only, or `mode` or `threads` is none of the above.

Notes
-----
On a Zen 3 core with 32 MiB of last-level cache, streaming 64 MiB took about half the time of copying them through the
cache, and two thirds when the result was read right after. Below 16 MiB streaming loses: 4 MiB took 1.3 times as long,
and 1.8 times as long with the reader, for whom the result must come back from memory. A program that writes much and
reads it late may still gain by ``'stream'`` at smaller sizes, since what was in the caches stays there.

Examples
--------
>>> import numpy as np, rtpool
>>> canvas = np.zeros((2, 6), np.uint8)
>>> rtpool.copyto(canvas[:, 3:], np.ones((2, 3), np.uint8))
>>> canvas
array([[0, 0, 0, 1, 1, 1],
       [0, 0, 0, 1, 1, 1]], dtype=uint8)
)";

PyMethodDef methods[] = {
    {"copyto", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(copyto)), METH_FASTCALL | METH_KEYWORDS,
     k_copyto_doc},
    {"join_arrays", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(join_arrays)), METH_FASTCALL, nullptr},
    {"copy_kernels", copy_kernels, METH_NOARGS, nullptr},
    {"copy_settings", copy_settings, METH_NOARGS, nullptr},
    {"force_copy_kernel", force_copy_kernel, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_copy(PyObject* module) {
  const Reference numpy(PyImport_ImportModule("numpy"));
  if (!numpy) return -1;
  ModuleState* const state = state_of(module);
  state->numpy_copyto = PyObject_GetAttrString(numpy.get(), "copyto");
  if (state->numpy_copyto == nullptr) return -1;
  return PyModule_AddFunctions(module, methods);
}

}  // namespace rtpool::binding
