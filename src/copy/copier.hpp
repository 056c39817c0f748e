// The copier: decides how blocks are copied (past the cache or through it, with how many threads) and does it.
//
// Thread rule: any thread, several at once as long as their destinations differ. Nothing allocates from the heap or
// fails. Cost: one pass over the bytes; with one thread no kernel call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "copy/block.hpp"
#include "copy/fill_history.hpp"

namespace rtpool::copy {

enum class Mode : std::uint8_t { automatic, cached, stream };

// What the caller asks for. `threads` 0: decided by size and by the cores this thread may use; else at most so many.
struct Request {
  Mode mode = Mode::automatic;
  unsigned threads = 0;
};

// What will be done.
struct Plan {
  bool stream = false;
  unsigned threads = 1;
};

// No thread is given less than this: waking a helper costs what copying 100 KiB costs.
inline constexpr std::size_t k_min_thread_bytes = std::size_t{2} << 20;
// Automatic mode uses more than one thread from here on. A helper that other work of the machine holds up costs its
// caller a slice of the scheduler, some 4 ms, and a copy of this size takes twice that with one thread. (Two cores
// streamed 1.15 to 1.6 times as fast as one on Zen 3; machines where a core fills less of the memory bus gain more.)
inline constexpr std::size_t k_automatic_thread_bytes = std::size_t{128} << 20;
// Automatic mode stops here: a few cores fill the memory bus of any machine, the rest belong to the program.
inline constexpr unsigned k_max_automatic_threads = 4;

// Copies of at least this many bytes go past the cache in automatic mode: half the last-level cache, because then
// source and destination no longer fit into it together, and streaming wins even if the result is read at once
// (Zen 3, 32 MiB: level at 12 MiB, 1.5 times as fast at 16, 1.2 times with the reader). O(1) after the first call.
std::size_t stream_threshold() noexcept;

// `bytes` in all, in rows of at least `row_bytes`. A kernel call only where several threads are worth it.
Plan make_plan(std::size_t bytes, std::size_t row_bytes, const Request& request) noexcept;

// Copies all blocks of one call, `bytes` in all, in rows of at least `row_bytes`: by the plan for them, and in automatic
// mode also past the cache where the calls before it tell that `owner` is being filled (fill_history.hpp).
void copy_call(const Block* blocks, std::size_t count, std::size_t bytes, std::size_t row_bytes, const Request& request,
               const Owner& owner) noexcept;

// Copies all blocks. Their destinations must not overlap one another nor any source. Each thread owns a range of
// destination addresses that begins and ends on a line, so no two write to the same one.
void copy_blocks(const Block* blocks, std::size_t count, const Plan& plan) noexcept;

}  // namespace rtpool::copy
