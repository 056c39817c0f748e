// Who serves a replay: a pool, libc's malloc (or what stands in its place), or nobody, to see what the replay itself costs.
//
// Thread rule: any thread. Cost and failure: those of the allocator behind it; nullptr where it has no memory.
#pragma once

#include <cstddef>

#include "pool/pool.hpp"

namespace rtpool::replay {

class Target {
 public:
  Target() = default;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  virtual ~Target() = default;

  virtual void* allocate(std::size_t size) noexcept = 0;
  virtual void* allocate_zeroed(std::size_t size) noexcept = 0;
  virtual void* resize(void* block, std::size_t size) noexcept = 0;  // as realloc
  virtual void release(void* block) noexcept = 0;
  // Whether blocks are memory that may be written.
  virtual bool is_memory() const noexcept { return true; }
};

class PoolTarget final : public Target {
 public:
  explicit PoolTarget(pool::Pool& pool) noexcept : pool_(pool) { pool_.add_reference(); }
  ~PoolTarget() override { pool_.drop_reference(); }
  void* allocate(std::size_t size) noexcept override { return pool_.allocate(size); }
  void* allocate_zeroed(std::size_t size) noexcept override { return pool_.allocate_zeroed(size); }
  void* resize(void* block, std::size_t size) noexcept override { return pool_.resize(block, size); }
  void release(void* block) noexcept override { pool_.release(block); }

 private:
  pool::Pool& pool_;
};

// Calls malloc and its kin by their names, so that a library in LD_PRELOAD serves.
Target& libc_target() noexcept;
// Answers with addresses that are no memory.
Target& null_target() noexcept;

}  // namespace rtpool::replay
