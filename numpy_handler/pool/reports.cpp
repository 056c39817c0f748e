// Methods of `_core.Pool` that read figures out of the pool. Raw: tuples of integers in the order of the core's
// structs; the package gives them names.
#include <cstring>

#include "numpy_handler/pool/figures.hpp"
#include "numpy_handler/pool/pool_type.hpp"

namespace rtpool::binding {
namespace {

// _stats() -> tuple in the order of k_stats_fields
PyObject* stats(PyObject* self, PyObject*) {
  pool::Stats counters;
  {
    const WithoutGil others_run;
    counters = core_of<pool::Pool>(self)->stats();
  }
  return stats_tuple(counters);
}

// _options() -> (size, limit, name, prefault, lock, huge_pages, when_full, zero_on_free, strict, debug, idle), as
// asked
PyObject* options(PyObject* self, PyObject*) {
  const pool::Options& asked = core_of<pool::Pool>(self)->options();
  return Py_BuildValue("(nnsNNiiNNNL)", static_cast<Py_ssize_t>(asked.size), static_cast<Py_ssize_t>(asked.limit),
                       core_of<pool::Pool>(self)->name(), PyBool_FromLong(asked.prefault), PyBool_FromLong(asked.lock),
                       static_cast<int>(asked.huge_pages), static_cast<int>(asked.when_full),
                       PyBool_FromLong(asked.zero_on_free), PyBool_FromLong(asked.strict), PyBool_FromLong(asked.debug),
                       static_cast<long long>(asked.idle));
}

// _misses_by_size() -> [(requested bytes, count), ...]
PyObject* misses_by_size(PyObject* self, PyObject*) {
  constexpr std::size_t capacity = 4096;
  auto* entries = static_cast<pool::MissEntry*>(PyMem_RawCalloc(capacity, sizeof(pool::MissEntry)));
  if (entries == nullptr) return PyErr_NoMemory();
  const std::size_t there = core_of<pool::Pool>(self)->misses_by_size(entries, capacity);
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

PyObject* is_debug(PyObject* self, PyObject*) { return PyBool_FromLong(core_of<pool::Pool>(self)->debug()); }

// _outstanding() -> [(address, size, number, age in ns, call site), ...], oldest first
PyObject* outstanding(PyObject* self, PyObject*) {
  pool::Pool* const core = core_of<pool::Pool>(self);
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
  return PyLong_FromSize_t(core_of<pool::Pool>(self)->usable_size(block));
}

PyObject* get_id(PyObject* self, PyObject*) { return PyLong_FromUnsignedLongLong(core_of<pool::Pool>(self)->id()); }

PyObject* is_frozen(PyObject* self, PyObject*) { return PyBool_FromLong(core_of<pool::Pool>(self)->frozen()); }

PyObject* is_learning(PyObject* self, PyObject*) { return PyBool_FromLong(core_of<pool::Pool>(self)->learning()); }

PyObject* live_blocks(PyObject* self, PyObject*) { return PyLong_FromSize_t(core_of<pool::Pool>(self)->live_blocks()); }

// _arena() -> (first address, bytes reserved)
PyObject* arena(PyObject* self, PyObject*) {
  const pool::Pool* core = core_of<pool::Pool>(self);
  return Py_BuildValue("(NN)", PyLong_FromVoidPtr(core->arena_begin()), PyLong_FromSize_t(core->arena_reserved()));
}

}  // namespace

PyMethodDef k_pool_report_methods[] = {
    {"_stats", stats, METH_NOARGS, nullptr},
    {"_options", options, METH_NOARGS, nullptr},
    {"_misses_by_size", misses_by_size, METH_NOARGS, nullptr},
    {"_debug", is_debug, METH_NOARGS, nullptr},
    {"_outstanding", outstanding, METH_NOARGS, nullptr},
    {"_usable_size", usable_size, METH_O, nullptr},
    {"_id", get_id, METH_NOARGS, nullptr},
    {"_frozen", is_frozen, METH_NOARGS, nullptr},
    {"_learning", is_learning, METH_NOARGS, nullptr},
    {"_live_blocks", live_blocks, METH_NOARGS, nullptr},
    {"_arena", arena, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace rtpool::binding
