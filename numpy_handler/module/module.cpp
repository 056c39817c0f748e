// The module `rtpool._core`: multi-phase initialisation, one load per process, like NumPy itself.
#define RTPOOL_IMPORTS_NUMPY
#include <atomic>

#include "numpy_handler/copy/register.hpp"
#include "numpy_handler/handler/register.hpp"
#include "numpy_handler/interface/register.hpp"
#include "numpy_handler/live/register.hpp"
#include "numpy_handler/module/register.hpp"
#include "numpy_handler/objects/register.hpp"
#include "numpy_handler/pool/register.hpp"
#include "numpy_handler/realtime/register.hpp"
#include "numpy_handler/replay/register.hpp"
#include "numpy_handler/shared/register.hpp"
#include "numpy_handler/support/numpy_api.hpp"
#include "numpy_handler/support/state.hpp"
#include "numpy_handler/trace/register.hpp"

namespace rtpool::binding {
namespace {

using Register = int (*)(PyObject* module);

// In the order of dependence: what a later one needs, an earlier one has added.
constexpr Register k_parts[] = {
    register_pool,
    register_call_site,
    register_owner,
    register_default_pool,
    register_refusal,
    register_shared,
    register_shared_blocks,
    register_shared_arrays,
    register_handler,
    register_activation,
    register_interface,
    register_object_arenas,
    register_object_room,
    register_copy,
    register_system,
    register_realtime_record,
    register_realtime_loop,
    register_realtime_settings,
    register_recording,
    register_replay,
    register_live,
};

// NumPy's default handler is redirected for the whole process, so a second copy of this module (another interpreter)
// would work against the first.
std::atomic<bool> loaded{false};

int execute(PyObject* module) {
  if (loaded.exchange(true)) {
    PyErr_SetString(PyExc_ImportError,
                    "rtpool._core is loaded already: like NumPy it serves one interpreter and loads once a process");
    return -1;
  }
  if (PyArray_ImportNumPyAPI() < 0) {
    loaded.store(false);
    return -1;
  }
  for (const Register part : k_parts) {
    if (part(module) < 0) return -1;
  }
  return PyModule_AddStringConstant(module, "__version__", RTPOOL_VERSION);
}

int traverse(PyObject* module, visitproc visit, void* argument) {
  ModuleState* state = state_of(module);
  if (state == nullptr) return 0;
  return for_each_member(state, [=](auto* member) {
    return member == nullptr ? 0 : visit(reinterpret_cast<PyObject*>(member), argument);
  });
}

int clear(PyObject* module) {
  ModuleState* state = state_of(module);
  if (state == nullptr) return 0;
  return for_each_member(state, [](auto*& member) {
    Py_CLEAR(member);
    return 0;
  });
}

void free_state(void* module) { (void)clear(static_cast<PyObject*>(module)); }

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(execute)},
#ifdef Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

}  // namespace

PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    "rtpool._core",
    "The pool behind NumPy; the public names are in the package `rtpool`.",
    sizeof(ModuleState),
    nullptr,
    slots,
    traverse,
    clear,
    free_state,
};

}  // namespace rtpool::binding

PyMODINIT_FUNC PyInit__core() { return PyModuleDef_Init(&rtpool::binding::core_module); }
