// What the kernel counts for the whole process, and for the calling thread its number.
// Thread rule: any thread. Cost: some kernel calls each. Failure: what cannot be read is 0; `errno` is left alone.
#pragma once

#include <cstdint>

#include "os/clock.hpp"

namespace rtpool::os {

struct ProcessSample {
  std::uint64_t resident_bytes = 0;
  std::uint64_t minor_faults = 0;
  std::uint64_t major_faults = 0;
};

ProcessSample sample_process() noexcept;
std::uint32_t thread_number() noexcept;
// Processor time that the process has used.
Nanoseconds process_time() noexcept;

}  // namespace rtpool::os
