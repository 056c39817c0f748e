// `_core._record_*`: the recorder and the places behind it, for the package's `record`.
//
// Thread rule: start, stop and finish by one thread at a time, which the package sees to.
#include <cstdio>

#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/shared/pool_type.hpp"
#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/trace/places.hpp"
#include "numpy_handler/trace/register.hpp"
#include "os/cpu.hpp"
#include "os/usage.hpp"
#include "trace/recorder.hpp"

namespace rtpool::binding {
namespace {

int begin_recording(PyObject* module, PyObject* pool) noexcept {
  const ModuleState* const state = state_of(module);
  if (is_pool(state, pool)) return pool_object(pool)->core->begin_recording();
  const bool is_shared = PyObject_TypeCheck(pool, reinterpret_cast<PyTypeObject*>(state->shared_pool_type));
  return is_shared ? core_of<shared::SharedPool>(pool)->begin_recording() : EINVAL;
}

void record_none() noexcept {
  pool::Pool::record_none();
  shared::SharedPool::record_none();
}

// _record_start(file, mode, limit, buffer, stacks, meta, pools or None): the file's descriptor is taken over.
PyObject* record_start(PyObject* module, PyObject* arguments) {
  int file = -1;
  int mode = 0;
  int stacks = 0;
  unsigned long long limit = 0;
  unsigned long long buffer = 0;
  const char* meta = nullptr;
  Py_ssize_t meta_bytes = 0;
  PyObject* pools = nullptr;
  if (!PyArg_ParseTuple(arguments, "iiKKiy#O:_record_start", &file, &mode, &limit, &buffer, &stacks, &meta, &meta_bytes, &pools)) return nullptr;
  trace::Recorder& recorder = trace::recorder();
  trace::RecorderOptions options;
  options.mode = static_cast<trace::Mode>(mode);
  options.file = file;
  options.limit = limit;
  options.buffer = buffer;
  options.where = stacks == 0 ? nullptr : where_am_i;
  int error = places().begin(static_cast<Stacks>(stacks));
  if (error == 0) error = recorder.start(options, meta, static_cast<std::size_t>(meta_bytes));
  if (error == 0) {
    if (pools == Py_None) {
      error = pool::Pool::record_all();
      if (error == 0) error = shared::SharedPool::record_all();
    } else {
      for (Py_ssize_t i = 0; error == 0 && i < PyTuple_GET_SIZE(pools); ++i) error = begin_recording(module, PyTuple_GET_ITEM(pools, i));
    }
    if (error != 0) {
      record_none();
      recorder.stop();
      recorder.finish("{}", 2);
    }
  }
  if (error == 0) Py_RETURN_NONE;
  places().end();
  errno = error;
  return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject* report_tuple() noexcept {
  const trace::RecorderReport report = trace::recorder().report();
  using Wide = unsigned long long;
  return Py_BuildValue("(KKKKKiK)", static_cast<Wide>(report.events), static_cast<Wide>(report.lost_no_room),
                       static_cast<Wide>(report.lost_by_limit), static_cast<Wide>(report.dropped_old), static_cast<Wide>(report.bytes),
                       report.write_error, static_cast<Wide>(places().unkept()));
}

// _record_stop() -> (events, lost for want of room, lost by the limit, dropped from the ring, bytes, errno value, places not kept)
PyObject* record_stop(PyObject*, PyObject*) {
  {
    const WithoutGil others_run;
    record_none();
    trace::recorder().stop();
  }
  return report_tuple();
}

// _record_forked(): in a child, before anything else here.
PyObject* record_forked(PyObject*, PyObject*) {
  places().reset_after_fork();
  Py_RETURN_NONE;
}

// _record_report() -> as _record_stop, so far
PyObject* record_report(PyObject*, PyObject*) { return report_tuple(); }

// _record_finish(end): the last record; the file is closed.
PyObject* record_finish(PyObject*, PyObject* end) {
  char* text = nullptr;
  Py_ssize_t bytes = 0;
  if (PyBytes_AsStringAndSize(end, &text, &bytes) < 0) return nullptr;
  trace::recorder().finish(text, static_cast<std::size_t>(bytes));
  places().end();
  Py_RETURN_NONE;
}

// _record_mark(kind, number): and the thread's page faults so far, where the kernel may be asked.
PyObject* record_mark(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "_record_mark(kind, number)");
    return nullptr;
  }
  const unsigned long kind = PyLong_AsUnsignedLong(arguments[0]);
  const unsigned long long number = PyLong_AsUnsignedLongLong(arguments[1]);
  if (PyErr_Occurred()) return nullptr;
  trace::Recorder& recorder = trace::recorder();
  if (!recorder.running()) Py_RETURN_NONE;
  const bool may_wait = !pool::Pool::any_frozen();
  if (may_wait) {
    static const std::unique_ptr<os::Usage> usage = os::make_usage();
    os::UsageCounts counts;
    if (usage != nullptr && usage->read(&counts) == 0) recorder.mark(trace::Mark::faults, counts.minor_faults + counts.major_faults, true);
  }
  recorder.mark(static_cast<trace::Mark>(kind), number, may_wait);
  Py_RETURN_NONE;
}

// _record_span_name(number, name)
PyObject* record_span_name(PyObject*, PyObject* arguments) {
  unsigned long long number = 0;
  const char* name = nullptr;
  Py_ssize_t length = 0;
  if (!PyArg_ParseTuple(arguments, "Ks#:_record_span_name", &number, &name, &length)) return nullptr;
  constexpr Py_ssize_t k_longest = 1024;
  if (length > k_longest) length = k_longest;
  std::uint8_t item[1 + 2 * trace::k_longest_varint + k_longest];
  item[0] = trace::k_span_item;
  std::uint8_t* at = trace::put_varint(trace::put_varint(item + 1, number), static_cast<std::uint64_t>(length));
  std::memcpy(at, name, static_cast<std::size_t>(length));
  at += length;
  return PyBool_FromLong(trace::recorder().add_names(item, static_cast<std::size_t>(at - item), !pool::Pool::any_frozen()));
}

// _record_origin(array) -> (place, age in the recorder's units, code, instruction, line, end line, column, end column) or None
PyObject* record_origin(PyObject*, PyObject* array) {
  if (!PyArray_Check(array)) {
    PyErr_Format(PyExc_TypeError, "origin() needs a NumPy array, not %.200s", Py_TYPE(array)->tp_name);
    return nullptr;
  }
  // Views answer as the array that holds the memory: its address is the block's.
  PyObject* holder = array;
  while (PyArray_Check(holder)) {
    PyObject* const base = PyArray_BASE(reinterpret_cast<PyArrayObject*>(holder));
    if (base == nullptr || !PyArray_Check(base)) break;
    holder = base;
  }
  const void* const block = PyArray_DATA(reinterpret_cast<PyArrayObject*>(holder));
  std::uint64_t age = 0;
  std::uint32_t place = 0;
  if (const pool::Pool* const pool = pool::Pool::find(block); pool != nullptr) {
    place = pool->origin(block, &age);
  } else if (shared::SharedPool* const shared = shared::SharedPool::find_block(block); shared != nullptr) {
    place = shared->origin(block, &age);
  }
  PlaceInfo info;
  if (place == 0 || !places().describe(place, &info)) Py_RETURN_NONE;
  return Py_BuildValue("(IKOiiiii)", place, static_cast<unsigned long long>(age), reinterpret_cast<PyObject*>(info.code), info.instruction,
                       info.line, info.end_line, info.column, info.end_column);
}

// _record_machine() -> (whether times are the processor's counter, bits they are shifted by, bytes of level 1, 2 and 3)
PyObject* record_machine(PyObject*, PyObject*) {
  const os::CacheSizes& caches = os::cache_sizes();
  return Py_BuildValue("(Oinnn)", os::Ticks::choose().is_counter() ? Py_True : Py_False, static_cast<int>(trace::Recorder::k_time_shift),
                       static_cast<Py_ssize_t>(caches.level1), static_cast<Py_ssize_t>(caches.level2), static_cast<Py_ssize_t>(caches.level3));
}

// _record_now() -> the recorder's clock
PyObject* record_now(PyObject*, PyObject*) { return PyLong_FromUnsignedLongLong(os::Ticks::choose().now() >> trace::Recorder::k_time_shift); }

PyMethodDef functions[] = {
    {"_record_start", record_start, METH_VARARGS, nullptr},
    {"_record_stop", record_stop, METH_NOARGS, nullptr},
    {"_record_report", record_report, METH_NOARGS, nullptr},
    {"_record_forked", record_forked, METH_NOARGS, nullptr},
    {"_record_finish", record_finish, METH_O, nullptr},
    {"_record_mark", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(record_mark)), METH_FASTCALL, nullptr},
    {"_record_span_name", record_span_name, METH_VARARGS, nullptr},
    {"_record_origin", record_origin, METH_O, nullptr},
    {"_record_now", record_now, METH_NOARGS, nullptr},
    {"_record_machine", record_machine, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_recording(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
