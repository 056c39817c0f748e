// The pools behind NumPy, for other extensions: memory from C and C++, in any thread.
//
//     #include <Python.h>
//     #include <rtpool/rtpool.h>
//
//     if (rtpool_import() < 0) return NULL;                 // once, where the module is initialised
//
//     rtpool_pool *pool = rtpool_current_pool();            // what np.empty would draw from here
//     void *frame = rtpool_allocate(pool, 1920 * 1080);
//     ...
//     rtpool_release(pool, frame, 1920 * 1080);
//     rtpool_release_pool(pool);
//
// There is nothing to link: functions come in a table that the running rtpool hands out, and this header calls them through
// it. `rtpool-config --cflags` says where the header is. The core needs C99 and nothing of Python; what does (finding the
// table, pools as Python objects, bases of arrays) is at the end, and there where Python.h was included before this header or
// RTPOOL_WITH_PYTHON is defined.
//
// Thread rule   Every function of the core may be called by any thread at any time: without the GIL, without Python state, in
//               a forked child, and while the process ends, after the interpreter and from destructors of statics, too.
// Cost          A block of a size that the thread used before: a few nanoseconds, no lock, no kernel. Anything else is O(1); it
//               may enter the kernel where the pool grows. The table costs about 1 ns a call.
// Failure       NULL, or 0 bytes; never an exception, and errno is not said to be set.
// Lifetime      Whoever holds blocks of a pool holds a reference to it, too. A pool that loses its last one while blocks are
//               alive stays until the process ends, and they may still be released; that of a shared pool unmaps it.
// Alignment     64 bytes; blocks of 4033 bytes and more begin on a page of 4096. What the default allocator serves instead of
//               a full or frozen pool (`when_full="fallback"`) is aligned as malloc does.
//
// Without rtpool  As long as no table was found, the functions that give a pool give NULL, and the pool NULL stands for malloc
//               and free: code that keeps beside each block the pool it came from, NULL or not, runs with and without rtpool,
//               and may find it late. C's own alignment holds for such blocks.
//
// Compatibility  A client compiled with this header runs with every later rtpool of the same `abi`, unchanged: the table only
//               grows at its end. `rtpool_import` refuses one that is older than what the client was compiled for. A client
//               that can do without the newest members says so by RTPOOL_MINIMUM_SIZE and asks RTPOOL_HAS.
#ifdef RTPOOL_WITH_PYTHON
#include <Python.h>
#endif

#ifndef RTPOOL_RTPOOL_H
#define RTPOOL_RTPOOL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Changes where an old client would break, which is not foreseen.
#define RTPOOL_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

// A pool, private or shared, of this process. Opaque; two pointers are equal where the pools are.
typedef struct rtpool_pool rtpool_pool;

// Counters of a pool since it was made, except the current_ ones. Sizes are bytes. The names are those of `rtpool.Stats`, where
// each is explained. Only grows at its end.
typedef struct rtpool_stats {
  uint64_t current_bytes;
  uint64_t current_count;
  uint64_t peak_bytes;
  uint64_t peak_count;
  uint64_t total_bytes;
  uint64_t total_count;
  uint64_t requested_bytes;
  uint64_t capacity_bytes;
  uint64_t resident_bytes;
  uint64_t hits;
  uint64_t misses;
  uint64_t growths;
  uint64_t kernel_calls;
  uint64_t returned_bytes;
  uint64_t fallbacks;
  uint64_t failures;
  uint64_t remote_frees;
  uint64_t misuses;
  uint64_t largest_free_bytes;
  uint64_t fallback_count;
  uint64_t object_bytes;
  uint64_t object_count;
  uint64_t object_peak_bytes;
  uint64_t object_kept_bytes;
  uint64_t object_hits;
  uint64_t object_misses;
  uint64_t object_fallbacks;
} rtpool_stats;

// The table, as the capsule `rtpool._core._C_API` holds it. Lives until the process ends, as do the functions. Only grows at
// its end; no member changes its meaning. The functions rtpool_* below call it, and stand in for it where there is none; `pool`
// is never NULL here.
typedef struct rtpool_api {
  uint32_t abi;         // RTPOOL_ABI of the running rtpool
  uint32_t size;        // bytes of the table in the running rtpool
  const char *version;  // of the running rtpool, such as "0.2.0"

  // A block of at least `size` bytes, uninitialised; 0 bytes are served as 1. NULL: the pool is at its limit, there is no
  // memory, or it is frozen with on_miss="raise". `failures` counts it.
  void *(*allocate)(rtpool_pool *pool, size_t size);
  // The same, all bytes 0. Not written where they are known to be 0.
  void *(*allocate_zeroed)(rtpool_pool *pool, size_t size);
  // The same as `allocate`, aligned to a power of two of at most 4096; above 64 the block takes whole pages. NULL as well for any
  // other alignment, and for more than malloc's where only a shared or debug pool's fallback could serve.
  void *(*allocate_aligned)(rtpool_pool *pool, size_t size, size_t alignment);
  // As realloc: the contents up to the smaller size are kept, `block` may be NULL, and NULL leaves the old block alone.
  // Keeps an alignment of 64 bytes. The old size is looked up by address.
  void *(*resize)(rtpool_pool *pool, void *block, size_t size);
  // Gives a block back, in any thread. `block` may be NULL. `size` is what it was asked for with, or 0 for not known: it is
  // not believed, the block's address says all. A pointer that is no live block of this pool (freed twice, of malloc, into a
  // block) is reported in one line on standard error, counted in `misuses` and otherwise ignored, except by a shared pool
  // with a fallback, which gives what is not its own to free(). Debug pools report a wrong `size` as well. Takes no lock
  // that another thread holds for long, never enters the kernel for memory.
  void (*release)(rtpool_pool *pool, void *block, size_t size);
  // Granted bytes of a live block, at least what was asked for; 0 for anything else, also for blocks of the fallback.
  size_t (*usable_size)(rtpool_pool *pool, const void *block);
  // The pool whose memory the address is in, of all pools in the process, or NULL. A block that the fallback served is known
  // by its begin, unless the pool is a shared one. No reference: the answer holds for as long as the caller's block is alive.
  // O(number of pools).
  rtpool_pool *(*owner)(const void *address);

  // Each gives a reference, which `release_pool` takes back, or NULL.
  //
  // The pool that is used where none is named, `rtpool.default_pool()`. The first call in a process that needs it makes it,
  // for which it takes the GIL; all others take an atomic load. NULL: it cannot be made (the reason is written to standard
  // error), or the interpreter has ended before.
  rtpool_pool *(*default_pool)(void);
  // What `rtpool.activate` was given; NULL: nothing is active.
  rtpool_pool *(*active_pool)(void);
  // What `np.empty` would draw from where the caller is: the pool of the handler of this thread's context, else the active one.
  // A thread that may not touch Python objects now (no GIL, no Python state) has no context. NULL: NumPy's own allocator.
  // Some 100 ns with a context.
  rtpool_pool *(*current_pool)(void);
  // One reference more; the pool itself.
  rtpool_pool *(*retain_pool)(rtpool_pool *pool);
  // One reference less. The last one ends the pool where no block is alive, which unmaps its memory.
  void (*release_pool)(rtpool_pool *pool);

  // UTF-8, ended by 0; lives as long as the pool.
  const char *(*pool_name)(rtpool_pool *pool);
  // Fills the first `size` bytes of `*stats`, and with 0 what this rtpool does not know. How many bytes it knows. O(threads);
  // takes locks.
  size_t (*get_stats)(rtpool_pool *pool, rtpool_stats *stats, size_t size);
  // Gives free memory back to the kernel in whole 2 MiB; live blocks keep their contents. Only what nobody used for
  // `unused_for` nanoseconds; 0: all of it. Shared pools know no ages. The bytes given back. Slow: not in a loop with deadlines.
  size_t (*trim)(rtpool_pool *pool, uint64_t unused_for);

  // With the GIL held (an attached thread state); objects are PyObject *. On failure NULL with an exception set.
  //
  // A reference to the pool of a Python object: rtpool.Pool, rtpool.SharedPool, a capsule "mem_handler" that draws from
  // either, or None for the default pool. TypeError for anything else, ValueError for a closed shared pool.
  rtpool_pool *(*pool_from_object)(void *object);
  // The Python object of a pool, a new reference.
  void *(*object_from_pool)(rtpool_pool *pool);
} rtpool_api;

// What of the table a client cannot do without; by default, all that its header knows.
#ifndef RTPOOL_MINIMUM_SIZE
#define RTPOOL_MINIMUM_SIZE sizeof(rtpool_api)
#endif
// Whether the running rtpool has a member: RTPOOL_HAS(api, trim).
#define RTPOOL_HAS(api, member) ((api)->size >= offsetof(rtpool_api, member) + sizeof((api)->member))

// The table this program or extension module uses: one for all of its files, each module its own. Hidden, weak: many
// definitions are one.
__attribute__((weak, visibility("hidden"))) const rtpool_api *rtpool_table_ = NULL;

// The table, or NULL as long as none was found.
static inline const rtpool_api *rtpool_table(void) { return __atomic_load_n(&rtpool_table_, __ATOMIC_ACQUIRE); }

// Why a table cannot be used by what is compiled with this header, or NULL when it can. For `rtpool_use`.
static inline const char *rtpool_objection(const rtpool_api *api) {
  if (api->abi != RTPOOL_ABI) return "its C interface is another one; build this extension anew with the headers of the rtpool installed";
  if (api->size < RTPOOL_MINIMUM_SIZE) return "it is older than the headers this extension was built with; install a newer rtpool";
  return NULL;
}

// Takes a table that was had by other means than rtpool_import, such as from the extension that loads this library. 0, or -1
// when it cannot be used.
static inline int rtpool_use(const rtpool_api *api) {
  if (api == NULL || rtpool_objection(api) != NULL) return -1;
  __atomic_store_n(&rtpool_table_, api, __ATOMIC_RELEASE);
  return 0;
}

// Pools. Each is the table's function of that name; NULL in, NULL out, and NULL where there is no table.

static inline rtpool_pool *rtpool_default_pool(void) {
  const rtpool_api *api = rtpool_table();
  return api != NULL ? api->default_pool() : NULL;
}

static inline rtpool_pool *rtpool_active_pool(void) {
  const rtpool_api *api = rtpool_table();
  return api != NULL ? api->active_pool() : NULL;
}

static inline rtpool_pool *rtpool_current_pool(void) {
  const rtpool_api *api = rtpool_table();
  return api != NULL ? api->current_pool() : NULL;
}

static inline rtpool_pool *rtpool_retain_pool(rtpool_pool *pool) {
  return pool != NULL ? rtpool_table()->retain_pool(pool) : NULL;
}

static inline void rtpool_release_pool(rtpool_pool *pool) {
  if (pool != NULL) rtpool_table()->release_pool(pool);
}

static inline const char *rtpool_pool_name(rtpool_pool *pool) {
  return pool != NULL ? rtpool_table()->pool_name(pool) : "malloc";
}

// The bytes of `*stats` that are known; all of it is 0 for the pool NULL.
static inline size_t rtpool_get_stats(rtpool_pool *pool, rtpool_stats *stats) {
  if (pool != NULL) return rtpool_table()->get_stats(pool, stats, sizeof *stats);
  memset(stats, 0, sizeof *stats);
  return 0;
}

static inline size_t rtpool_trim(rtpool_pool *pool, uint64_t unused_for) {
  return pool != NULL ? rtpool_table()->trim(pool, unused_for) : 0;
}

static inline rtpool_pool *rtpool_owner(const void *address) {
  const rtpool_api *api = rtpool_table();
  return api != NULL ? api->owner(address) : NULL;
}

// Blocks. Each is the table's function of that name; malloc, calloc, realloc and free for the pool NULL. A block is released to the
// pool it came from, NULL or not.

static inline void *rtpool_allocate(rtpool_pool *pool, size_t size) {
  return pool != NULL ? rtpool_table()->allocate(pool, size) : malloc(size != 0 ? size : 1);
}

static inline void *rtpool_allocate_zeroed(rtpool_pool *pool, size_t size) {
  return pool != NULL ? rtpool_table()->allocate_zeroed(pool, size) : calloc(1, size != 0 ? size : 1);
}

static inline void *rtpool_resize(rtpool_pool *pool, void *block, size_t size) {
  return pool != NULL ? rtpool_table()->resize(pool, block, size) : realloc(block, size != 0 ? size : 1);
}

static inline void rtpool_release(rtpool_pool *pool, void *block, size_t size) {
  if (pool != NULL) {
    rtpool_table()->release(pool, block, size);
  } else {
    free(block);
  }
}

static inline size_t rtpool_usable_size(rtpool_pool *pool, const void *block) {
  return pool != NULL ? rtpool_table()->usable_size(pool, block) : 0;
}

// For code that does not know where a block came from, a pool or malloc: looks the owner up, which costs O(number of pools).
static inline void rtpool_free(void *block, size_t size) { rtpool_release(block != NULL ? rtpool_owner(block) : NULL, block, size); }

// There where the C library's header has offered a function for it: C11, C++17, POSIX.
#if (defined(__cplusplus) && __cplusplus >= 201703L) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L) || \
    (defined(_POSIX_C_SOURCE) && _POSIX_C_SOURCE >= 200112L)
static inline void *rtpool_allocate_aligned(rtpool_pool *pool, size_t size, size_t alignment) {
  void *block = NULL;
  if (pool != NULL) return rtpool_table()->allocate_aligned(pool, size, alignment);
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > 4096 || size > SIZE_MAX / 2) return NULL;
  if (alignment < sizeof(void *)) alignment = sizeof(void *);
  size = size != 0 ? (size + alignment - 1) & ~(alignment - 1) : alignment;
#if defined(_POSIX_C_SOURCE) && _POSIX_C_SOURCE >= 200112L
  return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
#else
  block = aligned_alloc(alignment, size);
  return block;
#endif
}
#endif

#ifdef __cplusplus
}
#endif

#endif  // RTPOOL_RTPOOL_H

// With Python, where Python.h was included before, also where this header was included once without it. Thread rule: the GIL held
// (an attached thread state). All of it is in the limited API.
#if defined(Py_PYTHON_H) && !defined(RTPOOL_RTPOOL_H_PYTHON)
#define RTPOOL_RTPOOL_H_PYTHON

#ifdef __cplusplus
extern "C" {
#endif

// Finds the table, importing rtpool. 0, or -1 with ImportError set that says what to do: rtpool is missing, has no C interface,
// another one, or an older one than this header's. Call it where the module is initialised; again costs nothing.
static inline int rtpool_import(void) {
  PyObject *module = NULL, *core = NULL, *capsule = NULL;
  const rtpool_api *api = NULL;
  const char *objection = NULL;
  if (rtpool_table() != NULL) return 0;
  module = PyImport_ImportModule("rtpool");
  if (module == NULL) return -1;
  core = PyObject_GetAttrString(module, "_core");
  if (core != NULL) capsule = PyObject_GetAttrString(core, "_C_API");
  Py_XDECREF(core);
  Py_DECREF(module);
  if (capsule == NULL) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
    PyErr_Clear();
    PyErr_SetString(PyExc_ImportError, "the rtpool installed has no C interface, which came with 0.2.0; install a newer rtpool");
    return -1;
  }
  if (!PyCapsule_IsValid(capsule, "rtpool._core._C_API")) {
    Py_DECREF(capsule);
    PyErr_SetString(PyExc_ImportError, "rtpool._core._C_API is no capsule of that name: something else was put in its place");
    return -1;
  }
  api = (const rtpool_api *)PyCapsule_GetPointer(capsule, "rtpool._core._C_API");
  Py_DECREF(capsule);
  objection = rtpool_objection(api);
  if (objection != NULL) {
    PyErr_Format(PyExc_ImportError, "rtpool %s cannot be used by this extension: %s (it has interface %u with %u bytes, needed are %u with %u)",
                 api->abi == RTPOOL_ABI ? api->version : "as installed", objection, (unsigned)api->abi, (unsigned)api->size,
                 (unsigned)RTPOOL_ABI, (unsigned)(RTPOOL_MINIMUM_SIZE));
    return -1;
  }
  return rtpool_use(api);
}

// The same for extensions that can do without. 1: found. 0: rtpool is not installed, and all goes to malloc. -1 with an exception:
// it is installed and cannot be used.
static inline int rtpool_import_if_installed(void) {
  PyObject *util = NULL, *spec = NULL;
  int there = 0;
  if (rtpool_table() != NULL) return 1;
  util = PyImport_ImportModule("importlib.util");
  if (util == NULL) return -1;
  spec = PyObject_CallMethod(util, "find_spec", "s", "rtpool");
  Py_DECREF(util);
  if (spec == NULL) return -1;
  there = spec != Py_None;
  Py_DECREF(spec);
  if (!there) return 0;
  return rtpool_import() < 0 ? -1 : 1;
}

// The pool of a Python object, as the table's `pool_from_object`, in `*pool` with a reference. 0, or -1 with an exception. Without
// rtpool None is the pool NULL and anything else a TypeError.
static inline int rtpool_pool_from_object(PyObject *object, rtpool_pool **pool) {
  const rtpool_api *api = rtpool_table();
  *pool = NULL;
  if (api != NULL) {
    *pool = api->pool_from_object(object);
    return *pool != NULL ? 0 : -1;
  }
  if (object == Py_None) return 0;
  PyErr_SetString(PyExc_TypeError, "pool must be None as long as rtpool is not installed or not imported by this extension");
  return -1;
}

// The same as a converter for PyArg_ParseTuple: `O&` with rtpool_pool_converter and an rtpool_pool * that begins as NULL.
static inline int rtpool_pool_converter(PyObject *object, void *pool) {
  rtpool_pool **result = (rtpool_pool **)pool;
  if (object == NULL) {  // parsing failed later on
    rtpool_release_pool(*result);
    *result = NULL;
    return 1;
  }
  return rtpool_pool_from_object(object, result) < 0 ? 0 : Py_CLEANUP_SUPPORTED;
}

// The Python object of a pool, or None for the pool NULL. A new reference, or NULL with an exception.
static inline PyObject *rtpool_object_from_pool(rtpool_pool *pool) {
  if (pool != NULL) return (PyObject *)rtpool_table()->object_from_pool(pool);
  Py_INCREF(Py_None);
  return Py_None;
}

#define RTPOOL_BLOCK_CAPSULE "rtpool.block"

static inline void rtpool_destroy_block_capsule_(PyObject *capsule) {
  void *block = PyCapsule_GetPointer(capsule, RTPOOL_BLOCK_CAPSULE);
  rtpool_pool *pool = (rtpool_pool *)PyCapsule_GetContext(capsule);
  rtpool_release(pool, block, 0);
  rtpool_release_pool(pool);
}

// An owner for a block that an array is to be made over: a capsule that releases the block at its end, with the array, and holds the
// pool until then. Takes the block over; the caller's reference to the pool stays the caller's. A new reference; NULL with an
// exception, and the block is still the caller's.
static inline PyObject *rtpool_block_capsule(rtpool_pool *pool, void *block) {
  PyObject *capsule = PyCapsule_New(block, RTPOOL_BLOCK_CAPSULE, NULL);
  if (capsule == NULL) return NULL;
  if (PyCapsule_SetContext(capsule, pool) < 0 || PyCapsule_SetDestructor(capsule, rtpool_destroy_block_capsule_) < 0) {
    Py_DECREF(capsule);
    return NULL;
  }
  rtpool_retain_pool(pool);
  return capsule;
}

#ifdef __cplusplus
}
#endif

#endif  // Py_PYTHON_H
