// What keeps arenas of Python's allocator of small objects and does nothing else: what objects.py measures the pool against. Arenas
// that come back are linked through their first word, and the last one is the next.
#include <Python.h>

static PyObjectArenaAllocator source;
static void** kept;
static size_t kept_bytes = 1 << 18;  // of each; pieces of 16 KiB, for the frames of deep calls, are none

static void* take(void* context, size_t bytes) {
  (void)context;
  if (kept == NULL || bytes != kept_bytes) return source.alloc(source.ctx, bytes);
  void** const arena = kept;
  kept = *arena;
  return arena;
}

static void give(void* context, void* arena, size_t bytes) {
  (void)context;
  if (bytes < kept_bytes) {
    source.free(source.ctx, arena, bytes);
    return;
  }
  *(void**)arena = kept;
  kept = arena;
  kept_bytes = bytes;
}

void keep_arenas(void) {
  PyObjectArenaAllocator ours = {NULL, take, give};
  PyObject_GetArenaAllocator(&source);
  PyObject_SetArenaAllocator(&ours);
}
