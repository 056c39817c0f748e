// Arrays over blocks of shared pools, and `_core.SharedBlock`, which they have as their base: one hold of the block.
//
// Thread rule: with an attached thread state, exclusive to the handle.
#pragma once

#include "numpy_handler/shared/array.hpp"

namespace rtpool::binding {

// Whether an array of this layout has no element, and so no block.
bool is_empty(const SharedLayout& layout) noexcept;

// Makes sure that this process, and not an ancestor of it, holds the block through this handle. False with an exception.
bool ensure_held(SharedArrayObject* self) noexcept;

// The array over the block; the handle's hold becomes the array's. A new reference, or nullptr with an exception.
PyObject* open_array(SharedArrayObject* self, bool writeable) noexcept;

// True if the array, or what it is a view of, was opened from this pool; `ref` is the block then.
bool block_behind(const ModuleState* state, PyArrayObject* array, const shared::SharedPool* core,
                  shared::BlockRef* ref) noexcept;

}  // namespace rtpool::binding
