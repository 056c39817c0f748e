#include "realtime/settings.hpp"

namespace rtpool::realtime {

int Settings::apply_one(Setting setting, const SettingsRequest& request) noexcept {
  switch (setting) {
    case Setting::affinity: {
      const int error = os_.thread_affinity(&affinity_before_);
      return error != 0 ? error : os_.set_thread_affinity(request.affinity);
    }
    case Setting::lock_process:
      return os_.lock_process(&locked_before_);
    case Setting::wakeup_latency:
      return os_.hold_wakeup_latency(request.wakeup_latency, &latency_descriptor_);
    case Setting::timer_slack: {
      const int error = os_.timer_slack(&slack_before_);
      return error != 0 ? error : os_.set_timer_slack(1);
    }
    case Setting::priority: {
      const int error = os_.thread_scheduling(&scheduling_before_);
      if (error != 0) return error;
      os::ThreadScheduling wanted = scheduling_before_;
      wanted.policy = os::Policy::fifo;
      wanted.priority = request.priority;
      return os_.set_thread_scheduling(wanted);
    }
  }
  return 0;
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
    case Setting::timer_slack:
      return os_.set_timer_slack(slack_before_);
    case Setting::priority:
      return os_.set_thread_scheduling(scheduling_before_);
  }
  return 0;
}

bool Settings::apply(const SettingsRequest& request) noexcept {
  restore();
  asked_ = {request.set_affinity, request.lock_process, request.wakeup_latency >= 0, request.precise_timer,
            request.priority > 0};
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
    if (!in_force_[i]) continue;
    in_force_[i] = false;
    const int error = restore_one(static_cast<Setting>(i));
    if (first == 0) first = error;
  }
  return first;
}

}  // namespace rtpool::realtime
