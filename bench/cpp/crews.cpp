#include "crews.hpp"

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

namespace rtpool::bench {
namespace {

// Where threads wait for each other, so that what is timed begins at once.
class Gate {
 public:
  explicit Gate(unsigned threads) : threads_(threads) {}
  void arrive_and_wait() noexcept {
    arrived_.fetch_add(1);
    while (arrived_.load() < threads_) {
      relax();
    }
  }

 private:
  const unsigned threads_;
  std::atomic<unsigned> arrived_{0};
};

// Joins them; nanoseconds an operation from the first one's begin to the last one's end.
double wall_time(std::vector<std::thread>& running, const std::vector<std::uint64_t>& began, const std::vector<std::uint64_t>& ended,
                 std::size_t operations) {
  for (std::thread& thread : running) {
    thread.join();
  }
  const std::uint64_t took = *std::max_element(ended.begin(), ended.end()) - *std::min_element(began.begin(), began.end());
  return static_cast<double>(took) / static_cast<double>(operations);
}

}  // namespace

double time_threads(const Allocator& a, unsigned threads, Sizes sizes, std::size_t pairs) {
  Gate gate(threads);
  std::vector<std::uint64_t> began(threads);
  std::vector<std::uint64_t> ended(threads);
  std::vector<std::thread> running;
  for (unsigned t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      pin_to(t);
      Random random(t + 1);
      constexpr std::size_t k_alive = 16;
      void* alive[k_alive] = {};
      const auto work = [&](std::size_t n) {
        if (sizes.low == sizes.high) {
          for (std::size_t i = 0; i < n; ++i) {
            void* const block = a.allocate(std::size_t{1} << sizes.low);
            escape(block);
            a.release(block);
          }
          return;
        }
        for (std::size_t i = 0; i < n; ++i) {
          void*& slot = alive[random.next() >> 60];
          a.release(slot);
          slot = a.allocate(sizes.draw(random));
          escape(slot);
        }
      };
      work(pairs / 8);
      gate.arrive_and_wait();
      began[t] = now_ns();
      work(pairs);
      ended[t] = now_ns();
      for (void* block : alive) {
        a.release(block);
      }
    });
  }
  return wall_time(running, began, ended, pairs);
}

double time_handoff(const Allocator& a, unsigned crews, Sizes sizes, std::size_t blocks) {
  Gate gate(crews);
  std::vector<std::uint64_t> began(crews);
  std::vector<std::uint64_t> ended(crews);
  std::vector<std::unique_ptr<Ring>> rings;
  std::vector<std::thread> running;
  const std::size_t all = blocks + blocks / 8;
  for (unsigned crew = 0; crew < crews; ++crew) {
    rings.push_back(std::make_unique<Ring>());
    Ring& ring = *rings.back();
    running.emplace_back([&, crew] {
      pin_to(2 * crew + 1);
      for (std::size_t i = 0; i < all; ++i) {
        a.release(ring.pop());
      }
      ended[crew] = now_ns();
    });
    running.emplace_back([&, crew] {
      pin_to(2 * crew);
      Random random(crew + 3);
      std::vector<void*> first(Ring::k_slots + 64);
      for (void*& block : first) {
        block = a.allocate(sizes.draw(random));
      }
      for (void* const block : first) {
        a.release(block);
      }
      for (std::size_t i = 0; i < all; ++i) {
        if (i == blocks / 8) {
          gate.arrive_and_wait();
          began[crew] = now_ns();
        }
        ring.push(a.allocate(sizes.draw(random)));
      }
    });
  }
  return wall_time(running, began, ended, blocks);
}

}  // namespace rtpool::bench
