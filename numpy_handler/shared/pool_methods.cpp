// Methods of `_core.SharedPool` that read figures, recover, or concern its name. Raw: the package gives them names.
#include <cstring>

#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/shared/pool_type.hpp"

namespace rtpool::binding {
namespace {

shared::SharedPool* core_of(PyObject* object) noexcept { return shared_pool_object(object)->core; }

// _stats() -> the counters of a pool in the order of STATS_FIELDS, then (processes, shared_count, in_flight_count,
// recovered_processes, own_bytes, own_count)
PyObject* stats(PyObject* self, PyObject*) {
  shared::Stats counters;
  {
    const WithoutGil others_run;
    counters = core_of(self)->stats();
  }
  const Reference common(stats_tuple(counters.common));
  const Reference further(Py_BuildValue("(KKKKKK)", static_cast<unsigned long long>(counters.processes),
                                        static_cast<unsigned long long>(counters.shared_count),
                                        static_cast<unsigned long long>(counters.in_flight_count),
                                        static_cast<unsigned long long>(counters.recovered_processes),
                                        static_cast<unsigned long long>(counters.own_bytes),
                                        static_cast<unsigned long long>(counters.own_count)));
  return common && further ? PySequence_Concat(common.get(), further.get()) : nullptr;
}

// _effective() as of `_core.Pool`
PyObject* effective(PyObject* self, PyObject*) { return effective_tuple(core_of(self)->effective()); }

PyObject* check(PyObject* self, PyObject*) {
  pool::CheckResult result;
  {
    const WithoutGil others_run;
    result = core_of(self)->check();
  }
  if (result.ok) Py_RETURN_NONE;
  return Py_BuildValue("(ss)", result.invariant, result.text);
}

PyObject* trim(PyObject* self, PyObject*) {
  std::size_t given_back = 0;
  {
    const WithoutGil others_run;
    given_back = core_of(self)->trim();
  }
  return PyLong_FromSize_t(given_back);
}

PyObject* reset_peak(PyObject* self, PyObject*) {
  core_of(self)->reset_peak();
  Py_RETURN_NONE;
}

// _recover() -> False when another process recovers just now
PyObject* recover(PyObject* self, PyObject*) {
  bool done = false;
  {
    const WithoutGil others_run;
    done = core_of(self)->recover();
  }
  return PyBool_FromLong(done);
}

// _reclaim(seconds) -> handles under way that were given up
PyObject* reclaim(PyObject* self, PyObject* seconds) {
  const unsigned long age = PyLong_AsUnsignedLong(seconds);
  if (PyErr_Occurred()) return nullptr;
  std::uint64_t count = 0;
  {
    const WithoutGil others_run;
    count = core_of(self)->reclaim(age > 0xffffff ? 0xffffff : static_cast<std::uint32_t>(age));
  }
  return PyLong_FromUnsignedLongLong(count);
}

// _unlink() -> errno value
PyObject* unlink(PyObject* self, PyObject*) { return PyLong_FromLong(core_of(self)->unlink()); }

PyObject* get_name(PyObject* self, PyObject*) { return PyUnicode_FromString(core_of(self)->name()); }

// _address() -> (id, pid, descriptor)
PyObject* address(PyObject* self, PyObject*) {
  const shared::Address where = core_of(self)->address();
  return Py_BuildValue("(y#ii)", reinterpret_cast<const char*>(where.id.bytes),
                       static_cast<Py_ssize_t>(sizeof where.id.bytes), static_cast<int>(where.pid), where.fd);
}

// _geometry() -> (data bytes, granule bytes, records)
PyObject* geometry(PyObject* self, PyObject*) {
  const shared::Geometry& g = core_of(self)->geometry();
  return Py_BuildValue("(KKI)", static_cast<unsigned long long>(g.data_bytes),
                       static_cast<unsigned long long>(g.granule_bytes()), static_cast<unsigned>(g.records));
}

}  // namespace

PyMethodDef k_shared_pool_report_methods[] = {
    {"_stats", stats, METH_NOARGS, nullptr},
    {"_effective", effective, METH_NOARGS, nullptr},
    {"_check", check, METH_NOARGS, nullptr},
    {"_trim", trim, METH_NOARGS, nullptr},
    {"_reset_peak", reset_peak, METH_NOARGS, nullptr},
    {"_recover", recover, METH_NOARGS, nullptr},
    {"_reclaim", reclaim, METH_O, nullptr},
    {"_unlink", unlink, METH_NOARGS, nullptr},
    {"_name", get_name, METH_NOARGS, nullptr},
    {"_address", address, METH_NOARGS, nullptr},
    {"_geometry", geometry, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace rtpool::binding
