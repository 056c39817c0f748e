# rtpool's C interface for Cython: `cimport rtpool`. The names are those of rtpool/rtpool.h without their prefix, and what
# holds of each is said there. Compile with `rtpool-config --cflags` (or rtpool.get_include()).
#
#     cimport rtpool
#     rtpool.import_rtpool()
#
#     cdef rtpool.pool *pool = rtpool.current_pool()
#     cdef void *frame = rtpool.allocate(pool, 1920 * 1080)

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "rtpool/rtpool.h" nogil:
    ctypedef struct pool "rtpool_pool":
        pass

    ctypedef struct stats "rtpool_stats":
        uint64_t current_bytes
        uint64_t current_count
        uint64_t peak_bytes
        uint64_t peak_count
        uint64_t total_bytes
        uint64_t total_count
        uint64_t requested_bytes
        uint64_t capacity_bytes
        uint64_t resident_bytes
        uint64_t hits
        uint64_t misses
        uint64_t growths
        uint64_t kernel_calls
        uint64_t returned_bytes
        uint64_t fallbacks
        uint64_t failures
        uint64_t remote_frees
        uint64_t misuses
        uint64_t largest_free_bytes
        uint64_t fallback_count
        uint64_t object_bytes
        uint64_t object_count
        uint64_t object_peak_bytes
        uint64_t object_kept_bytes
        uint64_t object_hits
        uint64_t object_misses
        uint64_t object_fallbacks

    ctypedef struct api "rtpool_api":
        uint32_t abi
        uint32_t size
        const char *version

    const api *table "rtpool_table"() noexcept

    pool *default_pool "rtpool_default_pool"() noexcept
    pool *active_pool "rtpool_active_pool"() noexcept
    pool *current_pool "rtpool_current_pool"() noexcept
    pool *retain_pool "rtpool_retain_pool"(pool *pool) noexcept
    void release_pool "rtpool_release_pool"(pool *pool) noexcept
    const char *pool_name "rtpool_pool_name"(pool *pool) noexcept
    size_t get_stats "rtpool_get_stats"(pool *pool, stats *stats) noexcept
    size_t trim "rtpool_trim"(pool *pool, uint64_t unused_for) noexcept
    pool *owner "rtpool_owner"(const void *address) noexcept

    void *allocate "rtpool_allocate"(pool *pool, size_t size) noexcept
    void *allocate_zeroed "rtpool_allocate_zeroed"(pool *pool, size_t size) noexcept
    void *allocate_aligned "rtpool_allocate_aligned"(pool *pool, size_t size, size_t alignment) noexcept
    void *resize "rtpool_resize"(pool *pool, void *block, size_t size) noexcept
    void release "rtpool_release"(pool *pool, void *block, size_t size) noexcept
    size_t usable_size "rtpool_usable_size"(pool *pool, const void *block) noexcept
    void free "rtpool_free"(void *block, size_t size) noexcept

cdef extern from "rtpool/rtpool.h":
    int import_rtpool "rtpool_import"() except -1
    int import_if_installed "rtpool_import_if_installed"() except -1
    int pool_from_object "rtpool_pool_from_object"(object object, pool **pool) except -1
    object object_from_pool "rtpool_object_from_pool"(pool *pool)
    object block_capsule "rtpool_block_capsule"(pool *pool, void *block)
