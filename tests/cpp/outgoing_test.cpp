// Small blocks that a thread frees and whose owners it has yet to tell: not alive at once, and never lost.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "base/sanitizers.hpp"
#include "pool_fixture.hpp"
#include "pool/pool_impl.hpp"

namespace rtpool::pool {
namespace {

// A thread that does what it is told, one thing after the other, and lives on in between.
class Worker {
 public:
  ~Worker() { end(); }
  void end() {
    if (thread_.joinable()) {
      run(nullptr);
      thread_.join();
    }
  }
  void run(std::function<void()> task) {
    std::unique_lock lock(mutex_);
    task_ = std::move(task);
    asked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !asked_; });
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (bool more = true; more;) {
      changed_.wait(lock, [this] { return asked_; });
      more = task_ != nullptr;
      if (more) task_();
      asked_ = false;
      changed_.notify_all();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> task_;
  bool asked_ = false;
  std::thread thread_{[this] { work(); }};
};

class OutgoingTest : public PoolTest {
 protected:
  static constexpr std::size_t k_size = 3000;  // a slab of this class has 21
  void SetUp() override {
    Options options;
    options.limit = 64 * k_mib;
    options.prefault = false;
    options.when_full = WhenFull::raise;
    pool_ = &make(options);
    for (int i = 0; i < 5; ++i) blocks_.push_back(pool_->allocate(k_size));
    worker_.run([this] { pool_->release(pool_->allocate(k_size)); });  // a heap
  }
  void release_there(std::size_t from, std::size_t to) {
    worker_.run([=, this] {
      for (std::size_t i = from; i != to; ++i) pool_->release(blocks_[i]);
    });
  }
  std::uint64_t outgoing() {
    std::uint64_t heaps = 0;
    impl(*pool_).for_each_heap([&](const blocks::Heap& heap) { heaps += heap.has_outgoing() ? 1 : 0; });
    return heaps;
  }
  // Of what was freed there, how much comes again here, before the pool takes new memory for that class.
  std::size_t come_again() {
    std::set<void*> freed(blocks_.begin(), blocks_.end());
    std::vector<void*> again;
    std::size_t found = 0;
    for (const std::uint64_t misses = pool_->stats().misses; pool_->stats().misses == misses;) {
      again.push_back(pool_->allocate(k_size));
      found += freed.count(again.back());
    }
    for (void* const block : again) pool_->release(block);
    return found;
  }

  Pool* pool_ = nullptr;
  std::vector<void*> blocks_;
  Worker worker_;
};

TEST_F(OutgoingTest, BlocksCountAsFreedAtOnce) {
  release_there(0, 5);
  EXPECT_EQ(outgoing(), 1U);
  const Stats stats = pool_->stats();
  EXPECT_EQ(stats.current_count, 0U);
  EXPECT_EQ(stats.current_bytes, 0U);
  EXPECT_EQ(stats.requested_bytes, 0U);
  EXPECT_EQ(stats.remote_frees, 5U);
  EXPECT_EQ(pool_->live_blocks(), 0U);
  EXPECT_EQ(pool_->usable_size(blocks_[0]), 0U);
  expect_ok(*pool_);
}

// Whoever frees it again, before its owner has it back: the thread itself, the owner, a third one with a heap and one without.
TEST_F(OutgoingTest, ASecondFreeIsSeenAtOnce) {
  Worker third;
  third.run([this] { pool_->release(pool_->allocate(k_size)); });
  release_there(0, 5);
  release_there(0, 1);
  EXPECT_EQ(pool_->stats().misuses, 1U);
  pool_->release(blocks_[1]);
  EXPECT_EQ(pool_->stats().misuses, 2U);
  third.run([this] { pool_->release(blocks_[2]); });
  EXPECT_EQ(pool_->stats().misuses, 3U);
  std::thread([this] { pool_->release(blocks_[3]); }).join();
  EXPECT_EQ(pool_->stats().misuses, 4U);
  EXPECT_EQ(pool_->resize(blocks_[4], k_size), nullptr);
  EXPECT_EQ(pool_->stats().misuses, 5U);
  EXPECT_EQ(outgoing(), 1U);
  worker_.end();
  EXPECT_EQ(outgoing(), 0U);
  EXPECT_EQ(come_again(), 5U);
  EXPECT_EQ(pool_->live_blocks(), 0U);
}

TEST_F(OutgoingTest, EightGoTogether) {
  while (blocks_.size() != blocks::k_outgoing_most) blocks_.push_back(pool_->allocate(k_size));
  release_there(0, blocks::k_outgoing_most - 1);
  EXPECT_EQ(outgoing(), 1U);
  release_there(blocks::k_outgoing_most - 1, blocks::k_outgoing_most);
  EXPECT_EQ(outgoing(), 0U);
  EXPECT_EQ(come_again(), blocks_.size());
}

TEST_F(OutgoingTest, AThreadsEndSendsThem) {
  release_there(0, 5);
  worker_.end();
  EXPECT_EQ(outgoing(), 0U);
  EXPECT_EQ(come_again(), 5U);
}

TEST_F(OutgoingTest, AThreadsMissSendsThem) {
  release_there(0, 5);
  worker_.run([this] { pool_->release(pool_->allocate(300)); });
  EXPECT_EQ(outgoing(), 0U);
  EXPECT_EQ(come_again(), 5U);
}

TEST_F(OutgoingTest, FreezingSendsThemAndWhatIsFreedThenGoesAtOnce) {
  release_there(0, 3);
  pool_->freeze(OnMiss::raise);
  EXPECT_EQ(outgoing(), 0U);
  release_there(3, 4);
  EXPECT_EQ(outgoing(), 0U);
  pool_->unfreeze();
  release_there(4, 5);
  EXPECT_EQ(outgoing(), 1U);
}

TEST_F(OutgoingTest, TrimmingHasTheirMemory) {
  release_there(0, 5);
  pool_->trim();
  EXPECT_EQ(outgoing(), 0U);
  EXPECT_EQ(pool_->stats().capacity_bytes, 0U);
}

TEST_F(OutgoingTest, ALookForIdleMemoryHasThem) {
  release_there(0, 5);
  pool_->trim(os::Nanoseconds{1});
  EXPECT_EQ(outgoing(), 0U);
  EXPECT_EQ(come_again(), 5U);
}

TEST_F(OutgoingTest, ARequestIsNotRefusedForThem) {
  release_there(0, 5);
  std::vector<void*> held;
  for (std::size_t size = 32 * k_mib; size >= 2 * k_mib; size /= 2) {
    while (size + 2 * k_mib <= 64 * k_mib - pool_->stats().current_bytes) held.push_back(pool_->allocate(size));
  }
  EXPECT_EQ(outgoing(), 1U);
  // What is left, to the last page.
  std::size_t bytes = pool_->stats().current_bytes;
  while (void* const block = pool_->allocate(os::k_page_size)) {
    held.push_back(block);
    bytes += os::k_page_size;
  }
  EXPECT_EQ(outgoing(), 0U);
  EXPECT_EQ(bytes, 64 * k_mib) << "the slab that the blocks were in, too";
  for (void* const block : held) pool_->release(block);
}

TEST_F(OutgoingTest, APoolMayEndWithSome) {
  release_there(0, 5);
  Options options;
  options.prefault = false;
  Pool* const other = Pool::create(options, memory_).pool;
  void* const block = other->allocate(k_size);
  worker_.run([=] {
    other->release(other->allocate(k_size));
    other->release(block);
  });
  other->drop_reference();
  worker_.end();
  EXPECT_EQ(come_again(), 5U);
}

#ifndef RTPOOL_THREAD_SANITIZER
TEST_F(OutgoingTest, AForksChildHasThem) {
  release_there(0, 5);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(outgoing() == 0 && come_again() == 5 && pool_->live_blocks() == 0 && pool_->check().ok ? 0 : 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(outgoing(), 1U);
}
#endif

TEST_F(OutgoingTest, DebugPoolsTellAtOnce) {
  release_there(0, 5);
  Options options;
  options.prefault = false;
  options.debug = true;
  Pool& pool = make(options);
  void* const block = pool.allocate(k_size);
  worker_.run([&] {
    pool.release(pool.allocate(k_size));
    pool.release(block);
  });
  impl(pool).for_each_heap([](const blocks::Heap& heap) { EXPECT_FALSE(heap.has_outgoing()); });
  EXPECT_EQ(pool.live_blocks(), 0U);
}

}  // namespace
}  // namespace rtpool::pool
