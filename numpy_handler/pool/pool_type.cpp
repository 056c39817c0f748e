#include "numpy_handler/pool/pool_type.hpp"

#include <cstring>

#include "numpy_handler/pool/common.hpp"
#include "numpy_handler/pool/figures.hpp"
#include "numpy_handler/pool/register.hpp"
#include "numpy_handler/support/data_handler.hpp"

namespace rtpool::binding {
namespace {

PyObject* id_of(const pool::Pool* core) noexcept { return PyLong_FromUnsignedLongLong(core->id()); }

// Writes down that `object` stands for its core pool. Nothing of it is needed for the pool to work, only for `owner`
// to find the same object again.
int note_object(PoolObject* object) noexcept {
  const Reference id(id_of(object->core));
  const Reference weak(id ? PyWeakref_NewRef(reinterpret_cast<PyObject*>(object), nullptr) : nullptr);
  return weak ? PyDict_SetItem(object->state->pools, id.get(), weak.get()) : -1;
}

// Takes over one reference to `core`, also on failure.
PyObject* new_object(PyTypeObject* type, ModuleState* state, pool::Pool* core) noexcept {
  Reference capsule(HandlerOver<pool::Pool>::make_capsule(core));
  if (!capsule) return nullptr;
  Reference object(type->tp_alloc(type, 0));
  if (!object) return nullptr;
  PoolObject* self = pool_object(object.get());
  self->state = state;
  self->core = core;
  self->capsule = capsule.release();
  if (note_object(self) < 0) return nullptr;
  return object.release();
}

// Pool.__new__(cls, size, limit, name, prefault, lock, huge_pages, when_full, zero_on_free, strict, debug, idle), all by
// position and already checked: sizes in bytes (limit 0: none given), enumerations as the core numbers them, idle in nanoseconds (0:
// never).
PyObject* pool_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  ModuleState* state = state_of(type);
  if (state == nullptr) return nullptr;
  if (keywords != nullptr && PyDict_GET_SIZE(keywords) != 0) {
    PyErr_SetString(PyExc_TypeError, "_core.Pool takes its arguments by position; use rtpool.Pool");
    return nullptr;
  }
  Py_ssize_t size = 0;
  Py_ssize_t limit = 0;
  const char* name = nullptr;
  Py_ssize_t name_length = 0;
  long long idle = 0;
  int prefault = 1, lock = 0, huge_pages = 0, when_full = 0, zero_on_free = 0, strict = 0, debug = 0;
  if (!PyArg_ParseTuple(arguments, "nns#ppiipppL:Pool", &size, &limit, &name, &name_length, &prefault, &lock, &huge_pages,
                        &when_full, &zero_on_free, &strict, &debug, &idle)) {
    return nullptr;
  }
  if (size < 0 || limit < 0 || idle < 0 || name_length >= static_cast<Py_ssize_t>(pool::k_name_capacity) || huge_pages < 0 ||
      huge_pages > static_cast<int>(pool::HugePages::explicit_1gib) || when_full < 0 ||
      when_full > static_cast<int>(pool::WhenFull::raise)) {
    PyErr_SetString(PyExc_ValueError, "_core.Pool takes checked arguments only; use rtpool.Pool");
    return nullptr;
  }
  pool::Options options;
  options.size = static_cast<std::size_t>(size);
  options.limit = static_cast<std::size_t>(limit);
  std::memcpy(options.name, name, static_cast<std::size_t>(name_length));
  options.prefault = prefault != 0;
  options.lock = lock != 0;
  options.huge_pages = static_cast<pool::HugePages>(huge_pages);
  options.when_full = static_cast<pool::WhenFull>(when_full);
  options.zero_on_free = zero_on_free != 0;
  options.strict = strict != 0;
  options.debug = debug != 0;
  options.idle = idle;
  options.watch = true;
  pool::CreateResult result;
  {
    const WithoutGil others_run;
    result = pool::Pool::create(options);
  }
  if (result.pool == nullptr) {
    return raise_creation_failure(state, result.step, result.error, result.asked, result.got);
  }
  return new_object(type, state, result.pool);
}

// Forgets the dead object; another one that stands for the same core pool by now stays.
void forget_object(PoolObject* self) noexcept {
  PyObject* pools = self->state->pools;
  if (pools == nullptr) return;
  const SavedException saved;
  // Looking and removing are one: between them `object_of_pool` might enter a new object.
  RTPOOL_BEGIN_EXCLUSIVE(pools);
  const Reference id(id_of(self->core));
  const Reference weak(id ? dict_item(pools, id.get()).release() : nullptr);
  if (weak && !weak_target(weak.get())) (void)PyDict_DelItem(pools, id.get());
  PyErr_Clear();
  RTPOOL_END_EXCLUSIVE();
}

void pool_dealloc(PyObject* object) {
  PoolObject* self = pool_object(object);
  PyTypeObject* type = Py_TYPE(object);
  if (self->weak_references != nullptr) PyObject_ClearWeakRefs(object);
  if (self->capsule != nullptr) forget_object(self);
  Py_CLEAR(self->capsule);
  type->tp_free(object);
  Py_DECREF(type);
}

Py_hash_t pool_hash(PyObject* object) { return static_cast<Py_hash_t>(pool_object(object)->core->id()); }

PyObject* pool_reduce(PyObject*, PyObject*) {
  PyErr_SetString(PyExc_TypeError,
                  "a pool is memory of this process and cannot be copied or pickled; to use memory in several "
                  "processes, see rtpool.SharedPool");
  return nullptr;
}

PyMethodDef pool_methods[48] = {
    {"__reduce__", pool_reduce, METH_NOARGS, nullptr},
};

PyType_Slot pool_slots[] = {
    {Py_tp_doc, const_cast<char*>("The object over a pool of the core; rtpool.Pool derives from it.")},
    {Py_tp_new, reinterpret_cast<void*>(pool_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(pool_dealloc)},
    {Py_tp_richcompare, reinterpret_cast<void*>(compare_pools<pool::Pool, &ModuleState::pool_type>)},
    {Py_tp_hash, reinterpret_cast<void*>(pool_hash)},
    {Py_sq_contains, reinterpret_cast<void*>(pool_contains<pool::Pool>)},
    {Py_tp_members, k_pool_members<pool::Pool>},
    {Py_tp_methods, pool_methods},
    {0, nullptr},
};

PyType_Spec pool_spec = {
    "rtpool._core.Pool",
    sizeof(PoolObject),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    pool_slots,
};

// _set_pool_class(cls): the class of the objects that `owner` makes for pools that outlived theirs.
PyObject* set_pool_class(PyObject* module, PyObject* type) {
  ModuleState* state = state_of(module);
  if (!PyType_Check(type) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type), state->pool_type)) {
    PyErr_SetString(PyExc_TypeError, "_set_pool_class needs a class derived from _core.Pool");
    return nullptr;
  }
  RTPOOL_BEGIN_EXCLUSIVE(module);
  Py_XSETREF(state->pool_class, Py_NewRef(type));
  RTPOOL_END_EXCLUSIVE();
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"_set_pool_class", set_pool_class, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyObject* object_of_pool(ModuleState* state, pool::Pool* core) noexcept {
  PyObject* found = nullptr;
  RTPOOL_BEGIN_EXCLUSIVE(state->pools);
  const Reference id(id_of(core));
  const Reference weak(id ? dict_item(state->pools, id.get()).release() : nullptr);
  if (weak) found = weak_target(weak.get()).release();
  if (found == nullptr && !PyErr_Occurred()) {
    core->add_reference();
    found = new_object(reinterpret_cast<PyTypeObject*>(state->pool_class), state, core);
  }
  RTPOOL_END_EXCLUSIVE();
  return found;
}

int register_pool(PyObject* module) {
  ModuleState* state = state_of(module);
  join_methods(pool_methods, k_common_pool_methods<pool::Pool>);
  join_methods(pool_methods, k_pool_report_methods);
  join_methods(pool_methods, k_pool_control_methods);
  Reference type(PyType_FromModuleAndSpec(module, &pool_spec, nullptr));
  if (!type) return -1;
  state->pool_class = Py_NewRef(type.get());
  state->pool_type = reinterpret_cast<PyTypeObject*>(type.release());
  state->pools = PyDict_New();
  state->creation_failure = PyErr_NewException("rtpool._core.CreationFailure", PyExc_Exception, nullptr);
  if (state->pools == nullptr || state->creation_failure == nullptr) return -1;
  if (PyModule_AddObjectRef(module, "CreationFailure", state->creation_failure) < 0) return -1;
  if (PyModule_AddType(module, state->pool_type) < 0) return -1;
  if (add_stats_fields(module) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace rtpool::binding
