// Helper threads for large copies: started when first needed, kept, at rest in the kernel between jobs.
//
// Thread rule: any thread may run a job; while one is running, others carry theirs out alone instead of waiting. After
// a fork the child starts with none and makes its own. Nothing runs at process exit; threads at rest end with the
// process.
#pragma once

#include <atomic>

namespace rtpool::copy {

inline constexpr unsigned k_max_threads = 64;

// A job is `parts` independent parts. `run_part` is called once for each, by any of the threads; `finish` once by each
// thread that took part, after its last one. Neither may throw, block or start another job.
struct Job {
  unsigned parts = 0;
  void (*run_part)(Job& job, unsigned part) noexcept = nullptr;
  void (*finish)(Job& job) noexcept = nullptr;
  std::atomic<unsigned> next_part{0};
};

// Returns when all parts are done and visible to the caller. The caller works too, with up to `threads - 1` helpers;
// how many there were is no promise: a helper that cannot be started or wakes too late is done without. Cost beside the
// parts: none with one thread or one part, else one futex wake a helper and up to one wait (about 10 us).
void run_job(Job& job, unsigned threads) noexcept;

// Helpers alive in this process.
unsigned helper_count() noexcept;

}  // namespace rtpool::copy
