// One thread's side of a recording: the chunk it writes to and its sums by place.
//
//   ST-1  only the thread that holds a stream writes to it, and only while `busy` is set; whoever stops the recording
//         waits for `busy` to be clear after it has said so (as blocks/heap_lock.hpp)
//
// Thread rule: the holder, or whoever stops the recording. Cost: O(1). Nothing here fails.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/thread_local.hpp"
#include "trace/chunk.hpp"
#include "trace/format.hpp"

namespace rtpool::trace {

struct alignas(64) Stream {
  std::atomic<std::uint32_t> busy{0};
  std::uint32_t thread = 0;  // counts the threads of a recording, from 1
  std::uint64_t lost = 0;    // since the last chunk began
  Encoder encoder;
  PlaceTotals* totals = nullptr;  // by place; mode totals
  std::uint32_t totals_used = 0;   // places below it may have sums
  std::uint32_t totals_ready = 0;  // places below it are resident
  std::atomic<Stream*> next_idle{nullptr};
};

// This thread's stream in the recording of that number. One small struct, no destructor (pool/thread_record.hpp says why).
struct StreamCache {
  std::uint64_t recording = 0;
  Stream* stream = nullptr;
};

extern thread_local constinit StreamCache t_stream RTPOOL_THREAD_LOCAL;

}  // namespace rtpool::trace
