// Promises of os/thread_stack.hpp: pages below are resident, on any thread, and a small stack is not overrun.
#include "os/thread_stack.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>

#include "base/sanitizers.hpp"

namespace rtpool::os {
namespace {

// Uses 200 KiB of stack.
__attribute__((noinline)) int go_deep() {
  volatile char room[200 << 10];
  for (std::size_t at = 0; at < sizeof room; at += 1024) room[at] = 1;
  return room[5 * 1024];
}

long faults() {
  rusage usage;
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

struct Outcome {
  std::size_t stack = 0;  // libc may make it larger than was asked for
  std::size_t touched = 0;
  long faults = 0;
};

void* run(void* out) {
  auto* const outcome = static_cast<Outcome*>(out);
  std::uintptr_t lowest = 0;
  std::uintptr_t end = 0;
  if (own_stack(&lowest, &end)) outcome->stack = end - lowest;
  outcome->touched = touch_stack(512 << 10);
  const long before = faults();
  if (outcome->touched >= (300 << 10)) go_deep();
  outcome->faults = faults() - before;
  return nullptr;
}

Outcome on_a_stack_of(std::size_t bytes) {
  Outcome outcome;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, bytes);
  pthread_t thread;
  EXPECT_EQ(::pthread_create(&thread, &attributes, run, &outcome), 0);
  ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&attributes);
  return outcome;
}

TEST(ThreadStack, CallsThatGoDeepDoNotFault) {
#ifdef RTPOOL_SANITIZED
  GTEST_SKIP() << "the sanitizer's shadow memory faults as well";
#endif
  const Outcome outcome = on_a_stack_of(4 << 20);
  EXPECT_EQ(outcome.touched, 512U << 10);
  EXPECT_EQ(outcome.faults, 0);
}

TEST(ThreadStack, ASmallStackIsNotOverrun) {
  const Outcome outcome = on_a_stack_of(256 << 10);
  EXPECT_GT(outcome.touched, 0U);
#ifndef RTPOOL_THREAD_SANITIZER  // whose runtime makes stacks as large as its own thread-local memory needs
  EXPECT_LE(outcome.stack, 272U << 10);
#endif
  EXPECT_LE(outcome.touched, outcome.stack / 4 * 3);
}

TEST(ThreadStack, TheMainThreadsStackGrows) {
  EXPECT_EQ(touch_stack(512 << 10), 512U << 10);
  std::uintptr_t lowest = 0;
  std::uintptr_t end = 0;
  ASSERT_TRUE(own_stack(&lowest, &end));
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  EXPECT_GT(here, lowest);
  EXPECT_LT(here, end);
}

}  // namespace
}  // namespace rtpool::os
