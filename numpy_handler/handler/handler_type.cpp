#include "numpy_handler/handler/handler_type.hpp"

#include <cstddef>

#include "numpy_handler/handler/capsules.hpp"
#include "numpy_handler/handler/register.hpp"
#include "numpy_handler/pool/default_pool.hpp"
#include "numpy_handler/pool/pool_type.hpp"
#include "pool/refusal.hpp"

namespace rtpool::binding {
namespace {

enum Entry : Py_ssize_t { k_entry_handler, k_entry_replaced, k_entry_below };

HandlerObject* handler_object(PyObject* object) noexcept { return reinterpret_cast<HandlerObject*>(object); }

bool is_entry(PyObject* object) noexcept { return object != nullptr && PyTuple_CheckExact(object); }

// What a handler stands for in the thread that asks.
struct Target {
  Reference pool;
  Reference capsule;
  explicit operator bool() const noexcept { return static_cast<bool>(pool) && static_cast<bool>(capsule); }
};

Reference source_or_default(const HandlerObject* self) noexcept {
  return self->source != nullptr ? Reference::borrow(self->source) : Reference(default_pool(self->state));
}

// This thread's private pool: made at the first call in the thread, gone with the thread or the handler.
Reference pool_of_thread(HandlerObject* self) noexcept {
  Reference pool(PyObject_GetAttrString(self->thread_local_pool, "pool"));
  if (pool || !PyErr_ExceptionMatches(PyExc_AttributeError)) return pool;
  PyErr_Clear();
  const Reference model = source_or_default(self);
  if (!model) return pool;
  pool = Reference(PyObject_CallMethod(model.get(), "_twin", nullptr));
  if (pool && PyObject_SetAttrString(self->thread_local_pool, "pool", pool.get()) < 0) return Reference();
  return pool;
}

Target target_of(HandlerObject* self) noexcept {
  Target target;
  if (self->capsule != nullptr) {
    target.pool = Reference::borrow(self->source);
    // Of other sources than pools the capsule is asked for each time: they may have been closed since.
    target.capsule = is_pool(self->state, self->source) ? Reference::borrow(self->capsule)
                                                        : Reference(capsule_of(self->state, self->source, "pool"));
    return target;
  }
  target.pool = self->thread_local_pool != nullptr ? pool_of_thread(self) : source_or_default(self);
  if (target.pool) target.capsule = Reference(capsule_of(self->state, target.pool.get(), "pool"));
  return target;
}

// The top entry of this context's stack: a new reference; None or nullptr without exception when it is empty.
bool read_top(const ModuleState* state, Reference* top) noexcept {
  PyObject* value = nullptr;
  if (PyContextVar_Get(state->handler_stack, nullptr, &value) < 0) return false;
  *top = Reference(value);
  return true;
}

bool write_top(const ModuleState* state, PyObject* top) noexcept {
  const Reference token(PyContextVar_Set(state->handler_stack, top));
  return static_cast<bool>(token);
}

bool push(HandlerObject* self, PyObject* replaced) noexcept {
  Reference below;
  if (!read_top(self->state, &below)) return false;
  const Reference entry(PyTuple_Pack(3, self, replaced, is_entry(below.get()) ? below.get() : Py_None));
  return entry && write_top(self->state, entry.get());
}

PyObject* handler_enter(PyObject* object, PyObject*) {
  HandlerObject* self = handler_object(object);
  Target target = target_of(self);
  if (!target) return nullptr;
  const Reference replaced(PyDataMem_SetHandler(target.capsule.get()));
  if (!replaced) return nullptr;
  if (!push(self, replaced.get())) {
    const SavedException saved;
    const Reference undone(PyDataMem_SetHandler(replaced.get()));
    return nullptr;
  }
  self->entered.fetch_add(1, std::memory_order_relaxed);
  (void)pool::take_refusal();  // what was refused before is not told of errors in here
  return target.pool.release();
}

// HS-3: `top` with the highest entry of `self` below it taken out. Recurses over the entries above that one.
// A new reference; nullptr without exception when there is no such entry.
Reference without_entry(PyObject* top, const PyObject* self) noexcept {
  PyObject* below = PyTuple_GET_ITEM(top, k_entry_below);
  if (!is_entry(below)) return Reference();
  PyObject* handler = PyTuple_GET_ITEM(top, k_entry_handler);
  if (PyTuple_GET_ITEM(below, k_entry_handler) == self) {
    return Reference(PyTuple_Pack(3, handler, PyTuple_GET_ITEM(below, k_entry_replaced),
                                  PyTuple_GET_ITEM(below, k_entry_below)));
  }
  const Reference rest = without_entry(below, self);
  if (!rest) return Reference();
  return Reference(PyTuple_Pack(3, handler, PyTuple_GET_ITEM(top, k_entry_replaced), rest.get()));
}

// Leaves an entry that is not the top of this context's stack, or is in another context altogether.
bool leave_below(HandlerObject* self, PyObject* top) noexcept {
  if (is_entry(top)) {
    const Reference rest = without_entry(top, reinterpret_cast<PyObject*>(self));
    if (rest) return write_top(self->state, rest.get());
    if (PyErr_Occurred()) return false;
  }
  if (self->entered.load(std::memory_order_relaxed) > 0) return true;
  PyErr_SetString(PyExc_RuntimeError, "this handler was left without having been entered");
  return false;
}

// Errors that NumPy raises without a word about sizes; those with one are explained where they are made.
bool explain_refusal(const ModuleState* state, PyObject* error) noexcept {
  if (state->explain_refusal == nullptr || Py_TYPE(error) != reinterpret_cast<PyTypeObject*>(PyExc_MemoryError)) return true;
  return static_cast<bool>(Reference(PyObject_CallOneArg(state->explain_refusal, error)));
}

PyObject* handler_exit(PyObject* object, PyObject* const* arguments, Py_ssize_t count) {
  HandlerObject* self = handler_object(object);
  Reference top;
  if (!read_top(self->state, &top)) return nullptr;
  if (is_entry(top.get()) && PyTuple_GET_ITEM(top.get(), k_entry_handler) == object) {
    const Reference left(PyDataMem_SetHandler(PyTuple_GET_ITEM(top.get(), k_entry_replaced)));
    if (!left || !write_top(self->state, PyTuple_GET_ITEM(top.get(), k_entry_below))) return nullptr;
  } else if (!leave_below(self, top.get())) {
    return nullptr;
  }
  self->entered.fetch_sub(1, std::memory_order_relaxed);
  if (count > 1 && arguments[1] != Py_None && !explain_refusal(self->state, arguments[1])) return nullptr;
  Py_RETURN_NONE;
}

Reference new_thread_local() noexcept {
  const Reference module(PyImport_ImportModule("threading"));
  return module ? Reference(PyObject_CallMethod(module.get(), "local", nullptr)) : Reference();
}

// Handler.__new__(cls, pool=None, *, per_thread=False)
PyObject* handler_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  ModuleState* state = state_of(type);
  if (state == nullptr) return nullptr;
  PyObject* source = Py_None;
  int per_thread = 0;
  if (keywords != nullptr || PyTuple_GET_SIZE(arguments) != 0) {
    static const char* names[] = {"pool", "per_thread", nullptr};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|O$p:handler", const_cast<char**>(names), &source,
                                     &per_thread)) {
      return nullptr;
    }
  }
  Reference capsule;
  if (source != Py_None) {
    if (PyCallable_Check(source)) {
      PyErr_SetString(PyExc_TypeError,
                      "rtpool.handler got a callable instead of a pool; as a decorator it is written with parentheses: "
                      "@rtpool.handler()");
      return nullptr;
    }
    capsule = Reference(capsule_of(state, source, "pool"));
    if (!capsule) return nullptr;
    if (per_thread != 0 && !PyObject_HasAttrString(source, "_twin")) {
      PyErr_Format(PyExc_TypeError, "per_thread=True makes a pool of the same options in each thread, which %.200s "
                   "cannot; give an rtpool.Pool", Py_TYPE(source)->tp_name);
      return nullptr;
    }
  }
  Reference thread_local_pool;
  if (per_thread != 0) {
    thread_local_pool = new_thread_local();
    if (!thread_local_pool) return nullptr;
    capsule = Reference();
  }
  HandlerObject* self = handler_object(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  self->state = state;
  self->source = source == Py_None ? nullptr : Py_NewRef(source);
  self->capsule = capsule.release();
  self->thread_local_pool = thread_local_pool.release();
  return reinterpret_cast<PyObject*>(self);
}

int handler_traverse(PyObject* object, visitproc visit, void* arg) {
  HandlerObject* self = handler_object(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->source);
  Py_VISIT(self->thread_local_pool);
  return 0;
}

int handler_clear(PyObject* object) {
  HandlerObject* self = handler_object(object);
  Py_CLEAR(self->thread_local_pool);
  return 0;
}

void handler_dealloc(PyObject* object) {
  HandlerObject* self = handler_object(object);
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  Py_CLEAR(self->source);
  Py_CLEAR(self->capsule);
  Py_CLEAR(self->thread_local_pool);
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject* get_pool(PyObject* object, void*) {
  HandlerObject* self = handler_object(object);
  return (self->thread_local_pool != nullptr ? pool_of_thread(self) : source_or_default(self)).release();
}

PyObject* get_source(PyObject* object, void*) {
  PyObject* source = handler_object(object)->source;
  return Py_NewRef(source == nullptr ? Py_None : source);
}

PyObject* get_per_thread(PyObject* object, void*) {
  return PyBool_FromLong(handler_object(object)->thread_local_pool != nullptr);
}

PyGetSetDef handler_getters[] = {
    {"pool", get_pool, nullptr, "The pool that entering in this thread uses.", nullptr},
    {"per_thread", get_per_thread, nullptr, "Whether each entering thread has a private pool.", nullptr},
    {"_source", get_source, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMethodDef handler_methods[] = {
    {"__enter__", handler_enter, METH_NOARGS, nullptr},
    {"__exit__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(handler_exit)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot handler_slots[] = {
    {Py_tp_doc, const_cast<char*>("What rtpool.handler derives from: the entering and leaving.")},
    {Py_tp_new, reinterpret_cast<void*>(handler_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(handler_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(handler_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(handler_clear)},
    {Py_tp_getset, handler_getters},
    {Py_tp_methods, handler_methods},
    {0, nullptr},
};

PyType_Spec handler_spec = {
    "rtpool._core.Handler",
    sizeof(HandlerObject),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    handler_slots,
};

// set_handler(source) -> the capsule that was set before
PyObject* set_handler(PyObject* module, PyObject* source) {
  if (source == Py_None) return PyDataMem_SetHandler(nullptr);
  if (PyCapsule_CheckExact(source)) {
    return handler_of_capsule(source, "handler") == nullptr ? nullptr : PyDataMem_SetHandler(source);
  }
  const Reference capsule(capsule_of(state_of(module), source, "handler"));
  return capsule ? PyDataMem_SetHandler(capsule.get()) : nullptr;
}

// get_handler(array or None) -> capsule; None for an array that does not own its data
PyObject* get_handler(PyObject*, PyObject* array) {
  if (array == Py_None) return PyDataMem_GetHandler();
  if (!PyArray_Check(array)) {
    PyErr_Format(PyExc_TypeError, "array must be a NumPy array or None, not %.200s", Py_TYPE(array)->tp_name);
    return nullptr;
  }
  PyObject* capsule = PyArray_HANDLER(reinterpret_cast<PyArrayObject*>(array));
  return Py_NewRef(capsule == nullptr ? Py_None : capsule);
}

PyMethodDef functions[] = {
    {"set_handler", set_handler, METH_O, nullptr},
    {"get_handler", get_handler, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_handler(PyObject* module) {
  ModuleState* state = state_of(module);
  state->handler_stack = PyContextVar_New("rtpool_handlers", nullptr);
  if (state->handler_stack == nullptr) return -1;
  Reference type(PyType_FromModuleAndSpec(module, &handler_spec, nullptr));
  if (!type) return -1;
  state->handler_type = reinterpret_cast<PyTypeObject*>(type.release());
  if (PyModule_AddType(module, state->handler_type) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace rtpool::binding
