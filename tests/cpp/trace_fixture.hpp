// A pool that is recorded, over a kernel that fails when told to.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pool_fixture.hpp"
#include "recording.hpp"
#include "trace/recorder.hpp"

namespace rtpool::pool {

class TraceTest : public PoolTest {
 protected:
  ~TraceTest() override { finish(); }
  int start(trace::Mode mode = trace::Mode::events, std::uint64_t limit = 0, std::size_t buffer = 1 << 20, std::uint32_t poll_ms = 1) {
    return recording_.start(mode, limit, buffer, poll_ms, kernel_ ? os::memory() : memory_);
  }
  test::TracedFile finish() {
    Pool::record_none();
    return recording_.finish();
  }

  test::Recording recording_;
  bool kernel_ = true;
};

}  // namespace rtpool::pool
