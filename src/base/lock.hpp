// Holds a lock for as long as it lives; as std::lock_guard.
#pragma once

namespace rtpool::base {

template <class Mutex>
class [[nodiscard]] Guard {
 public:
  explicit Guard(Mutex& mutex) noexcept : mutex_(mutex) { mutex_.lock(); }
  ~Guard() { mutex_.unlock(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace rtpool::base
