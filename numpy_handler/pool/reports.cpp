// Methods of `_core.Pool` that read figures out of the pool. Raw: tuples of integers in the order of the core's
// structs; the package gives them names.
#include <cstring>
#include <iterator>
#include <string>

#include "numpy_handler/pool/pool_type.hpp"

namespace rtpool::binding {
namespace {

pool::Pool* core_of(PyObject* object) noexcept { return pool_object(object)->core; }

PyObject* from_count(std::uint64_t value) noexcept { return PyLong_FromUnsignedLongLong(value); }

struct StatsField {
  const char* name;
  std::uint64_t pool::Stats::* value;
};

constexpr StatsField k_stats_fields[] = {
    {"current_bytes", &pool::Stats::current_bytes},
    {"current_count", &pool::Stats::current_count},
    {"peak_bytes", &pool::Stats::peak_bytes},
    {"peak_count", &pool::Stats::peak_count},
    {"total_bytes", &pool::Stats::total_bytes},
    {"total_count", &pool::Stats::total_count},
    {"requested_bytes", &pool::Stats::requested_bytes},
    {"capacity_bytes", &pool::Stats::capacity_bytes},
    {"resident_bytes", &pool::Stats::resident_bytes},
    {"hits", &pool::Stats::hits},
    {"misses", &pool::Stats::misses},
    {"growths", &pool::Stats::growths},
    {"kernel_calls", &pool::Stats::kernel_calls},
    {"fallbacks", &pool::Stats::fallbacks},
    {"failures", &pool::Stats::failures},
    {"remote_frees", &pool::Stats::remote_frees},
    {"largest_free_bytes", &pool::Stats::largest_free_bytes},
    {"misuses", &pool::Stats::misuses},
    {"fallback_count", &pool::Stats::fallback_count},
    {"object_bytes", &pool::Stats::object_bytes},
    {"object_count", &pool::Stats::object_count},
    {"object_peak_bytes", &pool::Stats::object_peak_bytes},
    {"object_kept_bytes", &pool::Stats::object_kept_bytes},
    {"object_hits", &pool::Stats::object_hits},
    {"object_misses", &pool::Stats::object_misses},
    {"object_fallbacks", &pool::Stats::object_fallbacks},
};
constexpr std::size_t k_stats_count = std::size(k_stats_fields);
static_assert(k_stats_count * sizeof(std::uint64_t) == sizeof(pool::Stats), "a counter of the core is not shown");

// _stats() -> tuple in the order of k_stats_fields
PyObject* stats(PyObject* self, PyObject*) {
  pool::Stats counters;
  {
    const WithoutGil others_run;
    counters = core_of(self)->stats();
  }
  return stats_tuple(counters);
}

// _options() -> (size, limit, name, prefault, lock, huge_pages, when_full, zero_on_free, strict, debug), as asked
PyObject* options(PyObject* self, PyObject*) {
  const pool::Options& asked = core_of(self)->options();
  return Py_BuildValue("(nnsNNiiNNN)", static_cast<Py_ssize_t>(asked.size), static_cast<Py_ssize_t>(asked.limit),
                       core_of(self)->name(), PyBool_FromLong(asked.prefault), PyBool_FromLong(asked.lock),
                       static_cast<int>(asked.huge_pages), static_cast<int>(asked.when_full),
                       PyBool_FromLong(asked.zero_on_free), PyBool_FromLong(asked.strict), PyBool_FromLong(asked.debug));
}

// _effective() -> (size, limit, prefault, lock, huge_pages, ((step, errno, asked, got), ...)), as in force
PyObject* effective(PyObject* self, PyObject*) {
  pool::Effective force;
  {
    const WithoutGil others_run;
    force = core_of(self)->effective();
  }
  return effective_tuple(force);
}

// _check() -> None, or (invariant, text) of the first one broken
PyObject* check(PyObject* self, PyObject*) {
  pool::CheckResult result;
  {
    const WithoutGil others_run;
    result = core_of(self)->check();
  }
  if (result.ok) Py_RETURN_NONE;
  return Py_BuildValue("(ss)", result.invariant, result.text);
}

// _misses_by_size() -> [(requested bytes, count), ...]
PyObject* misses_by_size(PyObject* self, PyObject*) {
  constexpr std::size_t capacity = 4096;
  auto* entries = static_cast<pool::MissEntry*>(PyMem_RawCalloc(capacity, sizeof(pool::MissEntry)));
  if (entries == nullptr) return PyErr_NoMemory();
  const std::size_t there = core_of(self)->misses_by_size(entries, capacity);
  const std::size_t count = there < capacity ? there : capacity;
  Reference list(PyList_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; list && i < count; ++i) {
    PyObject* entry = Py_BuildValue("(KK)", static_cast<unsigned long long>(entries[i].requested),
                                    static_cast<unsigned long long>(entries[i].count));
    if (entry == nullptr) {
      list = Reference();
      break;
    }
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), entry);
  }
  PyMem_RawFree(entries);
  return list.release();
}

PyObject* is_debug(PyObject* self, PyObject*) { return PyBool_FromLong(core_of(self)->debug()); }

// _outstanding() -> [(address, size, number, age in ns, call site), ...], oldest first
PyObject* outstanding(PyObject* self, PyObject*) {
  pool::Pool* const core = core_of(self);
  // Other threads may add some between the two calls; what does not fit is the newest.
  const std::size_t capacity = core->outstanding(nullptr, 0) + 64;
  auto* const blocks = static_cast<pool::LiveBlock*>(PyMem_RawCalloc(capacity, sizeof(pool::LiveBlock)));
  if (blocks == nullptr) return PyErr_NoMemory();
  const std::size_t there = core->outstanding(blocks, capacity);
  const std::size_t count = there < capacity ? there : capacity;
  Reference list(PyList_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; list && i < count; ++i) {
    PyObject* entry = Py_BuildValue("(NKKKN)", PyLong_FromVoidPtr(const_cast<void*>(blocks[i].address)),
                                    static_cast<unsigned long long>(blocks[i].size),
                                    static_cast<unsigned long long>(blocks[i].number),
                                    static_cast<unsigned long long>(blocks[i].age),
                                    PyUnicode_DecodeUTF8(blocks[i].made_at,
                                                         static_cast<Py_ssize_t>(std::strlen(blocks[i].made_at)), "replace"));
    if (entry == nullptr) {
      list = Reference();
      break;
    }
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), entry);
  }
  PyMem_RawFree(blocks);
  return list.release();
}

PyObject* usable_size(PyObject* self, PyObject* address) {
  void* block = PyLong_AsVoidPtr(address);
  if (block == nullptr && PyErr_Occurred()) return nullptr;
  return PyLong_FromSize_t(core_of(self)->usable_size(block));
}

PyObject* get_name(PyObject* self, PyObject*) {
  const char* name = core_of(self)->name();
  return PyUnicode_DecodeUTF8(name, static_cast<Py_ssize_t>(std::char_traits<char>::length(name)), "replace");
}

PyObject* get_id(PyObject* self, PyObject*) { return from_count(core_of(self)->id()); }

PyObject* is_frozen(PyObject* self, PyObject*) { return PyBool_FromLong(core_of(self)->frozen()); }

PyObject* is_learning(PyObject* self, PyObject*) { return PyBool_FromLong(core_of(self)->learning()); }

PyObject* live_blocks(PyObject* self, PyObject*) { return PyLong_FromSize_t(core_of(self)->live_blocks()); }

// _arena() -> (first address, bytes reserved)
PyObject* arena(PyObject* self, PyObject*) {
  const pool::Pool* core = core_of(self);
  return Py_BuildValue("(NN)", PyLong_FromVoidPtr(core->arena_begin()), PyLong_FromSize_t(core->arena_reserved()));
}

}  // namespace

PyMethodDef k_pool_report_methods[] = {
    {"_stats", stats, METH_NOARGS, nullptr},
    {"_options", options, METH_NOARGS, nullptr},
    {"_effective", effective, METH_NOARGS, nullptr},
    {"_check", check, METH_NOARGS, nullptr},
    {"_misses_by_size", misses_by_size, METH_NOARGS, nullptr},
    {"_debug", is_debug, METH_NOARGS, nullptr},
    {"_outstanding", outstanding, METH_NOARGS, nullptr},
    {"_usable_size", usable_size, METH_O, nullptr},
    {"_name", get_name, METH_NOARGS, nullptr},
    {"_id", get_id, METH_NOARGS, nullptr},
    {"_frozen", is_frozen, METH_NOARGS, nullptr},
    {"_learning", is_learning, METH_NOARGS, nullptr},
    {"_live_blocks", live_blocks, METH_NOARGS, nullptr},
    {"_arena", arena, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyObject* stats_tuple(const pool::Stats& counters) noexcept {
  Reference tuple(PyTuple_New(static_cast<Py_ssize_t>(k_stats_count)));
  if (!tuple) return nullptr;
  Py_ssize_t index = 0;
  for (const StatsField& field : k_stats_fields) {
    PyObject* value = from_count(counters.*field.value);
    if (value == nullptr) return nullptr;
    PyTuple_SET_ITEM(tuple.get(), index++, value);
  }
  return tuple.release();
}

PyObject* effective_tuple(const pool::Effective& force) noexcept {
  Reference degradations(PyTuple_New(static_cast<Py_ssize_t>(force.count)));
  if (!degradations) return nullptr;
  for (std::size_t i = 0; i < force.count; ++i) {
    const pool::Degradation& lost = force.degradations[i];
    PyObject* entry = Py_BuildValue("(iiKK)", static_cast<int>(lost.step), lost.error,
                                    static_cast<unsigned long long>(lost.asked),
                                    static_cast<unsigned long long>(lost.got));
    if (entry == nullptr) return nullptr;
    PyTuple_SET_ITEM(degradations.get(), static_cast<Py_ssize_t>(i), entry);
  }
  return Py_BuildValue("(KKNNiN)", static_cast<unsigned long long>(force.size),
                       static_cast<unsigned long long>(force.limit), PyBool_FromLong(force.prefault),
                       PyBool_FromLong(force.lock), static_cast<int>(force.huge_pages), degradations.release());
}

int add_stats_fields(PyObject* module) noexcept {
  const Reference names(PyTuple_New(static_cast<Py_ssize_t>(k_stats_count)));
  if (!names) return -1;
  Py_ssize_t index = 0;
  for (const StatsField& field : k_stats_fields) {
    PyObject* name = PyUnicode_FromString(field.name);
    if (name == nullptr) return -1;
    PyTuple_SET_ITEM(names.get(), index++, name);
  }
  return PyModule_AddObjectRef(module, "STATS_FIELDS", names.get());
}

}  // namespace rtpool::binding
