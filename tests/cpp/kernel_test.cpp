// Every kernel that was built copies exactly the bytes of its rows, at every length and alignment.
#include "copy/kernel.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "copy/kernel_loop.hpp"

namespace rtpool::copy {
namespace {

constexpr std::size_t k_guard = 192;
constexpr std::byte k_kernel_guard{0xA5};

class KernelTest : public testing::TestWithParam<const Kernel*> {
 protected:
  void SetUp() override {
    if (!GetParam()->supported()) GTEST_SKIP() << "this processor cannot run the " << GetParam()->name << " kernel";
    for (std::size_t i = 0; i < source_.size(); ++i) source_[i] = static_cast<std::byte>(random_() & 0xFF);
  }

  // One row of `bytes` from and to the given offsets past a line.
  void check_row(CopyRows copy_rows, std::size_t bytes, std::size_t dst_offset, std::size_t src_offset) {
    std::vector<std::byte> memory(bytes + 2 * k_guard + 2 * k_line_bytes, k_kernel_guard);
    const auto base = reinterpret_cast<std::uintptr_t>(memory.data());
    const std::size_t to_line = (k_line_bytes - base % k_line_bytes) % k_line_bytes;
    const std::size_t start = to_line + k_guard + dst_offset;
    copy_rows(Rows{memory.data() + start, source_.data() + src_offset, bytes, 1, 0, 0});
    GetParam()->fence();
    ASSERT_EQ(0, std::memcmp(memory.data() + start, source_.data() + src_offset, bytes));
    for (std::size_t i = 0; i < memory.size(); ++i) {
      if (i >= start && i < start + bytes) continue;
      ASSERT_EQ(memory[i], k_kernel_guard) << "byte " << i << " of a row at " << start << " of " << bytes;
    }
  }

  std::mt19937_64 random_{20240607};
  std::vector<std::byte> source_ = std::vector<std::byte>(1 << 16);
};

TEST_P(KernelTest, EveryLengthUpToTwelveLines) {
  for (const CopyRows copy_rows : {GetParam()->cached, GetParam()->stream}) {
    for (std::size_t bytes = 0; bytes <= 12 * k_line_bytes; ++bytes) {
      check_row(copy_rows, bytes, random_() % k_line_bytes, random_() % k_line_bytes);
      check_row(copy_rows, bytes, 0, random_() % k_line_bytes);
    }
  }
}

TEST_P(KernelTest, EveryAlignmentOfTheDestination) {
  for (const CopyRows copy_rows : {GetParam()->cached, GetParam()->stream}) {
    for (std::size_t offset = 0; offset < k_line_bytes; ++offset) {
      for (const std::size_t bytes :
           {std::size_t{63}, std::size_t{257}, std::size_t{320}, std::size_t{1024}, std::size_t{4095}}) {
        check_row(copy_rows, bytes, offset, random_() % k_line_bytes);
      }
    }
  }
}

TEST_P(KernelTest, RandomLengths) {
  for (const CopyRows copy_rows : {GetParam()->cached, GetParam()->stream}) {
    for (int i = 0; i < 300; ++i) {
      check_row(copy_rows, random_() % 40000, random_() % k_line_bytes, random_() % k_line_bytes);
    }
  }
}

TEST_P(KernelTest, StepsMayBeNegativeOrZero) {
  for (const CopyRows copy_rows : {GetParam()->cached, GetParam()->stream}) {
    constexpr std::size_t k_bytes = 300;
    constexpr std::size_t k_count = 7;
    constexpr std::size_t k_pitch = 333;
    std::vector<std::byte> memory(k_count * k_pitch, k_kernel_guard);
    // Destination downwards, source standing still.
    copy_rows(Rows{memory.data() + (k_count - 1) * k_pitch, source_.data(), k_bytes, k_count,
                   -static_cast<std::ptrdiff_t>(k_pitch), 0});
    GetParam()->fence();
    for (std::size_t i = 0; i < k_count; ++i) {
      ASSERT_EQ(0, std::memcmp(memory.data() + i * k_pitch, source_.data(), k_bytes));
      for (std::size_t k = k_bytes; k < k_pitch; ++k) ASSERT_EQ(memory[i * k_pitch + k], k_kernel_guard);
    }
    // Source downwards.
    copy_rows(Rows{memory.data(), source_.data() + 3000, k_bytes, k_count, static_cast<std::ptrdiff_t>(k_pitch), -101});
    GetParam()->fence();
    for (std::size_t i = 0; i < k_count; ++i) {
      ASSERT_EQ(0, std::memcmp(memory.data() + i * k_pitch, source_.data() + 3000 - 101 * i, k_bytes));
    }
  }
}

TEST_P(KernelTest, NoRowsIsNothing) {
  GetParam()->cached(Rows{nullptr, nullptr, 64, 0, 64, 64});
  GetParam()->stream(Rows{nullptr, nullptr, 1024, 0, 1024, 1024});
}

// The loops for vectors of a whole line, on machines that have no such vectors: the same template over plain memory.
struct PlainLine {
  struct Value {
    std::byte bytes[k_line_bytes];
  };
  static constexpr std::size_t k_bytes = k_line_bytes;
  static Value load(const std::byte* at) noexcept {
    Value value;
    std::memcpy(value.bytes, at, k_bytes);
    return value;
  }
  static void store(std::byte* at, Value value) noexcept { std::memcpy(at, value.bytes, k_bytes); }
  static void stream(std::byte* at, Value value) noexcept {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at) % k_bytes, 0U);
    store(at, value);
  }
};
constexpr Kernel k_plain_line_kernel = {
    "plain_line",    true, []() noexcept { return true; }, copy_rows_cached<PlainLine>, copy_rows_streaming<PlainLine>,
    []() noexcept {}};

std::vector<const Kernel*> tested_kernels() {
  std::vector<const Kernel*> tested(kernels().begin(), kernels().end());
  tested.push_back(&k_plain_line_kernel);
  return tested;
}

INSTANTIATE_TEST_SUITE_P(All, KernelTest, testing::ValuesIn(tested_kernels()),
                         [](const testing::TestParamInfo<const Kernel*>& kernel) {
                           return std::string(kernel.param->name);
                         });

TEST(Dispatch, ChoosesTheFirstSupportedKernelThatIsChosenByItself) {
  const Kernel* first = nullptr;
  for (const Kernel* kernel : kernels()) {
    if (first == nullptr && kernel->automatic && kernel->supported()) first = kernel;
  }
  EXPECT_EQ(&choose_kernel(nullptr), first);
  EXPECT_EQ(&active_kernel(), first);
}

TEST(Dispatch, TakesTheOneThatIsNamedIfItCan) {
  for (const Kernel* kernel : kernels()) {
    testing::internal::CaptureStderr();
    const Kernel& chosen = choose_kernel(kernel->name);
    const std::string told = testing::internal::GetCapturedStderr();
    if (kernel->supported()) {
      EXPECT_EQ(&chosen, kernel);
      EXPECT_EQ(told, "");
    } else {
      EXPECT_EQ(&chosen, &choose_kernel(nullptr));
      EXPECT_NE(told.find("cannot run it"), std::string::npos) << told;
    }
  }
  testing::internal::CaptureStderr();
  EXPECT_EQ(&choose_kernel("abacus"), &choose_kernel(nullptr));
  EXPECT_NE(testing::internal::GetCapturedStderr().find("RTPOOL_COPY_KERNEL=abacus: no kernel of that name"), std::string::npos);
}

TEST(Dispatch, EndsWithThePortableKernelThatRunsAnywhere) {
  const Kernel* last = kernels().begin()[kernels().count - 1];
  EXPECT_STREQ(last->name, "portable");
  EXPECT_TRUE(last->supported());
  EXPECT_FALSE(last->streams);
}

TEST(Dispatch, CanBeForcedAndReleased) {
  const Kernel* const before = &active_kernel();
  for (const Kernel* kernel : kernels()) {
    EXPECT_EQ(force_kernel(kernel), kernel->supported());
    if (kernel->supported()) {
      EXPECT_EQ(&active_kernel(), kernel);
    }
  }
  EXPECT_TRUE(force_kernel(nullptr));
  EXPECT_EQ(&active_kernel(), before);
}

TEST(Dispatch, FindsKernelsByName) {
  for (const Kernel* kernel : kernels()) EXPECT_EQ(find_kernel(kernel->name), kernel);
  EXPECT_EQ(find_kernel("abacus"), nullptr);
}

}  // namespace
}  // namespace rtpool::copy
