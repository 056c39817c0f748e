// A thread's time inside a pool, under its lock.
//
// What ends meanwhile is noted where it ends, with its time and who made it, and told to the recorder once the lock is given up:
// that may wait for locks of its own, or enter the kernel. Every function that may end blocks holds one of these.
//
// Never const: what ends is noted in it from below.
//
// Thread rule: the thread itself. Cost: beside the lock's a few stores, and a branch at the end. Failure: without memory for what
// ends the events are counted as lost.
#pragma once

#include "shared/shared_pool.hpp"
#include "trace/recorder.hpp"

namespace rtpool::shared {

class SharedPool::Section {
 public:
  explicit Section(SharedPool& pool) noexcept : pool_(pool) {
    pool.mutex_.lock();
    pool.section_ = this;
    recording_ = pool.recording_;
  }
  ~Section() {
    pool_.mutex_.unlock();
    if (RTPOOL_UNLIKELY(count_ != 0)) tell();
  }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  // The number of the recording that the pool is in, 0: of none, for as long as the lock is held.
  std::uint64_t recording() const noexcept { return recording_; }
  // How blocks end from here on: bits of a free's kind.
  void set_how(unsigned how) noexcept { how_ = how; }
  // Others have freed what ends from here on; this process is only told.
  void set_elsewhere(bool elsewhere) noexcept { elsewhere_ = elsewhere; }
  void note(const void* block, std::size_t size, bool stolen) noexcept;

 private:
  static constexpr std::size_t k_few = 8;
  void tell() noexcept;

  SharedPool& pool_;
  std::uint64_t recording_;
  bool elsewhere_ = false;
  unsigned how_ = 0;
  std::size_t count_ = 0;
  std::size_t room_ = k_few;
  trace::BlockEnd* more_ = nullptr;
  trace::BlockEnd few_[k_few];
};

}  // namespace rtpool::shared
