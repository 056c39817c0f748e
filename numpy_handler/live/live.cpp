// `_core._live_*`: showing this process, and waking and waiting for another that is shown.
#include <cerrno>
#include <cstddef>

#include "live/page.hpp"
#include "live/publisher.hpp"
#include "numpy_handler/live/register.hpp"
#include "os/shared_page.hpp"

namespace rtpool::binding {
namespace {

PyObject* result_or_error(int error) noexcept {
  if (error == 0) Py_RETURN_NONE;
  errno = error;
  return PyErr_SetFromErrno(PyExc_OSError);
}

// _live_start()
PyObject* live_start(PyObject*, PyObject*) { return result_or_error(live::start()); }

// _live_restart_in_child()
PyObject* live_restart_in_child(PyObject*, PyObject*) { return result_or_error(live::restart_in_child()); }

// _live_wake(fd): who sleeps on what is asked in that file.
PyObject* live_wake(PyObject*, PyObject* file) {
  const int fd = PyObject_AsFileDescriptor(file);
  if (fd < 0) return nullptr;
  return result_or_error(os::wake_in_file(fd, offsetof(live::Head, asked)));
}

// _live_wait(fd, seen, seconds) -> whether the answer's number may be another than `seen` by now
PyObject* live_wait(PyObject*, PyObject* arguments) {
  int fd = -1;
  unsigned int seen = 0;
  double seconds = 0;
  if (!PyArg_ParseTuple(arguments, "iId:_live_wait", &fd, &seen, &seconds)) return nullptr;
  int error = 0;
  {
    const WithoutGil others_run;
    error = os::sleep_in_file(fd, offsetof(live::Head, answered), seen, static_cast<os::Nanoseconds>((seconds > 0 ? seconds : 0) * 1e9));
  }
  if (error == 0) Py_RETURN_TRUE;
  if (error == ETIMEDOUT || error == EINTR) Py_RETURN_FALSE;
  return result_or_error(error);
}

PyMethodDef functions[] = {
    {"_live_start", live_start, METH_NOARGS, nullptr},
    {"_live_restart_in_child", live_restart_in_child, METH_NOARGS, nullptr},
    {"_live_wake", live_wake, METH_O, nullptr},
    {"_live_wait", live_wait, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int register_live(PyObject* module) { return PyModule_AddFunctions(module, functions); }

}  // namespace rtpool::binding
