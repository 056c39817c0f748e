// `_core._replay_*`: a script of operations, kept in a capsule, and passes over it.
//
// Thread rule: a capsule belongs to the thread that opened it.
#include <cerrno>
#include <new>

#include "numpy_handler/pool/pool_type.hpp"
#include "numpy_handler/replay/register.hpp"
#include "replay/replayer.hpp"

namespace rtpool::binding {
namespace {

constexpr const char* k_capsule = "rtpool._core.replay";

// The replayer ends before the arrays that it reads are let go.
struct Held {
  enum Column : unsigned { what, slot, turn, order, begins, columns };
  Py_buffer views[columns] = {};
  unsigned got = 0;
  replay::Replayer replayer;

  ~Held() {
    replayer.close();
    while (got != 0) PyBuffer_Release(&views[--got]);
  }
};

void drop(PyObject* capsule) noexcept { delete static_cast<Held*>(PyCapsule_GetPointer(capsule, k_capsule)); }

template <class T>
const T* column(const Held& held, unsigned number) noexcept {
  return static_cast<const T*>(held.views[number].buf);
}

// _replay_open(what, slot, turn, order, begins, slots) -> capsule
PyObject* replay_open(PyObject*, PyObject* arguments) {
  PyObject* arrays[Held::columns];
  unsigned long slots = 0;
  if (!PyArg_ParseTuple(arguments, "OOOOOk:_replay_open", &arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4], &slots)) return nullptr;
  auto* const held = new (std::nothrow) Held;
  if (held == nullptr) return PyErr_NoMemory();
  Reference capsule(PyCapsule_New(held, k_capsule, drop));
  if (!capsule) {
    delete held;
    return nullptr;
  }
  for (PyObject* const array : arrays) {
    if (PyObject_GetBuffer(array, &held->views[held->got], PyBUF_C_CONTIGUOUS) < 0) return nullptr;
    ++held->got;
  }
  replay::Script script;
  script.count = static_cast<std::size_t>(held->views[Held::slot].len) / sizeof(std::uint32_t);
  const auto expect = [&](unsigned number, std::size_t each, std::size_t rows) {
    return static_cast<std::size_t>(held->views[number].len) == each * rows;
  };
  const std::size_t bounds = static_cast<std::size_t>(held->views[Held::begins].len) / sizeof(std::uint64_t);
  if (bounds < 2 || slots > UINT32_MAX || !expect(Held::what, sizeof(std::uint64_t), script.count) ||
      !expect(Held::turn, sizeof(std::uint32_t), script.count) || !expect(Held::order, sizeof(std::uint32_t), script.count)) {
    PyErr_SetString(PyExc_ValueError, "columns of different lengths");
    return nullptr;
  }
  script.what = column<std::uint64_t>(*held, Held::what);
  script.slot = column<std::uint32_t>(*held, Held::slot);
  script.turn = column<std::uint32_t>(*held, Held::turn);
  script.order = column<std::uint32_t>(*held, Held::order);
  script.begins = column<std::uint64_t>(*held, Held::begins);
  script.threads = bounds - 1;
  script.slots = static_cast<std::uint32_t>(slots);
  if (const int error = held->replayer.open(script); error != 0) {
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
  }
  return capsule.release();
}

// _replay_pass(capsule, pool | "malloc" | None, write) -> (ns, minor faults, major faults, resident, kept, failures)
PyObject* replay_pass(PyObject* module, PyObject* arguments) {
  PyObject* capsule = nullptr;
  PyObject* who = nullptr;
  int write = 0;
  if (!PyArg_ParseTuple(arguments, "OOp:_replay_pass", &capsule, &who, &write)) return nullptr;
  auto* const held = static_cast<Held*>(PyCapsule_GetPointer(capsule, k_capsule));
  if (held == nullptr) return nullptr;
  replay::Pass pass;
  const auto run = [&](replay::Target& target) {
    const WithoutGil others_run;
    held->replayer.pass(target, write != 0, &pass);
  };
  if (who == Py_None) {
    run(replay::null_target());
  } else if (is_pool(state_of(module), who)) {
    replay::PoolTarget target(*pool_object(who)->core);
    run(target);
  } else if (PyUnicode_Check(who) && PyUnicode_CompareWithASCIIString(who, "malloc") == 0) {
    run(replay::libc_target());
  } else {
    PyErr_Format(PyExc_TypeError, "a replay is served by a pool, \"malloc\" or None, not %R", who);
    return nullptr;
  }
  using Wide = unsigned long long;
  return Py_BuildValue("(LKKKKK)", static_cast<long long>(pass.took), static_cast<Wide>(pass.minor_faults), static_cast<Wide>(pass.major_faults),
                       static_cast<Wide>(pass.resident_bytes), static_cast<Wide>(pass.kept_bytes), static_cast<Wide>(pass.failures));
}

PyMethodDef functions[] = {
    {"_replay_open", replay_open, METH_VARARGS, nullptr},
    {"_replay_pass", replay_pass, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_replay(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
