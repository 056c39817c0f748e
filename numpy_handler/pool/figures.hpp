// What pools of the core, private or shared, tell and why one could not be made, as tuples of integers in the order of the
// core's structs; the package gives them names. Thread rule: as py_support.hpp.
#pragma once

#include "numpy_handler/support/state.hpp"
#include "pool/pool.hpp"

namespace rtpool::binding {

// (current_bytes, ...) in the order of STATS_FIELDS. A new reference, or nullptr with an exception.
PyObject* stats_tuple(const pool::Stats& counters) noexcept;

// (size, limit, prefault, lock, huge_pages, ((step, errno, asked, got), ...)). A new reference, or nullptr with an
// exception.
PyObject* effective_tuple(const pool::Effective& force) noexcept;

// Raises CreationFailure(step, errno, asked, got). nullptr.
PyObject* raise_creation_failure(const ModuleState* state, pool::Step step, int error, std::size_t asked,
                                 std::size_t got) noexcept;

// Adds STATS_FIELDS. 0, or -1 with an exception.
int add_stats_fields(PyObject* module) noexcept;

}  // namespace rtpool::binding
