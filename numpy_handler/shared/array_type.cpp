// `_core.SharedArray`, the handle: made of an array, sent, received, opened.
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <new>

#include "numpy_handler/shared/array.hpp"
#include "numpy_handler/shared/opened_array.hpp"
#include "numpy_handler/shared/pool_type.hpp"
#include "numpy_handler/shared/register.hpp"

namespace rtpool::binding {
namespace {

using shared::BlockRange;
using shared::BlockRef;
using shared::SharedPool;

void release_hold(SharedArrayObject* self) noexcept {
  if (!self->held) return;
  self->held = false;
  self->core->drop(self->layout.ref, self->lineage);
}

void handle_dealloc(PyObject* object) {
  SharedArrayObject* self = shared_array_object(object);
  PyTypeObject* type = Py_TYPE(object);
  if (self->weak_references != nullptr) PyObject_ClearWeakRefs(object);
  if (self->core != nullptr && !is_finalizing()) {
    release_hold(self);
    self->core->drop_reference();
  }
  Py_XDECREF(reinterpret_cast<PyObject*>(self->dtype));
  PyMem_Free(self->layout.extents);
  type->tp_free(object);
  Py_DECREF(type);
}

Reference new_handle(ModuleState* state) noexcept {
  Reference object(state->shared_array_type->tp_alloc(state->shared_array_type, 0));
  if (object) {
    SharedArrayObject* self = shared_array_object(object.get());
    self->state = state;
    new (&self->layout) SharedLayout{};
    new (&self->range) BlockRange{};
  }
  return object;
}

// open(*, writeable=None), called for every frame: without the general parser, which costs as much as all the rest.
PyObject* handle_open(PyObject* object, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  int writeable = -1;
  if (count != 0) {
    PyErr_Format(PyExc_TypeError, "open() takes no positional arguments, got %zd; write open(writeable=...)", count);
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < named; ++i) {
    if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), "writeable") != 0) {
      PyErr_Format(PyExc_TypeError, "open() takes writeable=, not %R", PyTuple_GET_ITEM(names, i));
      return nullptr;
    }
    if (arguments[i] == Py_None) continue;
    writeable = PyObject_IsTrue(arguments[i]);
    if (writeable < 0) return nullptr;
  }
  PyObject* array = nullptr;
  RTPOOL_BEGIN_EXCLUSIVE(object);
  SharedArrayObject* const self = shared_array_object(object);
  if (writeable > 0 && !self->layout.writeable) {
    PyErr_SetString(PyExc_ValueError,
                    "the array was read-only when it was shared (by setflags(write=False), or a view by np.broadcast_to), so "
                    "it opens read-only; share the array it is a view of to write to it");
  } else {
    array = open_array(self, writeable < 0 ? self->layout.writeable : writeable != 0);
  }
  RTPOOL_END_EXCLUSIVE();
  return array;
}

PyObject* handle_drop(PyObject* object, PyObject*) {
  SharedArrayObject* self = shared_array_object(object);
  RTPOOL_BEGIN_EXCLUSIVE(object);
  if (self->core != nullptr) release_hold(self);
  if (self->error == 0) self->error = ESTALE;
  RTPOOL_END_EXCLUSIVE();
  Py_RETURN_NONE;
}

// (receiver, (bytes[, dtype])). The receiver is a type and not a function: pickle writes types and Python's own functions
// by name at once, but for a function written in C it first asks every table it has.
PyObject* reduce_with(SharedArrayObject* self, PyTypeObject* receiver) noexcept {
  SharedMessage message;
  if (self->core == nullptr) return raise_unavailable(self->error);
  message.address = self->core->address();
  if (!is_empty(self->layout)) {
    if (!ensure_held(self)) return nullptr;
    const int error = self->core->depart(self->layout.ref, &message.sender);
    if (error == EOVERFLOW) {
      PyErr_SetString(PyExc_OverflowError, "65,535 handles of this array are under way already");
      return nullptr;
    }
    if (error != 0) return raise_unavailable(error);
  }
  message.type = plain_type(self->dtype);
  const Reference bytes(encode(self->layout, message));
  if (!bytes) return nullptr;
  const Reference arguments(message.type >= 0
                                ? PyTuple_Pack(1, bytes.get())
                                : PyTuple_Pack(2, bytes.get(), reinterpret_cast<PyObject*>(self->dtype)));
  return arguments ? PyTuple_Pack(2, reinterpret_cast<PyObject*>(receiver), arguments.get()) : nullptr;
}

// Each pickling sends the handle on its way once: it keeps the block until it arrives.
PyObject* handle_reduce(PyObject* object, PyObject*) {
  SharedArrayObject* self = shared_array_object(object);
  PyObject* reduced = nullptr;
  RTPOOL_BEGIN_EXCLUSIVE(object);
  reduced = reduce_with(self, self->state->shared_array_type);
  RTPOOL_END_EXCLUSIVE();
  return reduced;
}

PyObject* extents_tuple(const SharedLayout& layout, int from) noexcept {
  Reference tuple(PyTuple_New(layout.dimensions));
  for (int i = 0; tuple && i < layout.dimensions; ++i) {
    PyObject* value = PyLong_FromSsize_t(layout.extents[from + i]);
    if (value == nullptr) return nullptr;
    PyTuple_SET_ITEM(tuple.get(), i, value);
  }
  return tuple.release();
}

PyObject* get_shape(PyObject* object, void*) { return extents_tuple(shared_array_object(object)->layout, 0); }
PyObject* get_strides(PyObject* object, void*) {
  const SharedLayout& layout = shared_array_object(object)->layout;
  return extents_tuple(layout, layout.dimensions);
}
PyObject* get_dtype(PyObject* object, void*) {
  return Py_NewRef(reinterpret_cast<PyObject*>(shared_array_object(object)->dtype));
}
PyObject* get_nbytes(PyObject* object, void*) {
  const SharedArrayObject* self = shared_array_object(object);
  npy_intp bytes = PyDataType_ELSIZE(self->dtype);
  for (int i = 0; i < self->layout.dimensions; ++i) bytes *= self->layout.extents[i];
  return PyLong_FromSsize_t(bytes);
}
PyObject* get_pool_id(PyObject* object, void*) {
  const SharedArrayObject* self = shared_array_object(object);
  if (self->core == nullptr) Py_RETURN_NONE;
  const shared::Address where = self->core->address();
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(where.id.bytes), sizeof where.id.bytes);
}

PyObject* handle_repr(PyObject* object) {
  const Reference shape(get_shape(object, nullptr));
  if (!shape) return nullptr;
  const SharedArrayObject* self = shared_array_object(object);
  return PyUnicode_FromFormat("<rtpool.SharedArray of shape %R, %R%s>", shape.get(), reinterpret_cast<PyObject*>(self->dtype),
                              self->held ? "" : self->error != 0 ? ", gone" : ", opened");
}

PyGetSetDef handle_getters[] = {
    {"shape", get_shape, nullptr, "Shape of the array.", nullptr},
    {"strides", get_strides, nullptr, "Strides of the array in bytes.", nullptr},
    {"dtype", get_dtype, nullptr, "Type of the elements.", nullptr},
    {"nbytes", get_nbytes, nullptr, "Bytes of all elements.", nullptr},
    {"_pool_id", get_pool_id, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

constexpr const char* k_open_text =
    "open(*, writeable=None)\n--\n\nGive the array over the shared memory, without a copy.\n\n"
    "The array keeps the memory from then on, the handle does no longer; it can be opened again as long as\n"
    "somebody keeps it.\n\n"
    "Parameters\n----------\nwriteable : bool, optional\n"
    "    As the array was that was shared, by default. False, or a shared read-only array, gives an array over a mapping\n"
    "    that the kernel lets nobody write through.\n\n"
    "Returns\n-------\nndarray\n\n"
    "Raises\n------\nLookupError\n    The array is gone: everybody has dropped it.\n"
    "FileNotFoundError\n    No living process has the pool open.\n"
    "ValueError\n    The handle and the pool do not fit together, or ``writeable=True`` for an array shared read-only.";

PyMethodDef handle_methods[] = {
    {"open", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(handle_open)), METH_FASTCALL | METH_KEYWORDS,
     k_open_text},
    {"drop", handle_drop, METH_NOARGS, "drop()\n--\n\nKeep the memory no longer; the handle cannot be opened after."},
    {"__reduce__", handle_reduce, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SharedArrayObject, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

// --- making handles

// The handle of an array of `core`, or nullptr with an exception.
PyObject* share_array(ModuleState* state, SharedPool* core, PyArrayObject* array) noexcept {
  if (!check_shareable(PyArray_DESCR(array))) return nullptr;
  Reference handle = new_handle(state);
  if (!handle) return nullptr;
  SharedArrayObject* self = shared_array_object(handle.get());
  SharedLayout& layout = self->layout;
  const int dimensions = PyArray_NDIM(array);
  const std::size_t half = static_cast<std::size_t>(dimensions) * sizeof(npy_intp);
  layout.extents = static_cast<npy_intp*>(PyMem_Malloc(half == 0 ? 1 : 2 * half));
  if (layout.extents == nullptr) return PyErr_NoMemory();
  if (half != 0) {
    std::memcpy(layout.extents, PyArray_DIMS(array), half);
    std::memcpy(layout.extents + dimensions, PyArray_STRIDES(array), half);
  }
  layout.dimensions = dimensions;
  // A place of an array that warns when it is written to (np.broadcast_arrays) is many elements.
  layout.writeable = PyArray_ISWRITEABLE(array) && (PyArray_FLAGS(array) & k_warns_on_write) == 0;
  self->dtype = PyArray_DESCR(array);
  Py_INCREF(reinterpret_cast<PyObject*>(self->dtype));
  core->add_reference();
  self->core = core;
  if (is_empty(layout)) return handle.release();

  int error = EINVAL;
  if (core->segment().offset_of(PyArray_DATA(array), &layout.offset)) {
    if (block_behind(state, array, core, &layout.ref)) {
      error = core->hold(layout.ref, &self->range);
    } else {
      error = core->share(PyArray_DATA(array), &layout.ref, &self->range);
    }
  }
  if (error == 0) {
    self->held = true;
    self->lineage = core->lineage();
    if (lies_within(layout, PyDataType_ELSIZE(self->dtype), self->range)) return handle.release();
    error = EINVAL;
  }
  if (error == EINVAL) {
    PyErr_SetString(PyExc_ValueError,
                    "the array's data are not in this shared pool; make it inside `with rtpool.handler(pool):`, or copy "
                    "it there with `array.copy()`");
    return nullptr;
  }
  if (error == ENOSPC) {
    PyErr_Format(PyExc_MemoryError, "%u arrays of this pool are shared at this moment, and no more can be",
                 core->geometry().records);
    return nullptr;
  }
  return raise_unavailable(error);
}

// _share(array) -> SharedArray
PyObject* share(PyObject* pool, PyObject* object) {
  if (PyArray_Check(object) && check_plain(object)) {
    return share_array(object_over<SharedPool>(pool)->state, core_of<SharedPool>(pool),
                       reinterpret_cast<PyArrayObject*>(object));
  }
  if (!PyErr_Occurred()) {
    PyErr_Format(PyExc_TypeError, "share() needs a NumPy array, not %.200s", Py_TYPE(object)->tp_name);
  }
  return nullptr;
}

// _reduce_by_reference(array) -> what pickles to the array over the same memory; None for arrays that must be copied.
PyObject* reduce_by_reference(PyObject* module, PyObject* object) {
  if (!PyArray_CheckExact(object)) Py_RETURN_NONE;
  ModuleState* const state = state_of(module);
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  SharedPool* core = SharedPool::find(PyArray_DATA(array));
  if (core == nullptr || PyDataType_REFCHK(PyArray_DESCR(array)) || PyArray_NBYTES(array) == 0) Py_RETURN_NONE;
  const Reference handle(share_array(state, core, array));
  return handle ? reduce_with(shared_array_object(handle.get()), state->opened_array_type) : nullptr;
}

// _reduce_handle(handle): its __reduce__, for a dispatch table of pickle.
PyObject* reduce_handle(PyObject* module, PyObject* handle) {
  if (Py_TYPE(handle) == state_of(module)->shared_array_type) return handle_reduce(handle, nullptr);
  PyErr_SetString(PyExc_TypeError, "_reduce_handle needs a SharedArray");
  return nullptr;
}

// Finds the pool of a message, or joins it; what was joined this way stays open until the process ends, since the next
// message will need it again.
SharedPool* pool_of_message(const SharedMessage& message, int* error) noexcept {
  if (SharedPool* open = SharedPool::find(message.address.id); open != nullptr) return open;
  const WithoutGil others_run;
  const shared::CreateResult result = SharedPool::attach_address(message.address, shared::Options{});
  *error = result.error;
  if (result.pool != nullptr) result.pool->add_reference();
  return result.pool;
}

// The handle of a message, from (bytes[, dtype]).
Reference receive(PyTypeObject* type, PyObject* arguments, PyObject* keywords) noexcept {
  const Py_ssize_t count = PyTuple_GET_SIZE(arguments);
  if (count < 1 || count > 2 || (keywords != nullptr && PyDict_GET_SIZE(keywords) != 0)) {
    PyErr_SetString(PyExc_TypeError, "handles are made by SharedPool.share(array)");
    return Reference();
  }
  PyObject* const bytes = PyTuple_GET_ITEM(arguments, 0);
  PyObject* const dtype = count == 2 ? PyTuple_GET_ITEM(arguments, 1) : nullptr;
  Reference handle = new_handle(state_of(type));
  if (!handle) return handle;
  SharedArrayObject* self = shared_array_object(handle.get());
  SharedMessage message;
  if (!decode(bytes, &self->layout, &message)) return Reference();
  if (dtype != nullptr) {
    if (PyArray_DescrConverter(dtype, &self->dtype) == NPY_FAIL) return Reference();
  } else {
    self->dtype = message.type < 0 || message.type > NPY_HALF ? nullptr : PyArray_DescrFromType(message.type);
    if (self->dtype == nullptr || plain_type(self->dtype) != message.type) {
      PyErr_SetString(PyExc_ValueError, "the handle of a shared array came without its dtype");
      return Reference();
    }
  }
  if (!check_shareable(self->dtype)) return Reference();
  int error = 0;
  self->core = pool_of_message(message, &error);
  if (self->core == nullptr) {
    self->error = error != 0 ? error : ENOENT;
    return handle;
  }
  if (is_empty(self->layout)) return handle;
  error = self->core->arrive(self->layout.ref, message.sender, &self->range);
  self->held = error == 0;
  self->lineage = self->core->lineage();
  self->error = error;
  return handle;
}

// SharedArray(bytes[, dtype]), which unpickling calls. What is wrong with the block is said when it is opened: the reader
// of a queue is not the place to hear of it.
PyObject* handle_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  return receive(type, arguments, keywords).release();
}

// _OpenedArray(bytes[, dtype]) -> ndarray
PyObject* opened_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  const Reference handle = receive(type, arguments, keywords);
  if (!handle) return nullptr;
  SharedArrayObject* self = shared_array_object(handle.get());
  return open_array(self, self->layout.writeable);
}

// _shared_pool_at(address) -> id of the open shared pool that holds it, or None
PyObject* shared_pool_at(PyObject*, PyObject* address) {
  void* at = PyLong_AsVoidPtr(address);
  if (at == nullptr && PyErr_Occurred()) return nullptr;
  const SharedPool* core = SharedPool::find(at);
  if (core == nullptr) Py_RETURN_NONE;
  const shared::Address where = core->address();
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(where.id.bytes), sizeof where.id.bytes);
}

PyType_Slot handle_slots[] = {
    {Py_tp_doc, const_cast<char*>(
        "A small handle of an array in a shared pool, made by `SharedPool.share`.\n\n"
        "It can be pickled and sent to other processes, keeps the array's memory until it is opened or dropped, and so\n"
        "does each pickled copy under way. `open` gives the array.")},
    {Py_tp_new, reinterpret_cast<void*>(handle_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(handle_dealloc)},
    {Py_tp_repr, reinterpret_cast<void*>(handle_repr)},
    {Py_tp_getset, handle_getters},
    {Py_tp_methods, handle_methods},
    {Py_tp_members, handle_members},
    {0, nullptr},
};
PyType_Spec handle_spec = {"rtpool._core.SharedArray", sizeof(SharedArrayObject), 0,
                           Py_TPFLAGS_DEFAULT, handle_slots};

PyType_Slot opened_slots[] = {
    {Py_tp_doc, const_cast<char*>("What arrays that travel by reference are unpickled by: calling it gives the array.")},
    {Py_tp_new, reinterpret_cast<void*>(opened_new)},
    {0, nullptr},
};
PyType_Spec opened_spec = {"rtpool._core._OpenedArray", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT, opened_slots};

PyMethodDef functions[] = {
    {"_reduce_handle", reduce_handle, METH_O, nullptr},
    {"_reduce_by_reference", reduce_by_reference, METH_O, nullptr},
    {"_shared_pool_at", shared_pool_at, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyMethodDef k_shared_pool_exchange_methods[] = {
    {"_share", share, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

int register_shared_arrays(PyObject* module) {
  ModuleState* state = state_of(module);
  state->shared_array_type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &handle_spec, nullptr));
  state->opened_array_type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &opened_spec, nullptr));
  for (const PyTypeObject* type : {state->shared_array_type, state->opened_array_type}) {
    if (type == nullptr) return -1;
  }
  if (PyModule_AddType(module, state->shared_array_type) < 0) return -1;
  if (PyModule_AddType(module, state->opened_array_type) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace rtpool::binding
