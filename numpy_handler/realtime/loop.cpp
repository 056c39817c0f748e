// `_core.Loop`: iterating at absolute deadlines and recording each iteration.
#include <algorithm>
#include <cstdlib>
#include <new>

#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/realtime/register.hpp"
#include "numpy_handler/realtime/types.hpp"
#include "trace/recorder.hpp"

namespace rtpool::binding {
namespace {

constexpr os::Nanoseconds k_never = INT64_MAX;
// Below this much idle time a loop without a watch does not spend a kernel call on its counters.
constexpr os::Nanoseconds k_enough_to_settle = 20'000;

bool is_owner(const LoopObject* self) noexcept {
  if (self->thread == PyThread_get_thread_ident()) return true;
  PyErr_SetString(PyExc_RuntimeError, self->thread == 0
                                          ? "the real-time section has not been entered: use `with rt:` around the loop"
                                          : "a real-time section belongs to the thread that entered it");
  return false;
}

os::Nanoseconds saturating_add(os::Nanoseconds a, os::Nanoseconds b) noexcept {
  os::Nanoseconds sum;
  return __builtin_add_overflow(a, b, &sum) ? k_never : sum;
}

// The next tick to fill: one that nobody but this loop holds, else a new one (the program kept both).
TickObject* free_tick(LoopObject* self) noexcept {
  for (TickObject* tick : self->ticks) {
    if (Py_REFCNT(reinterpret_cast<PyObject*>(tick)) == 1) return tick;
  }
  auto* made = PyObject_New(TickObject, self->tick_type);
  if (made == nullptr) return nullptr;
  Py_SETREF(self->ticks[0], made);
  return made;
}

PyObject* hand_out(LoopObject* self, os::Nanoseconds started, os::Nanoseconds lateness, std::uint64_t skipped) noexcept {
  TickObject* tick = free_tick(self);
  if (tick == nullptr) return nullptr;
  tick->index = self->warming ? -self->warm_left : self->next_index;
  tick->started = started;
  tick->lateness = lateness;
  tick->deadline = self->deadline;
  tick->skipped = skipped;
  return Py_NewRef(reinterpret_cast<PyObject*>(tick));
}

// Tells the section how many warm-up iterations are left. False with an exception.
bool tell_left(LoopObject* self) noexcept {
  if (self->on_warm == Py_None) return true;
  const Reference left(PyLong_FromLongLong(self->warm_left));
  return left && Reference(PyObject_CallOneArg(self->on_warm, left.get()));
}

// What takes long before the first measured iteration and needs to know nothing of it: the kernel takes half a millisecond
// and more for a watch. Sections do it before the blocks of the plan pass through the caches.
void make_ready(LoopObject* self) noexcept {
  realtime::Recorder& recorder = self->state->recorder;
  if (!recorder.watching() && self->watch_error == 0) {
    if (!self->state->mappings_before.taken()) self->state->mappings_before.take();
    self->watch_error = recorder.watch();
  }
  if (self->warm_left > 0 || self->rehearsed) return;
  recorder.rehearse();
  recorder.start(self->state->clock.now());
  self->rehearsed = true;
}

// After the last warm-up iteration: the section freezes, and the record begins anew. False with an exception.
bool become_warm(LoopObject* self) noexcept {
  make_ready(self);
  if (!tell_left(self)) return false;
  LoopState& state = *self->state;
  self->recorded = true;
  const os::Nanoseconds now = state.clock.now();
  state.recorder.start(now);
  // Due at once: what waits finds its data gone from caches that it shares with others.
  state.timer.start(now);
  self->pass_end = self->duration < 0 ? k_never : saturating_add(now, self->duration);
  return true;
}

// Closes the open iteration, if any, at `now`. False with an exception.
bool close_iteration(LoopObject* self, os::Nanoseconds now) noexcept {
  LoopState& state = *self->state;
  if (!state.recorder.in_iteration()) return true;
  if (!self->warming) {
    state.recorder.end(now, self->deadline);
    trace::recorder().mark(trace::Mark::tick_end, static_cast<std::uint64_t>(self->next_index), false);
    ++self->next_index;
    return true;
  }
  // Nothing of the warm-up is recorded: a loop that ends in it has measured nothing.
  state.recorder.abandon();
  self->warming = false;
  --self->warm_left;
  if (self->warm_left == 0) return become_warm(self);
  return self->warm_left != 1 || tell_left(self);
}

void open_iteration(LoopObject* self, os::Nanoseconds now, os::Nanoseconds lateness) noexcept {
  self->warming = self->warm_left > 0;
  self->state->recorder.begin(now, lateness);
  if (!self->warming) trace::recorder().mark(trace::Mark::tick_begin, static_cast<std::uint64_t>(self->next_index), false);
}

// True when this pass is over: asked to stop, or as long as it was to be.
bool is_over(const LoopObject* self, os::Nanoseconds next_start) noexcept {
  if (self->state->stop.load(std::memory_order_relaxed)) return true;
  if (self->warm_left > 0) return false;
  return (self->iterations >= 0 && self->pass_count >= self->iterations) || next_start >= self->pass_end;
}

// The last iteration went on past the end of the pass: the periods between that nobody started count as skipped too.
void count_left_out(LoopObject* self, const realtime::Due& due) noexcept {
  const LoopState& state = *self->state;
  const bool by_duration = due.at >= self->pass_end && !state.stop.load(std::memory_order_relaxed) &&
                           (self->iterations < 0 || self->pass_count < self->iterations);
  if (due.skipped == 0 || !by_duration) return;
  const os::Nanoseconds first = due.at - static_cast<os::Nanoseconds>(due.skipped) * self->period;
  const os::Nanoseconds left = self->pass_end - first;
  if (left <= 0) return;
  const auto periods = static_cast<std::uint64_t>((left + self->period - 1) / self->period);
  self->state->recorder.add_skipped(std::min(periods, due.skipped));
}

// Spends the time until `instant` asleep, or on work that the next iterations profit from. Python's signal handlers run in
// it, whichever thread took the signal, and once more at its end: what they ask for is not to wait for one more iteration.
// False: stopped, or with an exception that a handler raised.
bool wait_until(LoopObject* self, os::Nanoseconds instant) noexcept {
  LoopState& state = *self->state;
  if (instant - state.clock.now() > k_enough_to_settle) state.recorder.settle();
  realtime::Waited waited;
  do {
    waited = realtime::Waited::reached;
    if (state.clock.now() < instant) {
      const WithoutGil others_run;
      do {
        state.idle.run(instant, state.clock.now() + realtime::Timer::k_step);
        waited = state.timer.wait(instant, state.stop);
      } while (waited == realtime::Waited::paused && !self->handles_signals);
    }
    if (waited == realtime::Waited::stopped) return false;
    if (self->handles_signals && PyErr_CheckSignals() < 0) return false;
  } while (waited != realtime::Waited::reached);
  return !state.stop.load(std::memory_order_relaxed);
}

// Ends the iteration before, waits for the next one to be due and begins it. nullptr: over, or with an exception.
PyObject* advance(LoopObject* self) noexcept {
  LoopState& state = *self->state;
  os::Nanoseconds now = state.clock.now();
  const bool was_warming = self->warming;
  if (!close_iteration(self, now)) return nullptr;
  if (was_warming) now = state.clock.now();
  os::Nanoseconds lateness = 0;
  realtime::Due due{now, k_never, 0};
  if (self->period > 0) {
    due = state.timer.advance(now);
    if (is_over(self, due.at)) {
      count_left_out(self, due);
      return nullptr;
    }
    if (!wait_until(self, due.at)) return nullptr;
    state.recorder.add_skipped(due.skipped);
    now = state.clock.now();
    lateness = now - due.at;
  } else if (is_over(self, now)) {
    return nullptr;
  }
  self->deadline = due.next;
  open_iteration(self, now, lateness);
  PyObject* tick = hand_out(self, now, lateness, due.skipped);
  if (tick == nullptr) {
    state.recorder.abandon();
    return nullptr;
  }
  self->pass_count += self->warming ? 0 : 1;
  return tick;
}

PyObject* loop_next(PyObject* object) {
  LoopObject* self = loop_object(object);
  if (!self->iterating || !is_owner(self)) return nullptr;
  PyObject* tick = advance(self);
  if (tick == nullptr) {
    self->iterating = false;
    // What the program does after its loop is not the loop's.
    if (self->warm_left == 0) self->state->recorder.finish(self->state->clock.now());
    self->recorded = false;
  }
  return tick;
}

// Before the first measured iteration of a pass: what came before the first of all is not the loop's.
void begin_record(LoopObject* self) noexcept {
  realtime::Recorder& recorder = self->state->recorder;
  if (self->warm_left > 0 || self->recorded) return;
  self->recorded = true;
  make_ready(self);
  if (!recorder.recording()) {
    recorder.resume(self->state->clock.now());
  } else if (self->next_index == 0) {
    recorder.start(self->state->clock.now());
  }
}

// A new pass: its first iteration is due at once.
PyObject* loop_iter(PyObject* object) {
  LoopObject* self = loop_object(object);
  if (!is_owner(self)) return nullptr;
  LoopState& state = *self->state;
  if (self->iterating && state.recorder.in_iteration()) state.recorder.abandon();
  begin_record(self);
  const os::Nanoseconds now = state.clock.now();
  state.timer.start(now);
  self->pass_count = 0;
  self->pass_end = self->duration < 0 ? k_never : saturating_add(now, self->duration);
  self->iterating = true;
  return Py_NewRef(object);
}

// begin() -> Tick: an iteration that the program paces itself.
PyObject* loop_begin(PyObject* object, PyObject*) {
  LoopObject* self = loop_object(object);
  if (!is_owner(self)) return nullptr;
  LoopState& state = *self->state;
  if (state.recorder.in_iteration()) {
    PyErr_SetString(PyExc_RuntimeError, "an iteration of this real-time section is running already");
    return nullptr;
  }
  begin_record(self);
  const os::Nanoseconds now = state.clock.now();
  self->deadline = self->period > 0 ? now + self->period : k_never;
  open_iteration(self, now, 0);
  PyObject* tick = hand_out(self, now, 0, 0);
  if (tick == nullptr) state.recorder.abandon();
  return tick;
}

// end(completed): an iteration that an exception cut short is not counted.
PyObject* loop_end(PyObject* object, PyObject* completed) {
  LoopObject* self = loop_object(object);
  if (!is_owner(self)) return nullptr;
  const int truth = PyObject_IsTrue(completed);
  if (truth < 0) return nullptr;
  if (truth == 0) {
    self->state->recorder.abandon();
    self->warming = false;
  } else if (!close_iteration(self, self->state->clock.now())) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

// start(main): the section is entered by the calling thread, which is Python's main thread or not.
PyObject* loop_start(PyObject* object, PyObject* main) {
  LoopObject* self = loop_object(object);
  const int is_main = PyObject_IsTrue(main);
  if (is_main < 0) return nullptr;
  self->handles_signals = is_main != 0;
  self->thread = PyThread_get_thread_ident();
  self->next_index = 0;
  self->watch_error = 0;
  self->warming = false;
  self->iterating = false;
  self->recorded = false;
  self->rehearsed = false;
  self->state->stop.store(false, std::memory_order_relaxed);
  self->state->recorder.start(self->state->clock.now());
  Py_RETURN_NONE;
}

// make_ready(): what else the first measured iteration would wait for, now.
PyObject* loop_make_ready(PyObject* object, PyObject*) {
  LoopObject* self = loop_object(object);
  if (!is_owner(self)) return nullptr;
  make_ready(self);
  Py_RETURN_NONE;
}

// finish(): the section is left; an iteration that is still open was cut short. Nothing if it was not entered.
PyObject* loop_finish(PyObject* object, PyObject*) {
  LoopObject* self = loop_object(object);
  if (self->thread == 0) Py_RETURN_NONE;
  if (!is_owner(self)) return nullptr;
  self->state->recorder.abandon();
  self->state->recorder.finish(self->state->clock.now());
  self->iterating = false;
  self->thread = 0;
  Py_RETURN_NONE;
}

// is_iterating() -> whether a `for` over the loop is under way
PyObject* loop_is_iterating(PyObject* object, PyObject*) { return PyBool_FromLong(loop_object(object)->iterating); }

PyObject* loop_stop(PyObject* object, PyObject*) {
  loop_object(object)->state->stop.store(true, std::memory_order_relaxed);
  Py_RETURN_NONE;
}

// note_collection(phase, info): made for gc.callbacks.
PyObject* loop_note_collection(PyObject* object, PyObject* const* arguments, Py_ssize_t count) {
  if (count > 0 && PyUnicode_Check(arguments[0]) && PyUnicode_CompareWithASCIIString(arguments[0], "start") == 0) {
    loop_object(object)->state->recorder.note_collection();
  }
  Py_RETURN_NONE;
}

std::size_t clear_ahead(void* context, std::size_t size, std::size_t blocks, std::size_t max_bytes) noexcept {
  return static_cast<pool::Pool*>(context)->zero_ahead(size, blocks, max_bytes);
}

// zero_ahead(pool, [(size, blocks), ...]) -> how many sizes were taken: blocks to clear now and in idle time.
PyObject* loop_zero_ahead(PyObject* object, PyObject* arguments) {
  LoopObject* self = loop_object(object);
  PyObject* pool = nullptr;
  PyObject* blocks = nullptr;
  if (!PyArg_ParseTuple(arguments, "OO!:zero_ahead", &pool, &PyList_Type, &blocks)) return nullptr;
  const ModuleState* module = state_of(Py_TYPE(object));
  if (module == nullptr) return nullptr;
  if (!is_pool(module, pool)) {
    PyErr_Format(PyExc_TypeError, "zero_ahead needs a Pool, not %.200s", Py_TYPE(pool)->tp_name);
    return nullptr;
  }
  realtime::IdleWork& idle = self->state->idle;
  idle.forget();
  Py_ssize_t taken = 0;
  for (; taken < PyList_GET_SIZE(blocks); ++taken) {
    Py_ssize_t size = 0;
    Py_ssize_t count = 0;
    PyObject* entry = PyList_GET_ITEM(blocks, taken);
    if (!PyTuple_Check(entry) || !PyArg_ParseTuple(entry, "nn:zero_ahead", &size, &count)) return nullptr;
    if (size < 0 || count < 0) {
      PyErr_SetString(PyExc_ValueError, "size and blocks must not be negative");
      return nullptr;
    }
    if (!idle.add(static_cast<std::size_t>(size), static_cast<std::size_t>(count))) break;
  }
  Py_XSETREF(self->pool, Py_NewRef(pool));
  idle.set_clear(clear_ahead, pool_object(pool)->core);
  // Once without haste: the first iteration finds everything zero, and what clearing costs is known.
  idle.run(k_never);
  return PyLong_FromSsize_t(taken);
}

// Loop(period, overrun, spin, warmup, iterations, duration, on_warm): by position, checked; times in nanoseconds.
PyObject* loop_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  const ModuleState* module = state_of(type);
  if (module == nullptr) return nullptr;
  long long period = 0, spin = 0, warmup = 0, iterations = -1, duration = -1;
  int catch_up = 0;
  PyObject* on_warm = nullptr;
  if (keywords != nullptr && PyDict_GET_SIZE(keywords) != 0) {
    PyErr_SetString(PyExc_TypeError, "_core.Loop takes its arguments by position; use rtpool.realtime");
    return nullptr;
  }
  if (!PyArg_ParseTuple(arguments, "LpLLLLO:Loop", &period, &catch_up, &spin, &warmup, &iterations, &duration,
                        &on_warm)) {
    return nullptr;
  }
  if (period < 0 || spin < 0 || warmup < 0 || iterations < -1 || duration < -1) {
    PyErr_SetString(PyExc_ValueError, "_core.Loop takes checked arguments only; use rtpool.realtime");
    return nullptr;
  }
  Reference object(type->tp_alloc(type, 0));
  if (!object) return nullptr;
  LoopObject* self = loop_object(object.get());
  self->tick_type = reinterpret_cast<PyTypeObject*>(Py_NewRef(reinterpret_cast<PyObject*>(module->tick_type)));
  self->histogram_type = reinterpret_cast<PyTypeObject*>(Py_NewRef(reinterpret_cast<PyObject*>(module->histogram_type)));
  self->on_warm = Py_NewRef(on_warm);
  for (TickObject*& tick : self->ticks) {
    tick = PyObject_New(TickObject, self->tick_type);
    if (tick == nullptr) return nullptr;
  }
  std::unique_ptr<os::Usage> usage = os::make_usage();
  const auto policy = catch_up != 0 ? realtime::Overrun::catch_up : realtime::Overrun::skip;
  if (usage != nullptr) {
    self->state = new (std::nothrow) LoopState(os::clock(), period, policy, spin, std::move(usage));
  }
  if (self->state == nullptr) return PyErr_NoMemory();
  self->state->recorder.show_period(period);
  self->period = period;
  self->warm_left = warmup;
  self->iterations = iterations;
  self->duration = duration;
  return object.release();
}

int loop_traverse(PyObject* object, visitproc visit, void* arg) {
  LoopObject* self = loop_object(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->tick_type);
  Py_VISIT(self->histogram_type);
  Py_VISIT(self->on_warm);
  Py_VISIT(self->pool);
  return 0;
}

int loop_clear(PyObject* object) {
  LoopObject* self = loop_object(object);
  Py_CLEAR(self->on_warm);
  return 0;
}

void loop_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  LoopObject* self = loop_object(object);
  PyTypeObject* type = Py_TYPE(object);
  delete self->state;
  (void)loop_clear(object);
  Py_XDECREF(self->pool);
  for (TickObject* tick : self->ticks) Py_XDECREF(reinterpret_cast<PyObject*>(tick));
  Py_XDECREF(reinterpret_cast<PyObject*>(self->tick_type));
  Py_XDECREF(reinterpret_cast<PyObject*>(self->histogram_type));
  type->tp_free(object);
  Py_DECREF(type);
}

PyMethodDef loop_methods[32] = {
    {"start", loop_start, METH_O, nullptr},
    {"make_ready", loop_make_ready, METH_NOARGS, nullptr},
    {"finish", loop_finish, METH_NOARGS, nullptr},
    {"begin", loop_begin, METH_NOARGS, nullptr},
    {"end", loop_end, METH_O, nullptr},
    {"is_iterating", loop_is_iterating, METH_NOARGS, nullptr},
    {"stop", loop_stop, METH_NOARGS, nullptr},
    {"zero_ahead", loop_zero_ahead, METH_VARARGS, nullptr},
    {"note_collection", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(loop_note_collection)), METH_FASTCALL,
     nullptr},
};

PyType_Slot loop_slots[] = {
    {Py_tp_doc, const_cast<char*>("The loop of a real-time section; rtpool.realtime uses it.")},
    {Py_tp_new, reinterpret_cast<void*>(loop_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(loop_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(loop_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(loop_clear)},
    {Py_tp_iter, reinterpret_cast<void*>(loop_iter)},
    {Py_tp_iternext, reinterpret_cast<void*>(loop_next)},
    {Py_tp_methods, loop_methods},
    {0, nullptr},
};

PyType_Spec loop_spec = {
    "rtpool._core.Loop", sizeof(LoopObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, loop_slots,
};

static_assert(alignof(LoopState) <= alignof(std::max_align_t));
std::atomic<void*> g_spare_room{nullptr};

}  // namespace

void* LoopState::operator new(std::size_t size, const std::nothrow_t&) noexcept {
  void* const spare = g_spare_room.exchange(nullptr, std::memory_order_acq_rel);
  return spare != nullptr ? spare : std::malloc(size);
}

void LoopState::operator delete(void* room) noexcept {
  std::free(g_spare_room.exchange(room, std::memory_order_acq_rel));
}

int register_realtime_loop(PyObject* module) {
  std::size_t used = 0;
  while (loop_methods[used].ml_name != nullptr) ++used;
  for (const PyMethodDef* method = k_loop_record_methods; method->ml_name != nullptr; ++method) {
    loop_methods[used++] = *method;
  }
  const Reference type(PyType_FromModuleAndSpec(module, &loop_spec, nullptr));
  if (!type) return -1;
  return PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(type.get()));
}

}  // namespace rtpool::binding
