// `_core.MachineSettings`: scheduling, affinity, locked memory and wake-up latency for the span of a section; and what
// the scheduler says of the calling thread.
#include <algorithm>
#include <memory>
#include <new>

#include "numpy_handler/objects/reserve.hpp"
#include "numpy_handler/realtime/register.hpp"
#include "numpy_handler/realtime/types.hpp"
#include "pool/pool.hpp"
#include "realtime/settings.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::binding {
namespace {

struct SettingsObject {
  PyObject_HEAD
  realtime::Settings* settings;
};

realtime::Settings& settings_of(PyObject* object) noexcept { return *reinterpret_cast<SettingsObject*>(object)->settings; }

PyObject* settings_new(PyTypeObject* type, PyObject*, PyObject*) {
  Reference object(type->tp_alloc(type, 0));
  if (!object) return nullptr;
  auto* self = reinterpret_cast<SettingsObject*>(object.get());
  self->settings = new (std::nothrow) realtime::Settings(os::scheduling());
  if (self->settings == nullptr) return PyErr_NoMemory();
  return object.release();
}

void settings_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  delete reinterpret_cast<SettingsObject*>(object)->settings;
  type->tp_free(object);
  Py_DECREF(type);
}

// Reads an iterable of processor numbers. False with an exception.
bool read_processors(PyObject* numbers, cpu_set_t* out) noexcept {
  CPU_ZERO(out);
  const Reference sequence(PySequence_Tuple(numbers));
  if (!sequence) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sequence.get()); ++i) {
    const long number = PyLong_AsLong(PyTuple_GET_ITEM(sequence.get(), i));
    if (number == -1 && PyErr_Occurred()) return false;
    if (number < 0 || number >= CPU_SETSIZE) {
      PyErr_Format(PyExc_ValueError, "processor %ld: numbers are from 0 to %d", number, CPU_SETSIZE - 1);
      return false;
    }
    CPU_SET(static_cast<std::size_t>(number), out);
  }
  return true;
}

// apply(cpus or None, lock_process, latency_us or -1, priority or 0, inherit) -> errno values (affinity, lock, latency,
// priority, children); None for what was not asked for
PyObject* settings_apply(PyObject* object, PyObject* arguments) {
  PyObject* processors = nullptr;
  int lock_process = 0;
  int latency = -1;
  int priority = 0;
  int inherit = 0;
  if (!PyArg_ParseTuple(arguments, "Opiip:apply", &processors, &lock_process, &latency, &priority, &inherit)) {
    return nullptr;
  }
  realtime::SettingsRequest request;
  request.set_affinity = processors != Py_None;
  if (request.set_affinity && !read_processors(processors, &request.affinity)) return nullptr;
  request.lock_process = lock_process != 0;
  request.wakeup_latency = latency;
  request.priority = priority;
  request.inherit = inherit != 0;
  realtime::Settings& settings = settings_of(object);
  // What pools have given back does not come again for this, nor what the interpreter's allocator holds nothing in;
  // where there is no room to say so, or too much of it, it does.
  constexpr std::size_t k_most_absent = 4096;
  const std::unique_ptr<os::AddressRange[]> absent(
      request.lock_process ? new (std::nothrow) os::AddressRange[k_most_absent] : nullptr);
  std::size_t count = absent != nullptr ? reserved_for_objects(absent.get(), k_most_absent) : 0;
  {
    const WithoutGil others_run;
    if (absent != nullptr) {
      count += pool::Pool::absent_ranges(absent.get() + count, k_most_absent - count);
      count += shared::SharedPool::absent_ranges(absent.get() + count, k_most_absent - count);
      std::sort(absent.get(), absent.get() + count, [](const auto& a, const auto& b) { return a.begin < b.begin; });
      request.absent = {absent.get(), count};
    }
    settings.apply(request);
  }
  Reference errors(PyTuple_New(static_cast<Py_ssize_t>(realtime::k_settings)));
  for (std::size_t i = 0; errors && i < realtime::k_settings; ++i) {
    const auto setting = static_cast<realtime::Setting>(i);
    PyObject* error = settings.asked(setting) ? PyLong_FromLong(settings.error(setting)) : Py_NewRef(Py_None);
    if (error == nullptr) return nullptr;
    PyTuple_SET_ITEM(errors.get(), static_cast<Py_ssize_t>(i), error);
  }
  return errors.release();
}

// restore() -> 0 or the first errno value
PyObject* settings_restore(PyObject* object, PyObject*) {
  int error = 0;
  {
    const WithoutGil others_run;
    error = settings_of(object).restore();
  }
  return PyLong_FromLong(error);
}

PyMethodDef settings_methods[] = {
    {"apply", settings_apply, METH_VARARGS, nullptr},
    {"restore", settings_restore, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot settings_slots[] = {
    {Py_tp_doc, const_cast<char*>("Settings of the machine for the span of a section; rtpool.realtime uses it.")},
    {Py_tp_new, reinterpret_cast<void*>(settings_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(settings_dealloc)},
    {Py_tp_methods, settings_methods},
    {0, nullptr},
};

PyType_Spec settings_spec = {
    "rtpool._core.MachineSettings", sizeof(SettingsObject), 0, Py_TPFLAGS_DEFAULT, settings_slots,
};

const char* policy_name(os::Policy policy) noexcept {
  switch (policy) {
    case os::Policy::other: return "SCHED_OTHER";
    case os::Policy::batch: return "SCHED_BATCH";
    case os::Policy::idle: return "SCHED_IDLE";
    case os::Policy::fifo: return "SCHED_FIFO";
    case os::Policy::round_robin: return "SCHED_RR";
    case os::Policy::deadline: return "SCHED_DEADLINE";
    case os::Policy::unknown: break;
  }
  return "unknown";
}

// thread_scheduling() -> (policy, priority, nice, highest priority permitted) of the calling thread
PyObject* thread_scheduling(PyObject*, PyObject*) {
  os::ThreadScheduling scheduling;
  if (const int error = os::scheduling().thread_scheduling(&scheduling)) {
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
  }
  return Py_BuildValue("(siii)", policy_name(scheduling.policy), scheduling.priority, scheduling.nice,
                       os::scheduling().allowed_priority());
}

PyMethodDef functions[] = {
    {"thread_scheduling", thread_scheduling, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_realtime_settings(PyObject* module) {
  const Reference type(PyType_FromModuleAndSpec(module, &settings_spec, nullptr));
  if (!type) return -1;
  if (PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(type.get())) < 0) return -1;
  return PyModule_AddFunctions(module, functions);
}

}  // namespace rtpool::binding
