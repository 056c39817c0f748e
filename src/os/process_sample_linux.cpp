#include "os/process_sample.hpp"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>

#include "os/errno.hpp"
#include "os/text_file.hpp"

namespace rtpool::os {

ProcessSample sample_process() noexcept {
  const KeepErrno keep;
  ProcessSample sample;
  char text[128];
  unsigned long total = 0;
  unsigned long resident = 0;
  if (read_text_file("/proc/self/statm", text, sizeof text) && std::sscanf(text, "%lu %lu", &total, &resident) == 2) {
    sample.resident_bytes = std::uint64_t{resident} * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  }
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0) {
    sample.minor_faults = static_cast<std::uint64_t>(usage.ru_minflt);
    sample.major_faults = static_cast<std::uint64_t>(usage.ru_majflt);
  }
  return sample;
}

Nanoseconds process_time() noexcept {
  timespec used{};
  (void)::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<Nanoseconds>(used.tv_sec) * 1'000'000'000 + used.tv_nsec;
}

std::uint32_t thread_number() noexcept { return static_cast<std::uint32_t>(::syscall(SYS_gettid)); }

}  // namespace rtpool::os
