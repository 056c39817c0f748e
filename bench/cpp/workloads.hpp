// The workloads. Each adds its rows to the report; `rounds` is how often a figure is measured before its median is
// taken.
#pragma once

#include "allocator.hpp"
#include "report.hpp"

namespace rtpool::bench {

// One block of one size allocated and released again and again: what a loop with one temporary does.
void run_pairs(const Allocator& a, Report& report, unsigned rounds);
// 32 blocks of one size allocated, then released in the order of their allocation: what an expression with many
// temporaries does.
void run_batches(const Allocator& a, Report& report, unsigned rounds);
// 64 blocks alive, sizes 64 B to 8 MiB, one at random replaced by one of a random size: every single replacement is
// timed.
void run_mixed(const Allocator& a, Report& report, unsigned rounds);
// One thread against as many as there are processors (at most 4), each with sizes of its own.
void run_threads(const Allocator& a, Report& report, unsigned rounds);
// One thread allocates, another releases: 2 million blocks of 64 B to 4 KiB through a ring of 1,024.
void run_producer_consumer(const Allocator& a, Report& report, unsigned rounds);
// The same with blocks of one size, many short rounds: what it costs a block.
void run_handoff(const Allocator& a, Report& report, unsigned rounds);
// 1, 2, 4, 8 and 16 threads, as far as there are processors, each with blocks of its own; and 1, 2, 4 and 8 pairs of which one
// thread allocates and the other releases.
void run_scaling(const Allocator& a, Report& report, unsigned rounds);
// Bytes granted for bytes asked.
void run_waste(const Allocator& a, Report& report);
// For an instruction counter: 1,000 misses with `blocks` blocks alive and as many free, inside the function
// `measured_misses`.
void run_misses(const Allocator& a, Report& report, std::size_t blocks);
// For an instruction counter: 1,000 pairs of one block of `size` bytes, a size seen before, inside the function `measured_hits`.
void run_hits(const Allocator& a, std::size_t size);

}  // namespace rtpool::bench
