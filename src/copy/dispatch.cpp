#include <atomic>
#include <cstdlib>
#include <cstring>

#include "base/check.hpp"
#include "copy/kernel_set.hpp"
#include "os/cpu.hpp"

namespace rtpool::copy {
namespace {

constexpr const Kernel* k_kernels[] = {
#ifdef RTPOOL_COPY_X86
    &k_avx512_kernel,
    &k_avx2_kernel,
    &k_sse2_kernel,
#endif
#ifdef RTPOOL_COPY_NEON
    &k_neon_kernel,
#endif
    &k_portable_kernel,
};

// Constant initialised, so that it is valid before any constructor has run. Relaxed: a kernel is immutable data, and
// two threads that choose at the same time choose the same one.
constinit std::atomic<const Kernel*> chosen{nullptr};

}  // namespace

#ifdef RTPOOL_COPY_X86
bool has_sse2() noexcept { return os::cpu_features().sse2; }
bool has_avx2() noexcept { return os::cpu_features().avx2; }
bool has_avx512() noexcept { return os::cpu_features().avx512f; }
#endif

const Kernel& choose_kernel(const char* name) noexcept {
  if (name != nullptr) {
    const Kernel* const named = find_kernel(name);
    if (named != nullptr && named->supported()) return *named;
    base::report_line("RTPOOL_COPY_KERNEL=%s: %s; copies choose for themselves", name,
                      named == nullptr ? "no kernel of that name was built" : "this processor cannot run it");
  }
  for (const Kernel* kernel : k_kernels) {
    if (kernel->automatic && kernel->supported()) return *kernel;
  }
  return k_portable_kernel;
}

KernelList kernels() noexcept { return {k_kernels, sizeof k_kernels / sizeof k_kernels[0]}; }

const Kernel& active_kernel() noexcept {
  const Kernel* kernel = chosen.load(std::memory_order_relaxed);
  if (kernel == nullptr) {
    kernel = &choose_kernel(std::getenv("RTPOOL_COPY_KERNEL"));
    chosen.store(kernel, std::memory_order_relaxed);
  }
  return *kernel;
}

bool force_kernel(const Kernel* kernel) noexcept {
  if (kernel != nullptr && !kernel->supported()) return false;
  chosen.store(kernel, std::memory_order_relaxed);
  return true;
}

const Kernel* find_kernel(const char* name) noexcept {
  for (const Kernel* kernel : k_kernels) {
    if (std::strcmp(kernel->name, name) == 0) return kernel;
  }
  return nullptr;
}

}  // namespace rtpool::copy
