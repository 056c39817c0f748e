// Faults and switches that a test hands out itself. What it adds is seen by `read` and, while watching, by `poll`.
#pragma once

#include <cerrno>

#include "os/usage.hpp"

namespace rtpool::testing {

struct FakeUsageState {
  os::UsageCounts counts;
  os::UsageEvents events;
  int watch_error = 0;
  bool lose = false;  // the next poll reports lost events
  bool watching = false;
  int reads = 0;

  void fault(std::uint64_t minor, std::uint64_t major = 0) {
    counts.minor_faults += minor;
    counts.major_faults += major;
    events.faults += minor + major;
  }
  void switched(std::uint64_t voluntary, std::uint64_t involuntary = 0) {
    counts.voluntary_switches += voluntary;
    counts.involuntary_switches += involuntary;
    events.voluntary_switches += voluntary;
    events.involuntary_switches += involuntary;
  }
};

class FakeUsage final : public os::Usage {
 public:
  explicit FakeUsage(FakeUsageState& state) : state_(state) {}
  int read(os::UsageCounts* out) noexcept override {
    ++state_.reads;
    *out = state_.counts;
    return 0;
  }
  int watch() noexcept override {
    state_.watching = state_.watch_error == 0;
    return state_.watch_error;
  }
  void unwatch() noexcept override { state_.watching = false; }
  bool poll(os::UsageEvents* out) noexcept override {
    *out = state_.events;
    const bool complete = state_.watching && !state_.lose;
    state_.lose = false;
    return complete;
  }

 private:
  FakeUsageState& state_;
};

}  // namespace rtpool::testing
