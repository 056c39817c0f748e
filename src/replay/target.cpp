#include "replay/target.hpp"

#include <cstdlib>

namespace rtpool::replay {
namespace {

class LibcTarget final : public Target {
 public:
  void* allocate(std::size_t size) noexcept override { return std::malloc(size); }
  void* allocate_zeroed(std::size_t size) noexcept override { return std::calloc(size, 1); }
  void* resize(void* block, std::size_t size) noexcept override { return std::realloc(block, size); }
  void release(void* block) noexcept override { std::free(block); }
};

class NullTarget final : public Target {
 public:
  void* allocate(std::size_t) noexcept override { return this; }
  void* allocate_zeroed(std::size_t) noexcept override { return this; }
  void* resize(void*, std::size_t) noexcept override { return this; }
  void release(void*) noexcept override {}
  bool is_memory() const noexcept override { return false; }
};

}  // namespace

Target& libc_target() noexcept {
  static LibcTarget target;
  return target;
}

Target& null_target() noexcept {
  static NullTarget target;
  return target;
}

}  // namespace rtpool::replay
