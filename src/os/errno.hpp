// What every function of this layer does with errno. Thread rule: any thread. Cost: none.
#pragma once

#include <cerrno>

namespace rtpool::os {

// Keeps the caller's errno: allocation must not change it behind NumPy's back.
class KeepErrno {
 public:
  KeepErrno() noexcept : saved_(errno) {}
  ~KeepErrno() { errno = saved_; }
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  int saved_;
};

// What a call into the kernel came to: 0 or the error.
inline int result(long rc) noexcept { return rc == 0 ? 0 : errno; }

}  // namespace rtpool::os
