// What module/module.cpp calls while the module loads: each adds its types and functions. 0, or -1 with an exception.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

int register_realtime_record(PyObject* module);    // record.cpp
int register_realtime_loop(PyObject* module);      // loop.cpp
int register_realtime_settings(PyObject* module);  // settings.cpp

}  // namespace rtpool::binding
