// Where in the Python program a recorded thread stands, as a small number: a place (code object and instruction) or a whole
// stack of them. What a number stands for goes into the trace when it is first met.
//
// Places and stacks are kept in tables of a fixed size that are resident from the start, so that meeting a new one neither
// allocates nor faults. Code objects that have a place are kept alive until the recording ends: their addresses name them.
//
// Thread rule: `here` any thread, also without Python; a thread without an attached state has place 0. The rest with an
// attached state. Cost: some ns a frame; a new place about a microsecond. Failure: tables full: 0, counted.
#pragma once

#include <cstdint>

#include "numpy_handler/support/py_support.hpp"
#include "os/memory.hpp"

namespace rtpool::binding {

enum class Stacks : std::uint8_t { none, site, full };

struct PlaceInfo {
  PyCodeObject* code = nullptr;  // borrowed
  int instruction = 0;
  int line = 0;
  int end_line = 0;
  int column = -1;  // -1: not known
  int end_column = -1;
};

class Places {
 public:
  static constexpr std::uint32_t k_most_places = 65536;
  static constexpr std::uint32_t k_most_stacks = std::uint32_t{1} << 20;
  static constexpr unsigned k_most_frames = 128;  // of a stack: the innermost

  // An errno value. What was kept by the recording before is given back.
  int begin(Stacks stacks) noexcept;
  // Gives the code objects and the memory back. No recording may be running.
  void end() noexcept;

  // In a forked child, where another thread may have been adding a place.
  void reset_after_fork() noexcept;

  std::uint32_t here(bool allocates) noexcept;
  // What a number of the present recording stands for: the place, or a stack's innermost place. False: nothing.
  bool describe(std::uint32_t number, PlaceInfo* info) const noexcept;
  std::uint64_t unkept() const noexcept;
};

Places& places() noexcept;

// trace::WhereAmI over `places()`.
std::uint32_t where_am_i(bool allocates) noexcept;

}  // namespace rtpool::binding
