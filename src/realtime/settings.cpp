#include "realtime/settings.hpp"

#include <cerrno>

namespace rtpool::realtime {
namespace {

constexpr os::ThreadScheduling k_plain;

bool is_plain(const os::ThreadScheduling& scheduling) noexcept {
  return scheduling.policy == k_plain.policy && scheduling.nice == k_plain.nice;
}

}  // namespace

int Settings::apply_one(Setting setting, const SettingsRequest& request) noexcept {
  switch (setting) {
    case Setting::affinity: {
      const int error = os_.thread_affinity(&affinity_before_);
      return error != 0 ? error : os_.set_thread_affinity(request.affinity);
    }
    case Setting::lock_process:
      return os_.lock_process(request.absent, &locked_before_);
    case Setting::wakeup_latency:
      return os_.hold_wakeup_latency(request.wakeup_latency, &latency_descriptor_);
    case Setting::priority: {
      const int error = os_.thread_scheduling(&scheduling_before_);
      if (error != 0) return error;
      os::ThreadScheduling wanted = scheduling_before_;
      wanted.policy = os::Policy::fifo;
      wanted.priority = request.priority;
      // With the flag the kernel makes plain children, whoever starts them. Where it cannot be taken back, or where children
      // are not to be plain, it is left to what `separate_children` does.
      if (request.inherit) {
        wanted.reset_on_fork = wanted.reset_on_fork && !os_.may_clear_reset_on_fork();
      } else if (is_plain(scheduling_before_)) {
        wanted.reset_on_fork = wanted.reset_on_fork || os_.may_clear_reset_on_fork();
      }
      return os_.set_thread_scheduling(wanted);
    }
    case Setting::children:
      return separate_children(request);
  }
  return 0;
}

// Sections nest: what this one sets is new to its children, the rest stays as the section around it has it.
int Settings::separate_children(const SettingsRequest& request) noexcept {
  if (const int error = os_.exchange_child_settings({}, &children_before_)) return error;
  separated_ = true;
  os::ChildSettings wanted = children_before_;
  if (in_force(Setting::affinity)) {
    if (!wanted.affinity) wanted.child_affinity = affinity_before_;
    wanted.affinity = !request.inherit;
    if (const int error = os_.thread_affinity(&wanted.own_affinity)) return error;
  }
  if (in_force(Setting::priority)) {
    // A thread that resets its children has plain ones by itself.
    if (!wanted.scheduling) wanted.child_scheduling = scheduling_before_.reset_on_fork ? k_plain : scheduling_before_;
    wanted.scheduling = !request.inherit;
    if (const int error = os_.thread_scheduling(&wanted.own_scheduling)) return error;
  }
  os::ChildSettings none;
  return os_.exchange_child_settings(wanted, &none);
}

int Settings::restore_priority() noexcept {
  const int error = os_.set_thread_scheduling(scheduling_before_);
  if (error != EPERM || scheduling_before_.reset_on_fork) return error;
  // The right to take the flag back is gone meanwhile: without the priority it changes nothing.
  os::ThreadScheduling flagged = scheduling_before_;
  flagged.reset_on_fork = true;
  return os_.set_thread_scheduling(flagged);
}

int Settings::restore_one(Setting setting) noexcept {
  switch (setting) {
    case Setting::affinity:
      return os_.set_thread_affinity(affinity_before_);
    case Setting::lock_process: {
      const int error = os_.unlock_process(*locked_before_);
      locked_before_.reset();
      return error;
    }
    case Setting::wakeup_latency: {
      const int error = os_.release_wakeup_latency(latency_descriptor_);
      latency_descriptor_ = -1;
      return error;
    }
    case Setting::priority:
      return restore_priority();
    case Setting::children: {
      separated_ = false;
      os::ChildSettings ours;
      return os_.exchange_child_settings(children_before_, &ours);
    }
  }
  return 0;
}

bool Settings::apply(const SettingsRequest& request) noexcept {
  restore();
  asked_ = {request.set_affinity, request.lock_process, request.wakeup_latency >= 0, request.priority > 0,
            request.set_affinity || request.priority > 0};
  errors_ = {};
  bool complete = true;
  for (std::size_t i = 0; i < k_settings; ++i) {
    if (!asked_[i]) continue;
    errors_[i] = apply_one(static_cast<Setting>(i), request);
    in_force_[i] = errors_[i] == 0;
    complete = complete && in_force_[i];
  }
  return complete;
}

int Settings::restore() noexcept {
  int first = 0;
  for (std::size_t i = k_settings; i-- > 0;) {
    // What children begin with is in force in part also where not all of it could be had.
    const bool separated = static_cast<Setting>(i) == Setting::children && separated_;
    if (!in_force_[i] && !separated) continue;
    in_force_[i] = false;
    const int error = restore_one(static_cast<Setting>(i));
    if (first == 0) first = error;
  }
  return first;
}

}  // namespace rtpool::realtime
