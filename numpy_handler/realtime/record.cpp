// `_core.Tick`, `_core.Histogram`, and what `_core.Loop` tells of its record.
#include <algorithm>
#include <climits>
#include <cmath>
#include <iterator>
#include <new>

#include "numpy_handler/realtime/register.hpp"
#include "numpy_handler/realtime/types.hpp"

namespace rtpool::binding {
namespace {

constexpr double k_seconds = 1e-9;

// --- Tick -------------------------------------------------------------------------------------------------------------

TickObject* tick_object(PyObject* object) noexcept { return reinterpret_cast<TickObject*>(object); }

PyObject* tick_index(PyObject* object, void*) { return PyLong_FromLongLong(tick_object(object)->index); }

PyObject* tick_lateness(PyObject* object, void*) {
  return PyFloat_FromDouble(static_cast<double>(tick_object(object)->lateness) * k_seconds);
}

PyObject* tick_skipped(PyObject* object, void*) {
  return PyLong_FromUnsignedLongLong(tick_object(object)->skipped);
}

PyObject* tick_warmup(PyObject* object, void*) { return PyBool_FromLong(tick_object(object)->index < 0); }

PyObject* tick_elapsed(PyObject* object, void*) {
  return PyFloat_FromDouble(static_cast<double>(os::clock().now() - tick_object(object)->started) * k_seconds);
}

PyObject* tick_budget_left(PyObject* object, void*) {
  const os::Nanoseconds deadline = tick_object(object)->deadline;
  if (deadline == INT64_MAX) return PyFloat_FromDouble(HUGE_VAL);
  return PyFloat_FromDouble(static_cast<double>(deadline - os::clock().now()) * k_seconds);
}

PyObject* tick_repr(PyObject* object) {
  const TickObject* self = tick_object(object);
  return PyUnicode_FromFormat("<tick %lld: %lld ns late>", static_cast<long long>(self->index),
                              static_cast<long long>(self->lateness));
}

void tick_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_Free(object);
  Py_DECREF(type);
}

PyGetSetDef tick_members[] = {
    {"index", tick_index, nullptr, "Number of the iteration; 0 is the first measured one, warm-up ends with -1.", nullptr},
    {"lateness", tick_lateness, nullptr, "Seconds between the instant it was due and its start; 0 without a period.",
     nullptr},
    {"skipped", tick_skipped, nullptr, "Periods left out before this iteration because the one before overran.", nullptr},
    {"warmup", tick_warmup, nullptr, "Whether this iteration is learned from and not measured.", nullptr},
    {"elapsed", tick_elapsed, nullptr, "Seconds since the iteration began.", nullptr},
    {"budget_left", tick_budget_left, nullptr,
     "Seconds until the next iteration is due; negative after that, infinite without a period.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot tick_slots[] = {
    {Py_tp_doc, const_cast<char*>("One iteration of a real-time loop.\n\nIt is valid until the iteration after it begins, "
                                  "unless the program keeps it.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(tick_dealloc)},
    {Py_tp_repr, reinterpret_cast<void*>(tick_repr)},
    {Py_tp_getset, tick_members},
    {0, nullptr},
};

PyType_Spec tick_spec = {
    "rtpool._core.Tick", sizeof(TickObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, tick_slots,
};

// --- Histogram --------------------------------------------------------------------------------------------------------

struct HistogramObject {
  PyObject_HEAD
  realtime::Histogram* values;
};

const realtime::Histogram& values_of(PyObject* object) noexcept {
  return *reinterpret_cast<HistogramObject*>(object)->values;
}

PyObject* seconds(os::Nanoseconds value) noexcept { return PyFloat_FromDouble(static_cast<double>(value) * k_seconds); }

PyObject* histogram_percentile(PyObject* object, PyObject* percent) {
  const double q = PyFloat_AsDouble(percent);
  if (q == -1.0 && PyErr_Occurred()) return nullptr;
  if (!(q >= 0 && q <= 100)) {
    PyErr_Format(PyExc_ValueError, "a percentile is from 0 to 100, not %R", percent);
    return nullptr;
  }
  return seconds(values_of(object).percentile(q));
}

// buckets() -> [(lower, upper, count), ...] in nanoseconds, without the empty ones
PyObject* histogram_buckets(PyObject* object, PyObject*) {
  const realtime::Histogram& values = values_of(object);
  Reference list(PyList_New(0));
  if (!list) return nullptr;
  for (std::size_t i = 0; i < realtime::Histogram::k_buckets; ++i) {
    if (values.count_in(i) == 0) continue;
    const os::Nanoseconds upper =
        i + 1 < realtime::Histogram::k_buckets ? realtime::Histogram::lower_bound(i + 1) : INT64_MAX;
    const Reference bucket(Py_BuildValue("(LLK)", static_cast<long long>(realtime::Histogram::lower_bound(i)),
                                         static_cast<long long>(upper),
                                         static_cast<unsigned long long>(values.count_in(i))));
    if (!bucket || PyList_Append(list.get(), bucket.get()) < 0) return nullptr;
  }
  return list.release();
}

PyObject* histogram_count(PyObject* object, void*) { return PyLong_FromUnsignedLongLong(values_of(object).count()); }
PyObject* histogram_min(PyObject* object, void*) { return seconds(values_of(object).min()); }
PyObject* histogram_max(PyObject* object, void*) { return seconds(values_of(object).max()); }
PyObject* histogram_mean(PyObject* object, void*) { return PyFloat_FromDouble(values_of(object).mean() * k_seconds); }

void histogram_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  delete reinterpret_cast<HistogramObject*>(object)->values;
  type->tp_free(object);
  Py_DECREF(type);
}

PyMethodDef histogram_methods[] = {
    {"percentile", histogram_percentile, METH_O, nullptr},
    {"buckets", histogram_buckets, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef histogram_members[] = {
    {"count", histogram_count, nullptr, nullptr, nullptr},
    {"min", histogram_min, nullptr, nullptr, nullptr},
    {"max", histogram_max, nullptr, nullptr, nullptr},
    {"mean", histogram_mean, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot histogram_slots[] = {
    {Py_tp_doc, const_cast<char*>("Spans of time in log-linear buckets, 0.4 % from the truth; seconds.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(histogram_dealloc)},
    {Py_tp_methods, histogram_methods},
    {Py_tp_getset, histogram_members},
    {0, nullptr},
};

PyType_Spec histogram_spec = {
    "rtpool._core.Histogram", sizeof(HistogramObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    histogram_slots,
};

// --- The record of a Loop ---------------------------------------------------------------------------------------------

using Wide = unsigned long long;

PyObject* usage_tuple(const os::UsageCounts& usage) noexcept {
  return Py_BuildValue("(KKKK)", static_cast<Wide>(usage.minor_faults), static_cast<Wide>(usage.major_faults),
                       static_cast<Wide>(usage.voluntary_switches), static_cast<Wide>(usage.involuntary_switches));
}

// totals() -> (iterations, overruns, skipped, collections, elapsed ns, zeroed ahead, usage, watching, watch errno)
PyObject* loop_totals(PyObject* object, PyObject*) {
  LoopObject* self = loop_object(object);
  LoopState& state = *self->state;
  // Another thread's question must not be answered with that thread's counters.
  if (state.recorder.recording() && self->thread != PyThread_get_thread_ident()) {
    PyErr_SetString(PyExc_RuntimeError, "while a real-time section runs, only its own thread can read its report");
    return nullptr;
  }
  // What was counted while the loop was warming up is not the measured iterations'.
  const realtime::Totals totals =
      self->warm_left > 0 ? realtime::Totals{} : state.recorder.totals(state.clock.now());
  return Py_BuildValue("(KKKKLKNOi)", static_cast<Wide>(totals.iterations), static_cast<Wide>(totals.overruns),
                       static_cast<Wide>(totals.skipped), static_cast<Wide>(totals.collections),
                       static_cast<long long>(totals.elapsed), static_cast<Wide>(state.idle.bytes_cleared()),
                       usage_tuple(totals.usage), self->watch_error == 0 ? Py_True : Py_False, self->watch_error);
}

// warmup_left() -> warm-up iterations that have not been completed
PyObject* loop_warmup_left(PyObject* object, PyObject*) { return PyLong_FromLongLong(loop_object(object)->warm_left); }

PyObject* loop_durations(PyObject* object, PyObject*) {
  LoopObject* self = loop_object(object);
  return make_histogram(self->histogram_type, self->state->recorder.durations());
}

PyObject* loop_lateness(PyObject* object, PyObject*) {
  LoopObject* self = loop_object(object);
  return make_histogram(self->histogram_type, self->state->recorder.lateness());
}

// slowest() -> [(index, started, duration, lateness, usage, collections, span, overrun), ...]; times in nanoseconds
PyObject* loop_slowest(PyObject* object, PyObject*) {
  std::array<realtime::Iteration, realtime::Recorder::k_slowest> slowest;
  const std::size_t count = loop_object(object)->state->recorder.slowest(&slowest);
  Reference list(PyList_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; list && i < count; ++i) {
    const realtime::Iteration& one = slowest[i];
    PyObject* entry = Py_BuildValue("(KLLLNKKO)", static_cast<Wide>(one.index), static_cast<long long>(one.started),
                                    static_cast<long long>(one.duration), static_cast<long long>(one.lateness),
                                    usage_tuple(one.usage), static_cast<Wide>(one.collections),
                                    static_cast<Wide>(one.span), one.overrun ? Py_True : Py_False);
    if (entry == nullptr) return nullptr;
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), entry);
  }
  return list.release();
}

// first() -> [duration, ...] in nanoseconds of the first iterations
PyObject* loop_first(PyObject* object, PyObject*) {
  const realtime::Recorder& recorder = loop_object(object)->state->recorder;
  const std::size_t count = std::min<std::size_t>(recorder.durations().count(), realtime::Recorder::k_first);
  Reference list(PyList_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; list && i < count; ++i) {
    PyObject* value = PyLong_FromLongLong(recorder.first()[i]);
    if (value == nullptr) return nullptr;
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), value);
  }
  return list.release();
}

// timeline() -> [(count, sum, max, max lateness), ...] of consecutive stretches; times in nanoseconds
PyObject* loop_timeline(PyObject* object, PyObject*) {
  const realtime::Recorder& recorder = loop_object(object)->state->recorder;
  const std::size_t count = recorder.timeline_count();
  Reference list(PyList_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; list && i < count; ++i) {
    const realtime::Stretch& stretch = recorder.timeline()[i];
    PyObject* entry =
        Py_BuildValue("(KLLL)", static_cast<Wide>(stretch.count), static_cast<long long>(stretch.sum),
                      static_cast<long long>(stretch.max), static_cast<long long>(stretch.max_lateness));
    if (entry == nullptr) return nullptr;
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), entry);
  }
  return list.release();
}

}  // namespace

PyMethodDef k_loop_record_methods[] = {
    {"totals", loop_totals, METH_NOARGS, nullptr},       {"durations", loop_durations, METH_NOARGS, nullptr},
    {"lateness", loop_lateness, METH_NOARGS, nullptr},   {"slowest", loop_slowest, METH_NOARGS, nullptr},
    {"first", loop_first, METH_NOARGS, nullptr},         {"timeline", loop_timeline, METH_NOARGS, nullptr},
    {"warmup_left", loop_warmup_left, METH_NOARGS, nullptr},
    {"faults", loop_faults, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyObject* make_histogram(PyTypeObject* type, const realtime::Histogram& source) noexcept {
  Reference object(type->tp_alloc(type, 0));
  if (!object) return nullptr;
  auto* self = reinterpret_cast<HistogramObject*>(object.get());
  self->values = new (std::nothrow) realtime::Histogram(source);
  if (self->values == nullptr) return PyErr_NoMemory();
  return object.release();
}

int register_realtime_record(PyObject* module) {
  ModuleState* state = state_of(module);
  state->tick_type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &tick_spec, nullptr));
  state->histogram_type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &histogram_spec, nullptr));
  if (state->tick_type == nullptr || state->histogram_type == nullptr) return -1;
  if (PyModule_AddType(module, state->tick_type) < 0) return -1;
  return PyModule_AddType(module, state->histogram_type);
}

}  // namespace rtpool::binding
