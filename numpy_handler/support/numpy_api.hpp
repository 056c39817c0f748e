// NumPy's C API, one table for all binding files. Include this instead of NumPy's headers; only module.cpp, which
// imports the table, defines RTPOOL_IMPORTS_NUMPY before it. One build serves NumPy 1.22 and everything newer.
#pragma once

#include "numpy_handler/support/py_support.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL rtpool_numpy_api
#ifndef RTPOOL_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

namespace rtpool::binding {

// The name NumPy gives the capsules that hold a PyDataMem_Handler.
inline constexpr const char* k_handler_capsule_name = "mem_handler";

// NumPy's private mark on results of `broadcast_arrays` and the like: writing to them warns.
inline constexpr int k_warns_on_write = static_cast<int>(1U << 31);

}  // namespace rtpool::binding
