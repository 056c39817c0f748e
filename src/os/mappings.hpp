// What lies where in this process's address space: loaded libraries, files, heaps of libc, stacks of threads.
//
// Thread rule: an instance belongs to one thread at a time. Cost: `take` reads /proc/self/maps, 0.1 to 1 ms, and allocates;
// `find` is a binary search, with a kernel call or a few where the mapping itself does not tell. Nothing for a loop that has a
// deadline. Failure: errno values; an address nobody knows.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "os/libc_blocks.hpp"

namespace rtpool::os {

enum class Region : std::uint8_t {
  nothing,    // no mapping
  code,       // of the program or a library
  data,       // their variables and tables
  file,       // another file that is mapped
  shared,     // shared memory with a name of its own: /dev/shm, memfd
  libc_heap,  // what libc's malloc hands out
  stack,      // a thread's
  anonymous,
  kernel,     // vdso and its like
};

struct Place {
  Region region = Region::nothing;
  bool whole_heap = false;  // libc_heap: of the main thread; else another thread's, or a block with a mapping of its own
  pid_t thread = 0;         // stack: whose, 0 if not known
  std::uintptr_t base = 0;  // of `find_loaded`: what the object's own addresses count from
  char name[256] = {};      // path, or the mapping's own name ("[anon:...]" without its frame); may be empty
};

class Mappings {
 public:
  Mappings() = default;
  Mappings(const Mappings&) = delete;
  Mappings& operator=(const Mappings&) = delete;
  ~Mappings();

  // Keeps what is mapped now, instead of what was kept before. ENOMEM, or what reading the file gave.
  int take() noexcept;
  bool taken() const noexcept { return length_ != 0; }
  // What lay at `address` then. `live`: it is the present, so that memory may be looked at, and threads asked, where the
  // mapping has no name.
  Place find(std::uintptr_t address, bool live) noexcept;

 private:
  struct Mapping {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    bool writable = false;
    bool executable = false;
    const char* name = "";
  };
  struct ThreadStack {
    pid_t thread = 0;
    std::uintptr_t pointer = 0;
  };

  bool parse() noexcept;
  void ask_threads() noexcept;
  Place name_file(const Mapping& mapping) const noexcept;
  Place look_at(const Mapping& mapping, std::uintptr_t address) noexcept;

  char* text_ = nullptr;
  std::size_t length_ = 0;
  std::size_t capacity_ = 0;
  Mapping* mappings_ = nullptr;  // made of `text_` at the first `find`
  std::size_t count_ = 0;
  ThreadStack* stacks_ = nullptr;  // asked at the first mapping that may be one
  std::size_t stack_count_ = 0;
  bool asked_threads_ = false;
  MuslBlocks musl_blocks_;
};

// The library, or the program itself, whose code or data lie at the address; variables that begin as zeros included.
// Region::nothing for anything else. Some microseconds; takes the loader's lock.
Place find_loaded(std::uintptr_t address) noexcept;

// Copies memory of this process that may not be there; false then, and where the kernel does not permit it.
bool peek(std::uintptr_t address, void* out, std::size_t bytes) noexcept;

}  // namespace rtpool::os
