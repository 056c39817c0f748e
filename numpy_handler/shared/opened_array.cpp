#include "numpy_handler/shared/opened_array.hpp"

#include <cerrno>

#include "numpy_handler/shared/register.hpp"

namespace rtpool::binding {
namespace {

using shared::BlockRef;
using shared::SharedPool;

// One hold of a block for as long as an array looks at it.
struct SharedBlockObject {
  PyObject_HEAD
  SharedPool* core;  // with a reference
  BlockRef ref;
  std::uint32_t lineage;
};

SharedBlockObject* block_object(PyObject* object) noexcept { return reinterpret_cast<SharedBlockObject*>(object); }

void block_dealloc(PyObject* object) {
  SharedBlockObject* self = block_object(object);
  PyTypeObject* type = Py_TYPE(object);
  if (self->core != nullptr && !is_finalizing()) {
    self->core->drop(self->ref, self->lineage);
    self->core->drop_reference();
  }
  type->tp_free(object);
  Py_DECREF(type);
}

PyType_Slot block_slots[] = {
    {Py_tp_doc, const_cast<char*>("Keeps the block of an opened array; the array's base.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(block_dealloc)},
    {0, nullptr},
};
PyType_Spec block_spec = {"rtpool._core.SharedBlock", sizeof(SharedBlockObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots};

}  // namespace

bool is_empty(const SharedLayout& layout) noexcept {
  for (int i = 0; i < layout.dimensions; ++i) {
    if (layout.extents[i] == 0) return true;
  }
  return false;
}

bool ensure_held(SharedArrayObject* self) noexcept {
  if (self->core == nullptr) {
    raise_unavailable(self->error);
    return false;
  }
  if (self->held && self->lineage == self->core->lineage()) return true;
  self->held = false;
  if (self->error != 0) {
    raise_unavailable(self->error);
    return false;
  }
  if (const int error = self->core->hold(self->layout.ref, &self->range); error != 0) {
    raise_unavailable(error);
    return false;
  }
  self->held = true;
  self->lineage = self->core->lineage();
  return true;
}

PyObject* open_array(SharedArrayObject* self, bool writeable) noexcept {
  const SharedLayout& layout = self->layout;
  const bool empty = is_empty(layout);
  if (!empty && !ensure_held(self)) return nullptr;
  const char* data = nullptr;
  if (!empty) {
    if (!lies_within(layout, PyDataType_ELSIZE(self->dtype), self->range)) return raise_unavailable(EBADMSG);
    int error = 0;
    const char* const base = writeable ? self->core->data() : self->core->read_only_data(&error);
    if (base == nullptr) return raise_unavailable(error);
    data = base + layout.offset;
  }
  Py_INCREF(reinterpret_cast<PyObject*>(self->dtype));
  Reference array(PyArray_NewFromDescr(&PyArray_Type, self->dtype, layout.dimensions, layout.extents,
                                       empty ? nullptr : layout.extents + layout.dimensions, const_cast<char*>(data),
                                       writeable ? NPY_ARRAY_WRITEABLE : 0, nullptr));
  if (!array || empty) {
    if (array && !writeable) PyArray_CLEARFLAGS(reinterpret_cast<PyArrayObject*>(array.get()), NPY_ARRAY_WRITEABLE);
    return array.release();
  }
  PyTypeObject* block_type = self->state->shared_block_type;
  PyObject* block = block_type->tp_alloc(block_type, 0);
  if (block == nullptr) return nullptr;
  self->core->add_reference();
  block_object(block)->core = self->core;
  block_object(block)->ref = layout.ref;
  block_object(block)->lineage = self->lineage;
  self->held = false;
  PyArray_UpdateFlags(reinterpret_cast<PyArrayObject*>(array.get()), NPY_ARRAY_UPDATE_ALL);
  if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array.get()), block) < 0) return nullptr;
  return array.release();
}

bool block_behind(const ModuleState* state, PyArrayObject* array, const SharedPool* core, BlockRef* ref) noexcept {
  PyObject* base = PyArray_BASE(array);
  while (base != nullptr && PyArray_Check(base)) base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(base));
  if (base == nullptr || Py_TYPE(base) != state->shared_block_type || block_object(base)->core != core) return false;
  *ref = block_object(base)->ref;
  return true;
}

int register_shared_blocks(PyObject* module) {
  PyTypeObject*& type = state_of(module)->shared_block_type;
  type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &block_spec, nullptr));
  return type == nullptr ? -1 : 0;
}

}  // namespace rtpool::binding
