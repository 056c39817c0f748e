// `_core.Loop`, `_core.Tick`, `_core.Histogram`: the real-time loop of a section and what it hands out.
//
// A Loop belongs to the thread that called `start`: every other method, except `stop` and `note_collection`, raises
// RuntimeError elsewhere. Its object is made once a section; iterating allocates nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

#include "numpy_handler/support/state.hpp"
#include "os/clock.hpp"
#include "os/mappings.hpp"
#include "pool/pool.hpp"
#include "realtime/histogram.hpp"
#include "realtime/idle_work.hpp"
#include "realtime/recorder.hpp"
#include "realtime/timer.hpp"

namespace rtpool::binding {

// One iteration, as the program sees it.
struct TickObject {
  PyObject_HEAD
  std::int64_t index;          // 0 is the first measured iteration; warm-up counts up to -1
  os::Nanoseconds started;
  os::Nanoseconds lateness;
  os::Nanoseconds deadline;    // INT64_MAX: none
  std::uint64_t skipped;       // instants of the grid left out before this iteration
};

// The part of a Loop that is C++: its buffers are some 200 KiB, made with the object and never again.
struct LoopState {
  LoopState(os::Clock& c, os::Nanoseconds period, realtime::Overrun overrun, os::Nanoseconds spin,
            std::unique_ptr<os::Usage> usage) noexcept
      : clock(c), timer(c, period, overrun, spin), recorder(std::move(usage)), idle(c) {}

  // The room of the last loop that ended serves the next one: anew from libc, so many bytes are a mapping of their own and
  // thirty page faults, more than all the rest of entering a section.
  static void* operator new(std::size_t size, const std::nothrow_t&) noexcept;
  static void operator delete(void* room) noexcept;
  static void operator delete(void* room, const std::nothrow_t&) noexcept { operator delete(room); }

  os::Clock& clock;
  realtime::Timer timer;
  realtime::Recorder recorder;
  realtime::IdleWork idle;
  os::Mappings mappings_before;  // what was mapped when the watch began
  std::atomic<bool> stop{false};
};

struct LoopObject {
  PyObject_HEAD
  LoopState* state;
  PyTypeObject* tick_type;
  PyTypeObject* histogram_type;
  PyObject* on_warm;          // called with 1 before the last warm-up iteration of several, with 0 after it; may be None
  PyObject* pool;             // whose idle blocks are cleared ahead; may be nullptr
  TickObject* ticks[2];       // handed out in turn: the program's variable holds one while the other is filled
  os::Nanoseconds period;     // 0: as fast as it goes
  std::int64_t warm_left;
  std::int64_t iterations;    // a pass of the loop ends after so many; -1: never
  os::Nanoseconds duration;   // or after this time; -1: never
  std::int64_t next_index;
  std::int64_t pass_count;    // measured iterations begun in this pass
  os::Nanoseconds pass_end;   // INT64_MAX: none
  os::Nanoseconds deadline;   // of the open iteration
  unsigned long thread;       // 0: not started
  int watch_error;
  bool handles_signals;       // the thread that entered is the one that runs Python's signal handlers
  bool iterating;             // inside `for`
  bool rehearsed;             // the recorder's pages and code have been used
  bool recorded;              // the record of this pass has begun
  bool warming;               // the open iteration is a warm-up
};

inline LoopObject* loop_object(PyObject* object) noexcept { return reinterpret_cast<LoopObject*>(object); }

// A copy of a histogram as a `_core.Histogram`; nullptr with an exception.
PyObject* make_histogram(PyTypeObject* type, const realtime::Histogram& source) noexcept;

// Loop.faults (faults.cpp).
PyObject* loop_faults(PyObject* object, PyObject*);

// Methods of `_core.Loop` that read the record (record.cpp), ended by an empty entry.
extern PyMethodDef k_loop_record_methods[];

}  // namespace rtpool::binding
