// What module/module.cpp calls while the module loads: each adds its types and functions. 0, or -1 with an exception.
#pragma once

#include "numpy_handler/support/py_support.hpp"

namespace rtpool::binding {

int register_pool(PyObject* module);          // pool_type.cpp
int register_call_site(PyObject* module);     // call_site.cpp: how debug pools learn where they are called from
int register_owner(PyObject* module);         // owner.cpp
int register_refusal(PyObject* module);       // refusal.cpp: what errors tell of a full pool
int register_default_pool(PyObject* module);  // default_pool.cpp

}  // namespace rtpool::binding
