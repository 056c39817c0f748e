// A thread of rtpool's own beside the program's: no signal comes to it.
//
// Thread rule: start and join by the same owner. Cost: kernel calls. Failure: an errno value. After a fork the child has no
// such thread: it calls `forget`.
#pragma once

#include <cstdint>

namespace rtpool::os {

class HelperThread {
 public:
  // `name` is what ps and top show, at most 15 bytes. The thread runs `function(argument)` and ends.
  int start(const char* name, void (*function)(void*), void* argument) noexcept;
  void join() noexcept;
  void forget() noexcept { running_ = false; }

 private:
  std::uint64_t thread_ = 0;
  bool running_ = false;
};

}  // namespace rtpool::os
