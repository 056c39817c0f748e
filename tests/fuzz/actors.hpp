// A thread that does what it is told, one thing at a time: the caller waits for each. So an input decides in which order
// threads act, and a finding can be played back.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace rtpool::fuzz {

class Actor {
 public:
  Actor() : thread_([this] { serve(); }) {}
  ~Actor() {
    {
      const std::scoped_lock guard(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;

  void act(const std::function<void()>& task) {
    std::unique_lock guard(mutex_);
    task_ = &task;
    changed_.notify_all();
    changed_.wait(guard, [this] { return task_ == nullptr; });
  }

 private:
  void serve() {
    std::unique_lock guard(mutex_);
    for (;;) {
      changed_.wait(guard, [this] { return stop_ || task_ != nullptr; });
      if (task_ == nullptr) return;
      (*task_)();
      task_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* task_ = nullptr;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace rtpool::fuzz
