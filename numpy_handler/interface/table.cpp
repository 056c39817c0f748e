// The table of the C interface and its capsule, by which other extensions find it.
#include "interface/functions.hpp"
#include "numpy_handler/interface/pools.hpp"
#include "numpy_handler/interface/register.hpp"

namespace rtpool::binding {
namespace {

constexpr const char* k_capsule_name = "rtpool._core._C_API";

// What every client may count on, whichever header it was compiled with.
static_assert(offsetof(rtpool_api, abi) == 0 && offsetof(rtpool_api, size) == 4);

// Written while the module loads, before there is a capsule; never again. Stays when the interpreter ends.
constinit rtpool_api table{};

}  // namespace

int register_interface(PyObject* module) {
  table.abi = RTPOOL_ABI;
  table.size = sizeof table;
  table.version = RTPOOL_VERSION;
  interface::fill_pool_functions(&table);
  fill_python_functions(&table);
  const Reference capsule(PyCapsule_New(&table, k_capsule_name, nullptr));
  return capsule ? PyModule_AddObjectRef(module, "_C_API", capsule.get()) : -1;
}

}  // namespace rtpool::binding
