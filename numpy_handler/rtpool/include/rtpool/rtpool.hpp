// The pools behind NumPy, for C++17: rtpool.h says what holds for all of it; here are owners for what it gives.
//
//     rtpool::pool               a reference to a pool, counted
//     rtpool::block              one block and who gives it back; becomes the base of an array
//     rtpool::memory_resource    std::pmr::memory_resource over a pool
//     rtpool::allocator<T>       the same as an allocator: std::vector<float, rtpool::allocator<float>>
//
// An empty `pool` stands for new and delete (`block`: malloc and free), as everything does as long as no table was found. Whoever
// was made with one pool stays with it, so each block goes back to where it came from. What cannot be had is std::bad_alloc.
// Thread rule, cost and lifetime are those of rtpool.h. Nothing here needs Python but `block::to_capsule` and `pool::from_object`.
#ifndef RTPOOL_RTPOOL_HPP
#define RTPOOL_RTPOOL_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory_resource>
#include <new>
#include <type_traits>
#include <utility>

#include "rtpool.h"

namespace rtpool {
inline namespace v1 {

// A reference to a pool, or none. Copies count one more.
class pool {
 public:
  constexpr pool() noexcept = default;
  // Takes over a reference, as the functions of rtpool.h give them.
  static pool adopt(rtpool_pool* reference) noexcept {
    pool made;
    made.handle_ = reference;
    return made;
  }
  // One reference more.
  static pool share(rtpool_pool* handle) noexcept { return adopt(rtpool_retain_pool(handle)); }
#ifdef RTPOOL_RTPOOL_H_PYTHON
  // The pool of a Python object: rtpool.Pool, rtpool.SharedPool, None for the default pool. False with an exception of Python's set.
  static bool from_object(PyObject* object, pool* out) noexcept {
    rtpool_pool* handle = nullptr;
    if (rtpool_pool_from_object(object, &handle) < 0) return false;
    *out = adopt(handle);
    return true;
  }
#endif

  pool(const pool& other) noexcept : handle_(rtpool_retain_pool(other.handle_)) {}
  pool(pool&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  pool& operator=(pool other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~pool() { rtpool_release_pool(handle_); }

  explicit operator bool() const noexcept { return handle_ != nullptr; }
  rtpool_pool* get() const noexcept { return handle_; }  // no reference
  friend bool operator==(const pool& left, const pool& right) noexcept { return left.handle_ == right.handle_; }
  friend bool operator!=(const pool& left, const pool& right) noexcept { return left.handle_ != right.handle_; }

  const char* name() const noexcept { return rtpool_pool_name(handle_); }
  rtpool_stats stats() const noexcept {
    rtpool_stats counters;
    rtpool_get_stats(handle_, &counters);
    return counters;
  }
  std::size_t trim(std::uint64_t unused_for = 0) const noexcept { return rtpool_trim(handle_, unused_for); }

 private:
  rtpool_pool* handle_ = nullptr;
};

// As the functions of the same name in rtpool.h; empty where there is none.
inline pool default_pool() noexcept { return pool::adopt(rtpool_default_pool()); }
inline pool active_pool() noexcept { return pool::adopt(rtpool_active_pool()); }
inline pool current_pool() noexcept { return pool::adopt(rtpool_current_pool()); }
// Whose live block the address is in.
inline pool owner(const void* address) noexcept { return pool::share(rtpool_owner(address)); }

namespace detail {

[[noreturn]] inline void refuse() {
#if defined(__cpp_exceptions)
  throw std::bad_alloc();
#else
  std::abort();
#endif
}

constexpr std::size_t largest_alignment = 4096;  // what a pool has

// Alignments beyond that are left to new and delete, which the alignment tells again at the end.
inline void* allocate(rtpool_pool* from, std::size_t bytes, std::size_t alignment) {
  if (from == nullptr || alignment > largest_alignment) return ::operator new(bytes, std::align_val_t(alignment));
  void* const block = alignment <= alignof(std::max_align_t) ? rtpool_allocate(from, bytes)
                                                             : rtpool_allocate_aligned(from, bytes, alignment);
  if (block == nullptr) refuse();
  return block;
}

inline void deallocate(rtpool_pool* from, void* block, std::size_t bytes, std::size_t alignment) noexcept {
  if (from == nullptr || alignment > largest_alignment) return ::operator delete(block, std::align_val_t(alignment));
  rtpool_release(from, block, bytes);
}

}  // namespace detail

// One block, given back at the end of its owner's life, in whichever thread that is. Moves, does not copy.
class block {
 public:
  block() noexcept = default;
  // Throws std::bad_alloc.
  block(pool from, std::size_t bytes) : pool_(std::move(from)), data_(rtpool_allocate(pool_.get(), bytes)), size_(bytes) {
    if (data_ == nullptr) detail::refuse();
  }
  block(block&& other) noexcept
      : pool_(std::move(other.pool_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  block& operator=(block&& other) noexcept {
    if (this != &other) {
      reset();
      pool_ = std::move(other.pool_);
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~block() { reset(); }

  explicit operator bool() const noexcept { return data_ != nullptr; }
  void* data() const noexcept { return data_; }
  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data_);
  }
  std::size_t size() const noexcept { return size_; }  // as asked for
  const pool& from() const noexcept { return pool_; }

  void reset() noexcept {
    if (data_ != nullptr) rtpool_release(pool_.get(), data_, size_);
    data_ = nullptr;
    size_ = 0;
  }
  // The caller gives it back from now on, to `from()`.
  void* release() noexcept {
    size_ = 0;
    return std::exchange(data_, nullptr);
  }
#ifdef RTPOOL_RTPOOL_H_PYTHON
  // The owner to be of an array over this block, which is no longer this object's: a new reference. nullptr with an exception of
  // Python's set, and nothing has changed. Needs the GIL.
  PyObject* to_capsule() noexcept {
    PyObject* const capsule = rtpool_block_capsule(pool_.get(), data_);
    if (capsule != nullptr) (void)release();
    return capsule;
  }
#endif

 private:
  pool pool_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// For std::pmr containers. Equal resources are those over one pool.
class memory_resource final : public std::pmr::memory_resource {
 public:
  memory_resource() noexcept : pool_(default_pool()) {}
  explicit memory_resource(pool from) noexcept : pool_(std::move(from)) {}
  const pool& from() const noexcept { return pool_; }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override { return detail::allocate(pool_.get(), bytes, alignment); }
  void do_deallocate(void* data, std::size_t bytes, std::size_t alignment) override {
    detail::deallocate(pool_.get(), data, bytes, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    if (this == &other) return true;
#if defined(__cpp_rtti)
    const auto* const same = dynamic_cast<const memory_resource*>(&other);
    return same != nullptr && same->pool_ == pool_;
#else
    return false;
#endif
  }

  pool pool_;
};

// For containers of the standard library and others that take an allocator. It goes with its container: copies, moves and swaps
// take the pool along.
template <class T>
class allocator {
 public:
  using value_type = T;
  using propagate_on_container_copy_assignment = std::true_type;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;
  using is_always_equal = std::false_type;

  allocator() noexcept : pool_(default_pool()) {}
  allocator(pool from) noexcept : pool_(std::move(from)) {}  // NOLINT: a pool is all there is to an allocator
  template <class Other>
  allocator(const allocator<Other>& other) noexcept : pool_(other.from()) {}

  T* allocate(std::size_t count) {
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) detail::refuse();
    return static_cast<T*>(detail::allocate(pool_.get(), count * sizeof(T), alignof(T)));
  }
  void deallocate(T* data, std::size_t count) noexcept {
    detail::deallocate(pool_.get(), data, count * sizeof(T), alignof(T));
  }
  const pool& from() const noexcept { return pool_; }

 private:
  pool pool_;
};

template <class Left, class Right>
bool operator==(const allocator<Left>& left, const allocator<Right>& right) noexcept {
  return left.from() == right.from();
}
template <class Left, class Right>
bool operator!=(const allocator<Left>& left, const allocator<Right>& right) noexcept {
  return !(left == right);
}

}  // namespace v1
}  // namespace rtpool

#endif  // RTPOOL_RTPOOL_HPP
