// Methods of `_core.Pool` that change the pool: freeze, and the raw side of learning and plans.
#include "numpy_handler/pool/pool_type.hpp"

namespace rtpool::binding {
namespace {

// Plan entries outside Python's heap, so that reading them costs no Python objects.
class Entries {
 public:
  explicit Entries(std::size_t capacity) noexcept
      : entries_(static_cast<pool::PlanEntry*>(PyMem_RawCalloc(capacity == 0 ? 1 : capacity, sizeof(pool::PlanEntry)))) {
    if (entries_ == nullptr) PyErr_NoMemory();
  }
  ~Entries() { PyMem_RawFree(entries_); }
  Entries(const Entries&) = delete;
  Entries& operator=(const Entries&) = delete;

  explicit operator bool() const noexcept { return entries_ != nullptr; }
  pool::PlanEntry* data() noexcept { return entries_; }
  pool::PlanEntry& operator[](std::size_t i) noexcept { return entries_[i]; }
  const pool::PlanEntry& operator[](std::size_t i) const noexcept { return entries_[i]; }

 private:
  pool::PlanEntry* entries_;
};

PyObject* to_tuple(const pool::PlanEntry& entry) noexcept {
  using Wide = unsigned long long;
  return Py_BuildValue("(KKKKK)", static_cast<Wide>(entry.size), static_cast<Wide>(entry.requested),
                       static_cast<Wide>(entry.most_alive), static_cast<Wide>(entry.allocations),
                       static_cast<Wide>(entry.zeroed));
}

// Reads one (size, requested, most_alive, allocations, zeroed). False with an exception.
bool from_tuple(PyObject* tuple, pool::PlanEntry* entry) noexcept {
  std::uint64_t* const fields[] = {&entry->size, &entry->requested, &entry->most_alive, &entry->allocations,
                                   &entry->zeroed};
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != 5) {
    PyErr_SetString(PyExc_TypeError,
                    "a plan entry is a tuple (size, requested, most_alive, allocations, zeroed) of integers");
    return false;
  }
  for (Py_ssize_t i = 0; i < 5; ++i) {
    *fields[i] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(tuple, i));
    if (PyErr_Occurred()) return false;
  }
  return true;
}

// _freeze(raises)
PyObject* freeze(PyObject* self, PyObject* raises) {
  const int truth = PyObject_IsTrue(raises);
  if (truth < 0) return nullptr;
  core_of<pool::Pool>(self)->freeze(truth != 0 ? pool::OnMiss::raise : pool::OnMiss::fallback);
  Py_RETURN_NONE;
}

PyObject* unfreeze(PyObject* self, PyObject*) {
  core_of<pool::Pool>(self)->unfreeze();
  Py_RETURN_NONE;
}

// _trim_idle(older_than), nanoseconds -> bytes given back
PyObject* trim_idle(PyObject* self, PyObject* age) {
  const long long older_than = PyLong_AsLongLong(age);
  if (older_than == -1 && PyErr_Occurred()) return nullptr;
  std::size_t given_back = 0;
  {
    const WithoutGil others_run;
    given_back = core_of<pool::Pool>(self)->trim(older_than);
  }
  return PyLong_FromSize_t(given_back);
}

// _restrain(spare, most_zeroed), bytes; 0: no restraint
PyObject* restrain(PyObject* self, PyObject* arguments) {
  Py_ssize_t spare = 0;
  Py_ssize_t most_zeroed = 0;
  if (!PyArg_ParseTuple(arguments, "nn:_restrain", &spare, &most_zeroed)) return nullptr;
  if (spare < 0 || most_zeroed < 0) {
    PyErr_SetString(PyExc_ValueError, "spare and most_zeroed must not be negative");
    return nullptr;
  }
  core_of<pool::Pool>(self)->restrain({static_cast<std::size_t>(spare), static_cast<std::size_t>(most_zeroed)});
  Py_RETURN_NONE;
}

// _restraint() -> (spare, most_zeroed)
PyObject* restraint(PyObject* self, PyObject*) {
  const pool::Restraint now = core_of<pool::Pool>(self)->restraint();
  return Py_BuildValue("(nn)", static_cast<Py_ssize_t>(now.spare), static_cast<Py_ssize_t>(now.most_zeroed));
}

// _begin_learning() -> False if it is on already
PyObject* begin_learning(PyObject* self, PyObject*) { return PyBool_FromLong(core_of<pool::Pool>(self)->begin_learning()); }

PyObject* to_list(const Entries& entries, std::size_t count) noexcept {
  Reference list(PyList_New(static_cast<Py_ssize_t>(count)));
  if (!list) return nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* entry = to_tuple(entries[i]);
    if (entry == nullptr) return nullptr;
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), entry);
  }
  return list.release();
}

// _end_learning() -> [(size, requested, most_alive, allocations, zeroed), ...] sorted by size
PyObject* end_learning(PyObject* self, PyObject*) {
  pool::Pool* const core = core_of<pool::Pool>(self);
  // Learning goes on while there is not room for all; other threads may add sizes meanwhile.
  for (std::size_t room = core->end_learning(nullptr, 0);;) {
    Entries entries(room);
    if (!entries) return nullptr;
    const std::size_t there = core->end_learning(entries.data(), room);
    if (there <= room) return to_list(entries, there);
    room = there;
  }
}

// _prepare([(size, requested, most_alive, allocations, zeroed), ...]) -> entries fully prepared
PyObject* prepare(PyObject* self, PyObject* plan) {
  const Reference sequence(PySequence_Tuple(plan));
  if (!sequence) return nullptr;
  const auto count = static_cast<std::size_t>(PyTuple_GET_SIZE(sequence.get()));
  Entries entries(count);
  if (!entries) return nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    if (!from_tuple(PyTuple_GET_ITEM(sequence.get(), static_cast<Py_ssize_t>(i)), &entries[i])) return nullptr;
  }
  std::size_t prepared = 0;
  {
    const WithoutGil others_run;
    prepared = core_of<pool::Pool>(self)->prepare(entries.data(), count);
  }
  return PyLong_FromSize_t(prepared);
}

// _prepare_object_arenas(bytes, count) -> how many there are
PyObject* prepare_object_arenas(PyObject* self, PyObject* args) {
  Py_ssize_t bytes = 0;
  Py_ssize_t count = 0;
  if (!PyArg_ParseTuple(args, "nn", &bytes, &count)) return nullptr;
  std::size_t prepared = 0;
  if (bytes > 0 && count > 0) {
    const WithoutGil others_run;
    prepared = core_of<pool::Pool>(self)->prepare_object_arenas(static_cast<std::size_t>(bytes), static_cast<std::size_t>(count));
  }
  return PyLong_FromSize_t(prepared);
}

// _free_object_arenas(nanoseconds) -> bytes of kept arenas, unused for so long, that are free memory now
PyObject* free_object_arenas(PyObject* self, PyObject* older_than) {
  const long long span = PyLong_AsLongLong(older_than);
  if (span == -1 && PyErr_Occurred()) return nullptr;
  return PyLong_FromSize_t(core_of<pool::Pool>(self)->free_object_arenas(span));
}

// _zero_ahead(size, blocks, max_bytes) -> bytes cleared
PyObject* zero_ahead(PyObject* self, PyObject* arguments) {
  Py_ssize_t size = 0;
  Py_ssize_t blocks = 0;
  Py_ssize_t max_bytes = 0;
  if (!PyArg_ParseTuple(arguments, "nnn:_zero_ahead", &size, &blocks, &max_bytes)) return nullptr;
  if (size < 0 || blocks < 0 || max_bytes < 0) {
    PyErr_SetString(PyExc_ValueError, "size, blocks and max_bytes must not be negative");
    return nullptr;
  }
  return PyLong_FromSize_t(core_of<pool::Pool>(self)->zero_ahead(static_cast<std::size_t>(size), static_cast<std::size_t>(blocks),
                                                     static_cast<std::size_t>(max_bytes)));
}

}  // namespace

PyMethodDef k_pool_control_methods[] = {
    {"_freeze", freeze, METH_O, nullptr},
    {"_unfreeze", unfreeze, METH_NOARGS, nullptr},
    {"_trim_idle", trim_idle, METH_O, nullptr},
    {"_restrain", restrain, METH_VARARGS, nullptr},
    {"_restraint", restraint, METH_NOARGS, nullptr},
    {"_begin_learning", begin_learning, METH_NOARGS, nullptr},
    {"_end_learning", end_learning, METH_NOARGS, nullptr},
    {"_prepare", prepare, METH_O, nullptr},
    {"_prepare_object_arenas", prepare_object_arenas, METH_VARARGS, nullptr},
    {"_free_object_arenas", free_object_arenas, METH_O, nullptr},
    {"_zero_ahead", zero_ahead, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace rtpool::binding
