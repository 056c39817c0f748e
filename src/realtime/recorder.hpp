// What happened in a real-time loop, iteration by iteration, in fixed buffers.
//
// Durations and lateness go to histograms, the slowest iterations are kept one by one with the faults, switches and
// collections in them, and a timeline keeps the course of the whole run. Exact totals come from the kernel's counters
// at both ends. With a watch (os::Usage) the counts of a single iteration are exact as well and cost no kernel call;
// without one they are read when an iteration turns out to be slow or late, and then cover everything since the last
// such reading: `Iteration::span` says how many iterations that is. With a watch each page fault is also noted with the
// instruction and the address (`faults`), the ones in the wait before an iteration as that iteration's.
//
// Thread rule: all functions by the thread that runs the loop, except `note_collection`, which any thread may call, and
// the reading ones, which others may call once the loop has ended. Cost of `begin` and `end` together: below 100 ns
// beside the two readings of the clock that the caller makes; no allocation; no kernel call with a watch.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "os/clock.hpp"
#include "os/usage.hpp"
#include "realtime/fault_log.hpp"
#include "realtime/histogram.hpp"
#include "realtime/sections.hpp"

namespace rtpool::realtime {

// One iteration as it is kept among the slowest.
struct Iteration {
  std::uint64_t index = 0;
  os::Nanoseconds started = 0;   // since the recording began
  os::Nanoseconds duration = 0;
  os::Nanoseconds lateness = 0;
  os::UsageCounts usage;
  std::uint64_t collections = 0;
  std::uint64_t span = 1;        // iterations that `usage` covers; 1: it is exact
  bool overrun = false;
};

// One stretch of the timeline.
struct Stretch {
  std::uint64_t count = 0;
  os::Nanoseconds sum = 0;
  os::Nanoseconds max = 0;
  os::Nanoseconds max_lateness = 0;
};

struct Totals {
  std::uint64_t iterations = 0;
  std::uint64_t overruns = 0;
  std::uint64_t skipped = 0;
  std::uint64_t collections = 0;
  os::Nanoseconds elapsed = 0;
  os::UsageCounts usage;
};

class Recorder {
 public:
  static constexpr std::size_t k_slowest = 32;
  static constexpr std::size_t k_first = 128;
  static constexpr std::size_t k_stretches = 2048;

  explicit Recorder(std::unique_ptr<os::Usage> usage) noexcept : usage_(std::move(usage)) {}
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  ~Recorder() { section_.leave(); }

  // Forgets everything and begins at `now`. One kernel call.
  void start(os::Nanoseconds now) noexcept;
  // Records a few thousand made-up iterations and forgets them by `start`, which must follow: code that runs for the
  // first time costs page faults, which are not to fall into the first real iterations. About 0.2 ms.
  void rehearse() noexcept;
  // Begins to watch the calling thread until `finish`. 0, or the errno value with which the kernel refused; the recorder
  // works all the same. Tens of microseconds; what it costs in faults is not counted.
  int watch() noexcept;
  // An iteration begins at `now`, `lateness` after it was due; 0 in a loop without a period.
  void begin(os::Nanoseconds now, os::Nanoseconds lateness) noexcept;
  // The iteration ends at `now`. `deadline`: when the next one is due; INT64_MAX for none. True if it overran.
  bool end(os::Nanoseconds now, os::Nanoseconds deadline) noexcept;
  // An iteration that began is not to be counted (it was cut short by an exception).
  void abandon() noexcept { open_ = false; }
  void add_skipped(std::uint64_t count) noexcept {
    totals_.skipped += count;
    section_.skipped.set(totals_.skipped);
  }
  // What others see of the loop while it runs (sections.hpp).
  void show_period(os::Nanoseconds period) noexcept { section_.period.set(static_cast<std::uint64_t>(period)); }
  // For the idle time between two iterations: without a watch, reads the counters, so that the next iteration's counts
  // cover it alone (and the wait before it). With a watch: nothing.
  void settle() noexcept {
    if (!watching_) read_usage();
  }
  void note_collection() noexcept { collections_.fetch_add(1, std::memory_order_relaxed); }
  // The recording ends at `now`; totals are final until the next `start` or `resume`. May be called again.
  void finish(os::Nanoseconds now) noexcept;
  // The recording goes on at `now`; what happened since `finish` is left out.
  void resume(os::Nanoseconds now) noexcept;

  bool recording() const noexcept { return recording_; }
  bool in_iteration() const noexcept { return open_; }
  bool watching() const noexcept { return watching_; }
  // What a watch saw of the recording, or sees; `none` if there was none.
  os::WatchScope watched() const noexcept { return watched_; }
  // Times during the recording that the watch lost events as there were too many between two looks, and that the kernel
  // throttled it.
  std::uint64_t overruns() const noexcept { return overruns_; }
  std::uint64_t throttled() const noexcept { return throttled_; }
  // Where the faults of the recording happened, as far as the watch saw them; up to date after `totals`.
  const FaultLog& faults() const noexcept { return faults_; }
  // Totals so far; while recording, the kernel is asked for the usage.
  Totals totals(os::Nanoseconds now) noexcept;
  const Histogram& durations() const noexcept { return durations_; }
  const Histogram& lateness() const noexcept { return lateness_; }
  // Slowest first. Fills at most `k_slowest`, returns how many.
  std::size_t slowest(std::array<Iteration, k_slowest>* out) const noexcept;
  // Durations of the first `k_first` iterations.
  const std::array<os::Nanoseconds, k_first>& first() const noexcept { return first_; }
  // The run in at most `k_stretches` stretches of `stretch_length` iterations, in order; the last may be shorter.
  const std::array<Stretch, k_stretches>& timeline() const noexcept { return timeline_; }
  std::size_t timeline_count() const noexcept { return stretches_; }
  std::uint64_t stretch_length() const noexcept { return stretch_length_; }

 private:
  // The watch's counts at some instant; not `known` without a watch or when it lost events.
  struct Mark {
    os::UsageEvents events;
    bool known = false;
  };

  // `keep`: faults since the last mark belong to the recording.
  Mark mark(bool keep = true) noexcept;
  void read_usage(bool keep = true) noexcept;
  void attribute(const Mark& ended, Iteration* iteration) noexcept;
  void add_to_timeline(os::Nanoseconds duration) noexcept;
  void keep_slow(const Iteration& iteration) noexcept;

  Section section_;
  std::unique_ptr<os::Usage> usage_;
  bool recording_ = false;
  bool open_ = false;
  bool watching_ = false;
  os::WatchScope watched_ = os::WatchScope::none;
  os::Nanoseconds started_ = 0;     // the recording
  os::Nanoseconds begun_ = 0;       // the open iteration
  os::Nanoseconds begun_late_ = 0;
  std::uint64_t begun_collections_ = 0;
  Mark begun_mark_;
  os::UsageCounts base_;            // at `start`
  os::UsageCounts last_;            // at the last reading
  std::uint64_t last_index_ = 0;    // iterations completed at the last reading
  Mark last_mark_;                  // at the last reading
  os::UsageEvents seen_;            // the watch's counts at the last mark
  std::uint64_t overruns_ = 0;
  std::uint64_t throttled_ = 0;
  FaultLog faults_;
  std::atomic<std::uint64_t> collections_{0};
  Totals totals_;
  Histogram durations_;
  Histogram lateness_;
  std::size_t slow_count_ = 0;
  os::Nanoseconds slow_threshold_ = -1;  // RC-2: the least duration kept once all places are taken, else -1
  std::array<Iteration, k_slowest> slow_{};  // RC-1: a heap, the least duration in front
  std::array<os::Nanoseconds, k_first> first_{};
  std::array<Stretch, k_stretches> timeline_{};
  std::size_t stretches_ = 0;
  std::uint64_t stretch_length_ = 1;
};

}  // namespace rtpool::realtime
