// The OS contract for the program's own code and tables: the pages of the executable and of every library loaded.
#pragma once

#include <cstddef>

namespace rtpool::os {

struct ProgramPages {
  std::size_t bytes = 0;  // of the segments that are present now
  int error = 0;          // the first errno value met: EINVAL where the kernel cannot do it (before 5.14)
};

// Brings the pages of all loaded objects in, from the file if need be, and writable ones as this process's own copies, so
// that code which runs for the first time and tables which are first written do not fault. Contents do not change, and no
// advice about the memory is given. Any thread, without blocking the loader. Some 10 ms for 60 MiB of libraries at the
// first call; nothing at later ones until another library is loaded or the process forks.
ProgramPages make_program_resident() noexcept;

}  // namespace rtpool::os
