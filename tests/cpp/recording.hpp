// A recording to memory, and what is in its file: for tests of whoever is recorded.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "trace/recorder.hpp"
#include "trace_reader.hpp"

namespace rtpool::test {

// Where the thread says it stands.
inline thread_local std::uint32_t t_place = 0;

class Recording {
 public:
  ~Recording() { forget_file(); }
  int start(trace::Mode mode = trace::Mode::events, std::uint64_t limit = 0, std::size_t buffer = 1 << 20, std::uint32_t poll_ms = 1,
            os::Memory& memory = os::memory()) {
    forget_file();
    file_ = ::memfd_create("trace", 0);
    trace::RecorderOptions options;
    options.mode = mode;
    options.limit = limit;
    options.buffer = buffer;
    options.poll_ms = poll_ms;
    options.where = [](bool) noexcept { return t_place; };
    options.file = ::dup(file_);
    return trace::recorder().start(options, "{}", 2, memory);
  }
  // The pools must have been told before.
  TracedFile finish() {
    trace::recorder().stop();
    trace::recorder().finish("{\"end\":1}", 9);
    return file_ < 0 ? TracedFile{} : TraceReader(file_).read();
  }
  off_t bytes() const { return ::lseek(file_, 0, SEEK_END); }
  // In a forked child: the file is the parent's.
  void leave_file() { file_ = -1; }

 private:
  void forget_file() {
    if (file_ >= 0) ::close(file_);
  }

  int file_ = -1;
};

inline std::vector<TracedEvent> of(const TracedFile& file, unsigned type) {
  std::vector<TracedEvent> some;
  std::copy_if(file.events.begin(), file.events.end(), std::back_inserter(some), [&](const TracedEvent& e) { return e.type == type; });
  return some;
}

// In the order of time, as readers put them.
inline std::vector<TracedEvent> in_order(const TracedFile& file) {
  std::vector<TracedEvent> events = file.events;
  std::stable_sort(events.begin(), events.end(), [](const TracedEvent& a, const TracedEvent& b) {
    return a.time != b.time ? a.time < b.time : (a.type == trace::k_free) > (b.type == trace::k_free);
  });
  return events;
}

}  // namespace rtpool::test
