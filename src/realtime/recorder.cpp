#include "realtime/recorder.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace rtpool::realtime {
namespace {

bool longer(const Iteration& a, const Iteration& b) noexcept { return a.duration > b.duration; }

os::UsageCounts difference(const os::UsageCounts& a, const os::UsageCounts& b) noexcept {
  return {a.minor_faults - b.minor_faults, a.major_faults - b.major_faults,
          a.voluntary_switches - b.voluntary_switches, a.involuntary_switches - b.involuntary_switches};
}

os::UsageCounts sum(const os::UsageCounts& a, const os::UsageCounts& b) noexcept {
  return {a.minor_faults + b.minor_faults, a.major_faults + b.major_faults,
          a.voluntary_switches + b.voluntary_switches, a.involuntary_switches + b.involuntary_switches};
}

}  // namespace

void Recorder::start(os::Nanoseconds now) noexcept {
  open_ = false;
  totals_ = {};
  collections_.store(0, std::memory_order_relaxed);
  durations_.clear();
  lateness_.clear();
  slow_count_ = 0;
  slow_threshold_ = -1;
  first_ = {};
  timeline_ = {};
  stretches_ = 0;
  stretch_length_ = 1;
  started_ = now;
  recording_ = true;
  section_.begun.set(static_cast<std::uint64_t>(now));
  section_.iterations.set(0);
  section_.overruns.set(0);
  section_.skipped.set(0);
  section_.last_instant.set(0);
  section_.enter();
  read_usage(false);
  base_ = last_;
  faults_.clear();
  overruns_ = 0;
  throttled_ = 0;
}

void Recorder::rehearse() noexcept {
  // More than the timeline has stretches and ever slower, so that joining and replacing are met as well.
  for (std::size_t i = 0; i < k_stretches + 2; ++i) {
    begin(0, 0);
    end(static_cast<os::Nanoseconds>(i), static_cast<os::Nanoseconds>(k_stretches));
  }
  // Noting a fault must not be the cause of one.
  faults_.expect(0, true);
  for (std::uintptr_t i = 0; i < 4; ++i) faults_.faulted({i << 20, i});
}

int Recorder::watch() noexcept {
  if (usage_ == nullptr) return 0;
  read_usage();
  const os::UsageCounts before = last_;
  const int error = usage_->watch();
  watching_ = error == 0;
  watched_ = usage_->scope();
  seen_ = {};
  read_usage(false);
  base_ = sum(base_, difference(last_, before));
  return error;
}

Recorder::Mark Recorder::mark(bool keep) noexcept {
  Mark mark;
  if (!watching_) return mark;
  faults_.expect(totals_.iterations, keep);
  mark.known = usage_->poll(&mark.events, &faults_);
  if (keep && mark.events.overruns > seen_.overruns) overruns_ += mark.events.overruns - seen_.overruns;
  if (keep && mark.events.throttled > seen_.throttled) throttled_ += mark.events.throttled - seen_.throttled;
  seen_ = mark.events;
  return mark;
}

void Recorder::read_usage(bool keep) noexcept {
  if (usage_ == nullptr) return;
  last_mark_ = mark(keep);
  os::UsageCounts counts;
  if (usage_->read(&counts) == 0) last_ = counts;
  last_index_ = totals_.iterations;
}

void Recorder::begin(os::Nanoseconds now, os::Nanoseconds lateness) noexcept {
  begun_mark_ = mark();
  // Faults in idle time: counted now, so that they are not taken for this iteration's.
  if (begun_mark_.known && begun_mark_.events.faults != last_mark_.events.faults) {
    read_usage();
    begun_mark_ = last_mark_;
  }
  begun_collections_ = collections_.load(std::memory_order_relaxed);
  begun_ = now;
  begun_late_ = lateness;
  open_ = true;
}

bool Recorder::end(os::Nanoseconds now, os::Nanoseconds deadline) noexcept {
  if (!open_) return false;
  open_ = false;
  const Mark ended = mark();
  const os::Nanoseconds duration = now - begun_;
  const bool overrun = now > deadline;
  durations_.add(duration);
  lateness_.add(begun_late_);
  if (totals_.iterations < k_first) first_[totals_.iterations] = duration;
  add_to_timeline(duration);
  const bool faulted = ended.known && begun_mark_.known && ended.events.faults != begun_mark_.events.faults;
  const bool slow = duration > slow_threshold_;
  if (slow || faulted) {
    Iteration iteration;
    iteration.index = totals_.iterations;
    iteration.started = begun_ - started_;
    iteration.duration = duration;
    iteration.lateness = begun_late_;
    iteration.overrun = overrun;
    iteration.collections = collections_.load(std::memory_order_relaxed) - begun_collections_;
    attribute(ended, &iteration);
    if (slow) keep_slow(iteration);
  }
  if (overrun) {
    ++totals_.overruns;
    section_.overruns.set(totals_.overruns);
    section_.last_index.set(totals_.iterations);
    section_.last_duration.set(static_cast<std::uint64_t>(duration));
    section_.last_instant.set(static_cast<std::uint64_t>(now));
  }
  section_.iterations.set(++totals_.iterations);
  return overrun;
}

// Fills in what the iteration that has just ended suffered. RC-3: while the watch is known and its fault count stands
// where it stood at the last reading, that reading is still exact for faults.
void Recorder::attribute(const Mark& ended, Iteration* iteration) noexcept {
  const os::UsageCounts before = last_;
  const std::uint64_t before_index = last_index_;
  if (ended.known && begun_mark_.known) {
    iteration->usage.voluntary_switches = ended.events.voluntary_switches - begun_mark_.events.voluntary_switches;
    iteration->usage.involuntary_switches = ended.events.involuntary_switches - begun_mark_.events.involuntary_switches;
    if (ended.events.faults != begun_mark_.events.faults) {
      read_usage();
      iteration->usage.minor_faults = last_.minor_faults - before.minor_faults;
      iteration->usage.major_faults = last_.major_faults - before.major_faults;
    }
    return;
  }
  read_usage();
  iteration->usage = difference(last_, before);
  iteration->span = totals_.iterations - before_index + 1;
  last_index_ = totals_.iterations + 1;
}

void Recorder::add_to_timeline(os::Nanoseconds duration) noexcept {
  if (stretches_ == 0 || timeline_[stretches_ - 1].count == stretch_length_) {
    if (stretches_ == k_stretches) {
      // Full: join neighbours, so that the whole run stays in view at half the detail.
      for (std::size_t i = 0; i < k_stretches / 2; ++i) {
        const Stretch& a = timeline_[2 * i];
        const Stretch& b = timeline_[2 * i + 1];
        timeline_[i] = {a.count + b.count, a.sum + b.sum, std::max(a.max, b.max),
                        std::max(a.max_lateness, b.max_lateness)};
      }
      stretches_ = k_stretches / 2;
      stretch_length_ *= 2;
    }
    timeline_[stretches_++] = {};
  }
  Stretch& stretch = timeline_[stretches_ - 1];
  ++stretch.count;
  stretch.sum += duration;
  stretch.max = std::max(stretch.max, duration);
  stretch.max_lateness = std::max(stretch.max_lateness, begun_late_);
}

void Recorder::keep_slow(const Iteration& iteration) noexcept {
  if (slow_count_ == k_slowest) {
    std::pop_heap(slow_.begin(), slow_.end(), longer);
    slow_[k_slowest - 1] = iteration;
  } else {
    slow_[slow_count_++] = iteration;
  }
  std::push_heap(slow_.begin(), slow_.begin() + static_cast<std::ptrdiff_t>(slow_count_), longer);
  if (slow_count_ == k_slowest) slow_threshold_ = slow_[0].duration;
  RTPOOL_ASSERT(std::is_heap(slow_.begin(), slow_.begin() + static_cast<std::ptrdiff_t>(slow_count_), longer));
}

std::size_t Recorder::slowest(std::array<Iteration, k_slowest>* out) const noexcept {
  std::copy_n(slow_.begin(), slow_count_, out->begin());
  std::sort(out->begin(), out->begin() + static_cast<std::ptrdiff_t>(slow_count_), longer);
  return slow_count_;
}

Totals Recorder::totals(os::Nanoseconds now) noexcept {
  if (!recording_) return totals_;
  mark();
  Totals totals = totals_;
  os::UsageCounts counts;
  if (usage_ != nullptr && usage_->read(&counts) == 0) totals.usage = difference(counts, base_);
  totals.collections = collections_.load(std::memory_order_relaxed);
  totals.elapsed = now - started_;
  return totals;
}

void Recorder::finish(os::Nanoseconds now) noexcept {
  if (!recording_) return;
  totals_ = totals(now);
  recording_ = false;
  section_.leave();
  open_ = false;
  if (usage_ != nullptr) usage_->unwatch();
  watching_ = false;
}

void Recorder::resume(os::Nanoseconds now) noexcept {
  if (recording_) return;
  recording_ = true;
  section_.enter();
  read_usage(false);
  // As if the recording had begun later by the time in between, with the counters moved by what happened in it.
  base_ = difference(last_, totals_.usage);
  started_ = now - totals_.elapsed;
  collections_.store(totals_.collections, std::memory_order_relaxed);
}

}  // namespace rtpool::realtime
