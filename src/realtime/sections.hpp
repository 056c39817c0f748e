// The loops of this process that are being recorded, for whoever wants to see them run.
//
// Thread rule: `enter`, `leave` and the counters' changes by the loop's thread, `read_sections` by any. Cost: `enter` and `leave` a
// lock and a kernel call, the counters a store each. Fork: the child has the forking thread's loops only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/counter.hpp"
#include "os/clock.hpp"

namespace rtpool::realtime {

struct Section {
  base::Counter begun;         // instant, ns
  base::Counter iterations;
  base::Counter overruns;
  base::Counter skipped;
  base::Counter period;        // ns; 0: as fast as it goes
  base::Counter last_index;    // of the last overrun: which iteration,
  base::Counter last_instant;  // when it ended
  base::Counter last_duration; // and what it took, ns

  void enter() noexcept;  // once more: nothing
  void leave() noexcept;  // so

  std::uint32_t thread = 0;  // the kernel's number; 0: not entered
  Section* next = nullptr;
};

struct SectionFigures {
  std::uint64_t thread = 0;
  std::uint64_t begun = 0;
  std::uint64_t iterations = 0;
  std::uint64_t overruns = 0;
  std::uint64_t skipped = 0;
  std::uint64_t period = 0;
  std::uint64_t last_index = 0;
  std::uint64_t last_instant = 0;
  std::uint64_t last_duration = 0;
};

// Fills at most `capacity`, returns how many there are.
std::size_t read_sections(SectionFigures* out, std::size_t capacity) noexcept;

}  // namespace rtpool::realtime
