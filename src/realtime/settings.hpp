// The machine's settings for the span of a real-time section: applied in one order, taken back in the reverse order.
//
// Thread rule: `apply` and `restore` by the thread that runs the section; memory locking and wake-up latency concern the
// process. A setting that is refused does not stop the ones after it: each has its own errno value, and the caller
// decides. Cost: kernel calls; locking the process's memory takes as long as making all of it resident.
#pragma once

#include <sched.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "os/scheduling.hpp"

namespace rtpool::realtime {

enum class Setting : std::uint8_t { affinity, lock_process, wakeup_latency, priority, children };
inline constexpr std::size_t k_settings = 5;

// What a section asks for; nothing by default.
struct SettingsRequest {
  bool set_affinity = false;
  cpu_set_t affinity{};
  bool lock_process = false;
  std::span<const os::AddressRange> absent;  // what has no memory then and needs none; by address, disjoint
  std::int32_t wakeup_latency = -1;  // microseconds; -1: leave as it is
  int priority = 0;                  // SCHED_FIFO 1 to 99; 0: leave policy and priority as they are
  bool inherit = false;              // children of the thread begin with its affinity and priority
};

class Settings {
 public:
  explicit Settings(os::Scheduling& os) noexcept : os_(os) {}
  Settings(const Settings&) = delete;
  Settings& operator=(const Settings&) = delete;
  // Nothing is restored here: a thread other than the section's may destroy the object.
  ~Settings() = default;

  // Applies what is asked for; true if everything asked for is in force. Priority comes late, so that the slow calls
  // before it do not run at real-time priority; what children begin with (asked for wherever affinity or priority are)
  // comes last, when it is known what they would get.
  bool apply(const SettingsRequest& request) noexcept;
  // Takes back what `apply` put in force, in reverse order. 0 or the first errno value; the rest is taken back anyway.
  // Calling it again does nothing.
  int restore() noexcept;

  bool asked(Setting setting) const noexcept { return asked_[static_cast<std::size_t>(setting)]; }
  bool in_force(Setting setting) const noexcept { return in_force_[static_cast<std::size_t>(setting)]; }
  // 0, or why the setting is not in force although asked for.
  int error(Setting setting) const noexcept { return errors_[static_cast<std::size_t>(setting)]; }

 private:
  int apply_one(Setting setting, const SettingsRequest& request) noexcept;
  int separate_children(const SettingsRequest& request) noexcept;
  int restore_one(Setting setting) noexcept;
  int restore_priority() noexcept;

  os::Scheduling& os_;
  std::array<bool, k_settings> asked_{};
  std::array<bool, k_settings> in_force_{};
  std::array<int, k_settings> errors_{};
  cpu_set_t affinity_before_{};
  os::ThreadScheduling scheduling_before_;
  std::unique_ptr<os::LockedMemory> locked_before_;
  int latency_descriptor_ = -1;
  os::ChildSettings children_before_;
  bool separated_ = false;  // children_before_ is to be put back
};

}  // namespace rtpool::realtime
