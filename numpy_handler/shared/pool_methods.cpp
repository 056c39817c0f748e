// Methods of `_core.SharedPool` that read figures, recover, or concern its name. Raw: the package gives them names.
#include "numpy_handler/pool/common.hpp"
#include "numpy_handler/pool/figures.hpp"
#include "numpy_handler/shared/pool_type.hpp"

namespace rtpool::binding {
namespace {

// _stats() -> the counters of a pool in the order of STATS_FIELDS, then (processes, shared_count, in_flight_count,
// recovered_processes, own_bytes, own_count)
PyObject* stats(PyObject* self, PyObject*) {
  shared::Stats counters;
  {
    const WithoutGil others_run;
    counters = core_of<shared::SharedPool>(self)->stats();
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

// _recover() -> False when another process recovers just now
PyObject* recover(PyObject* self, PyObject*) {
  bool done = false;
  {
    const WithoutGil others_run;
    done = core_of<shared::SharedPool>(self)->recover();
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
    count = core_of<shared::SharedPool>(self)->reclaim(age > 0xffffff ? 0xffffff : static_cast<std::uint32_t>(age));
  }
  return PyLong_FromUnsignedLongLong(count);
}

// _unlink() -> errno value
PyObject* unlink(PyObject* self, PyObject*) { return PyLong_FromLong(core_of<shared::SharedPool>(self)->unlink()); }

// _address() -> (id, pid, descriptor)
PyObject* address(PyObject* self, PyObject*) {
  const shared::Address where = core_of<shared::SharedPool>(self)->address();
  return Py_BuildValue("(y#ii)", reinterpret_cast<const char*>(where.id.bytes),
                       static_cast<Py_ssize_t>(sizeof where.id.bytes), static_cast<int>(where.pid), where.fd);
}

// _geometry() -> (data bytes, granule bytes, records)
PyObject* geometry(PyObject* self, PyObject*) {
  const shared::Geometry& g = core_of<shared::SharedPool>(self)->geometry();
  return Py_BuildValue("(KKI)", static_cast<unsigned long long>(g.data_bytes),
                       static_cast<unsigned long long>(g.granule_bytes()), static_cast<unsigned>(g.records));
}

}  // namespace

PyMethodDef k_shared_pool_report_methods[] = {
    {"_stats", stats, METH_NOARGS, nullptr},
    {"_recover", recover, METH_NOARGS, nullptr},
    {"_reclaim", reclaim, METH_O, nullptr},
    {"_unlink", unlink, METH_NOARGS, nullptr},
    {"_address", address, METH_NOARGS, nullptr},
    {"_geometry", geometry, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace rtpool::binding
