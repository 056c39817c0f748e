// What the package asks the machine and libc: physical memory, limits, and libc's malloc settings.
#include "os/libc_malloc.hpp"
#include "os/memory.hpp"
#include "os/program_pages.hpp"
#include "state.hpp"

namespace rtpool::binding {
namespace {

// physical_memory() -> bytes, 0 if unknown
PyObject* physical_memory(PyObject*, PyObject*) { return PyLong_FromSize_t(os::memory().physical_memory()); }

// lockable_memory() -> RLIMIT_MEMLOCK in bytes, None for no limit
PyObject* lockable_memory(PyObject*, PyObject*) {
  const std::size_t bytes = os::memory().lockable_memory();
  if (bytes == SIZE_MAX) Py_RETURN_NONE;
  return PyLong_FromSize_t(bytes);
}

// transparent_huge_pages() -> "always", "madvise", "never" or "unknown"
PyObject* transparent_huge_pages(PyObject*, PyObject*) {
  switch (os::memory().transparent_huge_pages()) {
    case 'a': return PyUnicode_FromString("always");
    case 'm': return PyUnicode_FromString("madvise");
    case 'n': return PyUnicode_FromString("never");
    default: return PyUnicode_FromString("unknown");
  }
}

// free_huge_pages(page) -> how many explicit huge pages of `page` bytes the kernel has free
PyObject* free_huge_pages(PyObject*, PyObject* page) {
  const std::size_t bytes = PyLong_AsSize_t(page);
  if (bytes == static_cast<std::size_t>(-1) && PyErr_Occurred()) return nullptr;
  return PyLong_FromSize_t(os::memory().free_huge_pages(bytes));
}

// tune_malloc() -> True if libc's malloc took the settings, see os/libc_malloc.hpp
PyObject* tune_malloc(PyObject*, PyObject*) { return PyBool_FromLong(os::tune_libc_malloc()); }

// make_program_resident() -> (bytes, errno value), see os/program_pages.hpp
PyObject* make_program_resident(PyObject*, PyObject*) {
  os::ProgramPages pages;
  {
    const WithoutGil others_run;
    pages = os::make_program_resident();
  }
  return Py_BuildValue("(ni)", static_cast<Py_ssize_t>(pages.bytes), pages.error);
}

PyMethodDef functions[] = {
    {"physical_memory", physical_memory, METH_NOARGS, nullptr},
    {"lockable_memory", lockable_memory, METH_NOARGS, nullptr},
    {"transparent_huge_pages", transparent_huge_pages, METH_NOARGS, nullptr},
    {"free_huge_pages", free_huge_pages, METH_O, nullptr},
    {"tune_malloc", tune_malloc, METH_NOARGS, nullptr},
    {"make_program_resident", make_program_resident, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_system(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
