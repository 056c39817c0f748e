// The name of the function that an instruction belongs to.
//
// Thread rule: any thread. Cost: microseconds where the library exports the name; else its file is read and its symbols are
// gone through, milliseconds for a large one. Allocates; takes the loader's lock. Failure: fields stay empty.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rtpool::os {

struct Function {
  char name[256] = {};         // as in the source, C++ names readable; empty if the library does not tell
  char object[256] = {};       // path of the library or program; empty: made at run time, or the kernel's
  std::uintptr_t begin = 0;    // first instruction of the function, 0 if not known
  std::uintptr_t offset = 0;   // of the instruction from the begin of the object, as tools such as addr2line want it
  bool kernel = false;         // the kernel, on behalf of the thread
};

Function find_function(std::uintptr_t instruction) noexcept;

}  // namespace rtpool::os
