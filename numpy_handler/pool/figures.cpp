#include "numpy_handler/pool/figures.hpp"

#include <iterator>

namespace rtpool::binding {
namespace {

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
    {"returned_bytes", &pool::Stats::returned_bytes},
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

}  // namespace

PyObject* stats_tuple(const pool::Stats& counters) noexcept {
  Reference tuple(PyTuple_New(static_cast<Py_ssize_t>(k_stats_count)));
  if (!tuple) return nullptr;
  Py_ssize_t index = 0;
  for (const StatsField& field : k_stats_fields) {
    PyObject* value = PyLong_FromUnsignedLongLong(counters.*field.value);
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

PyObject* raise_creation_failure(const ModuleState* state, pool::Step step, int error, std::size_t asked,
                                 std::size_t got) noexcept {
  const Reference what(Py_BuildValue("(iinn)", static_cast<int>(step), error, static_cast<Py_ssize_t>(asked),
                                     static_cast<Py_ssize_t>(got)));
  if (what) PyErr_SetObject(state->creation_failure, what.get());
  return nullptr;
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
