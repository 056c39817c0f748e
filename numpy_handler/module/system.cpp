// What the package asks the machine and libc: physical memory, limits, and libc's malloc settings.
#include "numpy_handler/module/register.hpp"
#include "numpy_handler/support/state.hpp"
#include "os/blas_buffers.hpp"
#include "os/forked_pages.hpp"
#include "os/kernel_pages.hpp"
#include "os/libc_malloc.hpp"
#include "os/memory.hpp"
#include "os/program_pages.hpp"
#include "os/thread_stack.hpp"
#include "pool/scavenger.hpp"

namespace rtpool::binding {
namespace {

// physical_memory() -> bytes, 0 if unknown
PyObject* physical_memory(PyObject*, PyObject*) { return PyLong_FromSize_t(os::memory().physical_memory()); }

// available_memory() -> bytes, 0 if unknown
PyObject* available_memory(PyObject*, PyObject*) { return PyLong_FromSize_t(os::memory().available_memory()); }

// lockable_memory() -> RLIMIT_MEMLOCK in bytes, None for no limit
PyObject* lockable_memory(PyObject*, PyObject*) {
  const std::size_t bytes = os::memory().lockable_memory();
  if (bytes == SIZE_MAX) Py_RETURN_NONE;
  return PyLong_FromSize_t(bytes);
}

// transparent_huge_pages() -> of 2 MiB: "always", "madvise", "never", "unknown", or "larger" where larger ones come as well
PyObject* transparent_huge_pages(PyObject*, PyObject*) {
  switch (os::memory().transparent_huge_pages()) {
    case 'a': return PyUnicode_FromString("always");
    case 'm': return PyUnicode_FromString("madvise");
    case 'n': return PyUnicode_FromString("never");
    case 'l': return PyUnicode_FromString("larger");
    default: return PyUnicode_FromString("unknown");
  }
}

// transparent_huge_setting() -> the file that decides about them, "" if the kernel has none of 2 MiB
PyObject* transparent_huge_setting(PyObject*, PyObject*) {
  return PyUnicode_FromString(os::huge_page_setting("enabled").path);
}

// larger_huge_setting() -> the file by which larger ones come as well, "" if none do
PyObject* larger_huge_setting(PyObject*, PyObject*) {
  return PyUnicode_FromString(os::huge_page_setting("enabled").larger);
}

// free_huge_pages(page) -> how many explicit huge pages of `page` bytes the kernel has free
PyObject* free_huge_pages(PyObject*, PyObject* page) {
  const std::size_t bytes = PyLong_AsSize_t(page);
  if (bytes == static_cast<std::size_t>(-1) && PyErr_Occurred()) return nullptr;
  return PyLong_FromSize_t(os::memory().free_huge_pages(bytes));
}

// tune_malloc() -> True if libc's malloc took the settings, see os/libc_malloc.hpp
PyObject* tune_malloc(PyObject*, PyObject*) {
  const bool tuned = os::tune_libc_malloc();
  if (tuned) pool::scavenger_trim_libc();  // what libc keeps goes back when the process is quiet
  return PyBool_FromLong(tuned);
}

// touch_malloc(size), see os/libc_malloc.hpp
PyObject* touch_malloc(PyObject*, PyObject* arg) {
  const std::size_t bytes = PyLong_AsSize_t(arg);
  if (bytes == static_cast<std::size_t>(-1) && PyErr_Occurred()) return nullptr;
  os::touch_libc_heap(bytes);
  Py_RETURN_NONE;
}

// touch_stack(size) -> bytes, see os/thread_stack.hpp
PyObject* touch_stack(PyObject*, PyObject* arg) {
  const std::size_t bytes = PyLong_AsSize_t(arg);
  if (bytes == static_cast<std::size_t>(-1) && PyErr_Occurred()) return nullptr;
  return PyLong_FromSize_t(os::touch_stack(bytes));
}

// make_program_resident() -> (bytes, errno value), see os/program_pages.hpp; and what BLAS works in, and what a fork has made
// common with other processes
PyObject* make_program_resident(PyObject*, PyObject*) {
  os::ProgramPages pages;
  {
    const WithoutGil others_run;
    pages = os::make_program_resident();
    os::make_blas_buffers_ready();
    os::take_forked_pages_back();
  }
  return Py_BuildValue("(ni)", static_cast<Py_ssize_t>(pages.bytes), pages.error);
}

// rehearse_threads(threads, stack size or 0) -> how many there were, see os/thread_stack.hpp
PyObject* rehearse_threads(PyObject*, PyObject* arguments) {
  Py_ssize_t threads = 0;
  Py_ssize_t stack = 0;
  if (!PyArg_ParseTuple(arguments, "nn:rehearse_threads", &threads, &stack)) return nullptr;
  if (threads < 0 || stack < 0) {
    PyErr_SetString(PyExc_ValueError, "threads and their stack size must not be negative");
    return nullptr;
  }
  std::size_t begun = 0;
  {
    const WithoutGil others_run;
    begun = os::rehearse_threads(static_cast<std::size_t>(threads), static_cast<std::size_t>(stack));
  }
  return PyLong_FromSize_t(begun);
}

// blas_libraries() -> (loaded, those of them with buffers for whoever calls), see os/blas_buffers.hpp
PyObject* blas_libraries(PyObject*, PyObject*) {
  os::BlasLibraries libraries;
  {
    const WithoutGil others_run;
    libraries = os::blas_libraries();
  }
  return Py_BuildValue("(nn)", static_cast<Py_ssize_t>(libraries.loaded),
                       static_cast<Py_ssize_t>(libraries.with_shared_buffers));
}

// give_back_again(): after a fork, what is idle goes back although no pool is used again. Not at once: at the end of `os.fork`
// Python counts the threads, and warns where there are several. A full queue of what is pending: the next use of a pool does it.
PyObject* give_back_again(PyObject*, PyObject*) {
  (void)Py_AddPendingCall(
      [](void*) {
        pool::scavenger_resume();
        return 0;
      },
      nullptr);
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"give_back_again", give_back_again, METH_NOARGS, nullptr},
    {"physical_memory", physical_memory, METH_NOARGS, nullptr},
    {"available_memory", available_memory, METH_NOARGS, nullptr},
    {"lockable_memory", lockable_memory, METH_NOARGS, nullptr},
    {"transparent_huge_pages", transparent_huge_pages, METH_NOARGS, nullptr},
    {"transparent_huge_setting", transparent_huge_setting, METH_NOARGS, nullptr},
    {"larger_huge_setting", larger_huge_setting, METH_NOARGS, nullptr},
    {"free_huge_pages", free_huge_pages, METH_O, nullptr},
    {"tune_malloc", tune_malloc, METH_NOARGS, nullptr},
    {"touch_malloc", touch_malloc, METH_O, nullptr},
    {"touch_stack", touch_stack, METH_O, nullptr},
    {"rehearse_threads", rehearse_threads, METH_VARARGS, nullptr},
    {"blas_libraries", blas_libraries, METH_NOARGS, nullptr},
    {"make_program_resident", make_program_resident, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_system(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
