// Memory pressure as a test wants it; what it is asked for is counted.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <thread>

#include "os/helper_thread.hpp"
#include "os/memory_pressure.hpp"

namespace rtpool::test {

class FakePressure final : public os::MemoryPressure {
 public:
  std::atomic<bool> pressed{false};
  std::atomic<bool> refuses{false};  // there is no trigger
  std::atomic<bool> watched{false};
  std::atomic<int> questions{0};
  std::atomic<int> watches{0};
  std::atomic<os::Nanoseconds> slept_for{0};  // asked for, last

  // The trigger goes off, and is heard.
  void tell() noexcept {
    pressed = told_ = true;
    while (told_) {
      if (const auto* const word = word_.load()) os::wake_sleepers(*word);
      std::this_thread::yield();
    }
  }

  bool now() noexcept override {
    ++questions;
    return pressed;
  }
  int watch() noexcept override {
    ++watches;
    if (refuses) return EPERM;
    watched = true;
    return 0;
  }
  void unwatch() noexcept override { watched = false; }
  bool sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen, os::Nanoseconds most) noexcept override {
    word_ = &word;
    slept_for = most;
    if (!told_) os::sleep_while(word, seen, most);
    return told_.exchange(false) && watched;
  }
  void wake(const std::atomic<std::uint32_t>& word) noexcept override { os::wake_sleepers(word); }

 private:
  std::atomic<bool> told_{false};
  std::atomic<const std::atomic<std::uint32_t>*> word_{nullptr};
};

}  // namespace rtpool::test
