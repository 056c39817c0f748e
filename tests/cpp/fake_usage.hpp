// Faults and switches that a test hands out itself. What it adds is seen by `read` and, while watching, by `poll`.
#pragma once

#include <cerrno>
#include <vector>

#include "os/usage.hpp"

namespace rtpool::test {

struct FakeUsageState {
  os::UsageCounts counts;
  os::UsageEvents events;
  int watch_error = 0;
  bool lose = false;  // the next poll reports lost events
  bool watching = false;
  os::WatchScope scope = os::WatchScope::all;
  int reads = 0;
  std::vector<os::FaultSample> samples;    // told by the next poll
  std::vector<os::MappedFile> files;       // before these

  void fault(std::uint64_t minor, std::uint64_t major = 0) {
    counts.minor_faults += minor;
    counts.major_faults += major;
    events.faults += minor + major;
  }
  void fault_at(std::uintptr_t address, std::uintptr_t instruction) {
    fault(1);
    samples.push_back({address, instruction});
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
  bool poll(os::UsageEvents* out, os::WatchListener* listener) noexcept override {
    if (!state_.watching) return false;
    for (const os::MappedFile& file : state_.files) {
      if (listener != nullptr) listener->mapped(file);
    }
    for (const os::FaultSample& sample : state_.samples) {
      if (listener != nullptr) listener->faulted(sample);
    }
    state_.files.clear();
    state_.samples.clear();
    *out = state_.events;
    const bool complete = !state_.lose;
    state_.lose = false;
    return complete;
  }
  os::WatchScope scope() const noexcept override {
    return state_.watch_error == 0 ? state_.scope : os::WatchScope::none;
  }

 private:
  FakeUsageState& state_;
};

}  // namespace rtpool::test
