// What the fuzz targets have in common: the way in, how a broken promise ends the run, and what was done in all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "input.hpp"

namespace rtpool::fuzz {

// Sums over all inputs of the process. At its end they are added, as one line, to the file that the environment variable
// RTPOOL_FUZZ_COUNTS names.
struct Counts {
  std::uint64_t inputs = 0;
  std::uint64_t operations = 0;
  std::uint64_t faults = 0;   // calls to the kernel or to the fallback allocator that were made to fail
  std::uint64_t misuses = 0;  // wrong pointers handed in on purpose
};
Counts& counts() noexcept;

// Says which promise does not hold and ends the process, so that the fuzzer keeps the input.
[[noreturn]] void broken(const char* file, int line, const char* promise, const char* more) noexcept;

// Lines that the core wrote to standard error about wrong pointers. They are counted instead of printed.
std::uint64_t reports() noexcept;

// One target does this with one input; each defines it.
void play(Input input);

// Does `step` until the input is used up, at most `most` times.
template <class Step>
void for_each_step(Input& input, unsigned most, Step&& step) {
  for (unsigned done = 0; done < most && !input.empty(); ++done) {
    step();
    ++counts().operations;
  }
}

// A pattern over a block: every byte of short blocks, of longer ones 16 bytes in each 512 and the last 16.
void fill(void* block, std::size_t size, std::uint8_t seed) noexcept;
bool filled(const void* block, std::size_t size, std::uint8_t seed) noexcept;
bool all_zero(const void* block, std::size_t size) noexcept;

}  // namespace rtpool::fuzz

#define FUZZ_EXPECT(condition) \
  ((condition) ? (void)0 : ::rtpool::fuzz::broken(__FILE__, __LINE__, #condition, ""))
#define FUZZ_EXPECT_SAYING(condition, text) \
  ((condition) ? (void)0 : ::rtpool::fuzz::broken(__FILE__, __LINE__, #condition, text))

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
