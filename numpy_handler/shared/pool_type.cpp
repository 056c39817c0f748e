#include "numpy_handler/shared/pool_type.hpp"

#include <cstring>

#include "numpy_handler/pool/common.hpp"
#include "numpy_handler/pool/figures.hpp"
#include "numpy_handler/pool/owner.hpp"
#include "numpy_handler/shared/register.hpp"
#include "numpy_handler/support/data_handler.hpp"

namespace rtpool::binding {
namespace {

using shared::SharedPool;

// For blocks that come to NumPy's default handler after an activation: the pool that has them lives, so its address
// range is in the table.
bool find_shared(const void* address, PyDataMemAllocator* out) noexcept {
  SharedPool* core = SharedPool::find_block(address);
  if (core == nullptr) core = SharedPool::find_fallback_block(address);
  if (core != nullptr) *out = HandlerOver<SharedPool>::allocator(core);
  return core != nullptr;
}

// SharedPool.__new__(cls, how, where, size, prefault, lock, huge_pages, fall_back, strict), all by position and already
// checked. how 0: create, `where` the name or ""; 1: attach by name; 2: attach by address, `where` (id, pid, fd).
PyObject* pool_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  ModuleState* state = state_of(type);
  if (state == nullptr) return nullptr;
  int how = 0, prefault = 1, lock = 0, huge_pages = 0, fall_back = 0, strict = 0;
  PyObject* where = nullptr;
  Py_ssize_t size = 0;
  if ((keywords != nullptr && PyDict_GET_SIZE(keywords) != 0) || PyTuple_GET_SIZE(arguments) != 8) {
    PyErr_SetString(PyExc_TypeError,
                    "shared pools are made by rtpool.SharedPool.create(size) or rtpool.SharedPool.attach(name)");
    return nullptr;
  }
  if (!PyArg_ParseTuple(arguments, "iOnppipp:SharedPool", &how, &where, &size, &prefault, &lock, &huge_pages, &fall_back,
                        &strict)) {
    return nullptr;
  }
  shared::Options options;
  shared::Address address;
  if (how == 2) {
    const char* id = nullptr;
    Py_ssize_t length = 0;
    int pid = 0;
    if (!PyTuple_Check(where)) {
      PyErr_SetString(PyExc_TypeError, "an address is (id, pid, descriptor)");
      return nullptr;
    }
    if (!PyArg_ParseTuple(where, "y#ii", &id, &length, &pid, &address.fd)) return nullptr;
    if (length != sizeof address.id.bytes) {
      PyErr_SetString(PyExc_ValueError, "the id of a shared pool has 16 bytes");
      return nullptr;
    }
    std::memcpy(address.id.bytes, id, sizeof address.id.bytes);
    address.pid = pid;
  } else {
    Py_ssize_t length = 0;
    const char* name = PyUnicode_AsUTF8AndSize(where, &length);
    if (name == nullptr) return nullptr;
    if (length > static_cast<Py_ssize_t>(os::k_segment_name_length)) {
      PyErr_SetString(PyExc_ValueError, "the name of a shared pool is too long");
      return nullptr;
    }
    std::memcpy(options.name, name, static_cast<std::size_t>(length));
  }
  options.size = static_cast<std::uint64_t>(size);
  options.prefault = prefault != 0;
  options.lock = lock != 0;
  options.huge_pages = static_cast<pool::HugePages>(huge_pages);
  options.fall_back = fall_back != 0;
  options.strict = strict != 0;
  shared::CreateResult result;
  {
    const WithoutGil others_run;
    result = how == 0   ? SharedPool::create(options)
             : how == 1 ? SharedPool::attach_name(options)
                        : SharedPool::attach_address(address, options);
  }
  if (result.pool == nullptr) {
    return raise_creation_failure(state, result.step, result.error, result.asked, result.got);
  }
  result.pool->add_reference();
  PyObject* capsule = HandlerOver<SharedPool>::make_capsule(result.pool);
  Reference object(capsule == nullptr ? nullptr : type->tp_alloc(type, 0));
  if (!object) {
    Py_XDECREF(capsule);
    result.pool->close();
    result.pool->drop_reference();
    return nullptr;
  }
  ObjectOver<SharedPool>* self = object_over<SharedPool>(object.get());
  self->state = state;
  self->core = result.pool;
  self->capsule = capsule;
  return object.release();
}

void pool_dealloc(PyObject* object) {
  ObjectOver<SharedPool>* self = object_over<SharedPool>(object);
  PyTypeObject* type = Py_TYPE(object);
  if (self->weak_references != nullptr) PyObject_ClearWeakRefs(object);
  if (self->core != nullptr) {
    // Without close() a capsule that is set somewhere goes on making arrays. At the end of the interpreter frees may still
    // come, so the pool stays, but its end is an orderly one.
    if (!is_finalizing()) self->core->drop_reference();
    else if (!shared_pool_object(object)->closed) self->core->close();
  }
  Py_CLEAR(self->capsule);
  type->tp_free(object);
  Py_DECREF(type);
}

Py_hash_t pool_hash(PyObject* object) {
  return static_cast<Py_hash_t>(reinterpret_cast<std::uintptr_t>(core_of<SharedPool>(object)) >> 4);
}

// _close(): this object makes nothing any more; arrays stay.
PyObject* close_pool(PyObject* object, PyObject*) {
  SharedPoolObject* self = shared_pool_object(object);
  RTPOOL_BEGIN_EXCLUSIVE(object);
  if (!self->closed) {
    self->closed = true;
    self->pool.core->close();
  }
  RTPOOL_END_EXCLUSIVE();
  Py_RETURN_NONE;
}

PyObject* is_closed(PyObject* object, PyObject*) { return PyBool_FromLong(shared_pool_object(object)->closed); }

// What is made through a closed pool could only fail, in NumPy's words, at the first array: say so before.
PyObject* get_capsule(PyObject* object, void*) {
  const SharedPoolObject* self = shared_pool_object(object);
  if (!self->closed) return Py_NewRef(self->pool.capsule);
  PyErr_Format(PyExc_ValueError,
               "%R makes no arrays any more: it was closed. Use it before close() or the end of its `with`, or get it "
               "anew by SharedPool.attach or from a process that has it open",
               object);
  return nullptr;
}

PyGetSetDef pool_getters[] = {
    {"_capsule", get_capsule, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMethodDef pool_methods[32] = {
    {"_close", close_pool, METH_NOARGS, nullptr},
    {"_closed", is_closed, METH_NOARGS, nullptr},
};

PyType_Slot pool_slots[] = {
    {Py_tp_doc, const_cast<char*>("The object over a shared pool of the core; rtpool.SharedPool derives from it.")},
    {Py_tp_new, reinterpret_cast<void*>(pool_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(pool_dealloc)},
    {Py_tp_richcompare, reinterpret_cast<void*>(compare_pools<SharedPool, &ModuleState::shared_pool_type>)},
    {Py_tp_hash, reinterpret_cast<void*>(pool_hash)},
    {Py_sq_contains, reinterpret_cast<void*>(pool_contains<SharedPool>)},
    {Py_tp_members, k_pool_members<SharedPool> + 1},  // `_capsule`, the first, is a getter here
    {Py_tp_getset, pool_getters},
    {Py_tp_methods, pool_methods},
    {0, nullptr},
};

PyType_Spec pool_spec = {
    "rtpool._core.SharedPool",
    sizeof(SharedPoolObject),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    pool_slots,
};

}  // namespace

int register_shared(PyObject* module) {
  ModuleState* state = state_of(module);
  join_methods(pool_methods, k_common_pool_methods<SharedPool>);
  join_methods(pool_methods, k_shared_pool_report_methods);
  join_methods(pool_methods, k_shared_pool_exchange_methods);
  Reference type(PyType_FromModuleAndSpec(module, &pool_spec, nullptr));
  if (!type) return -1;
  state->shared_pool_type = reinterpret_cast<PyTypeObject*>(type.release());
  if (PyModule_AddType(module, state->shared_pool_type) < 0) return -1;
  if (!add_address_finder(find_shared)) {
    PyErr_SetString(PyExc_ImportError, "no room for another kind of pool in the default handler");
    return -1;
  }
  return 0;
}

}  // namespace rtpool::binding
