// Looks at the arenas of Python's allocator of small objects, whoever serves them (the pieces of 16 KiB for
// deep calls and threads included): how much there is, and how much of it lies in memory, as the kernel says. Nothing
// of Python's is made for it.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { k_most_arenas = 4096, k_most_pages = 4096 };

static PyObjectArenaAllocator below;
static struct {
  char* begin;
  size_t bytes;
} alive[k_most_arenas];
static size_t count, bytes_now, most_bytes;

static void* take(void* context, size_t bytes) {
  void* const arena = below.alloc(below.ctx, bytes);
  (void)context;
  if (arena != NULL && count < k_most_arenas) {
    alive[count].begin = arena;
    alive[count++].bytes = bytes;
    bytes_now += bytes;
    if (bytes_now > most_bytes) most_bytes = bytes_now;
  }
  return arena;
}

static void give(void* context, void* arena, size_t bytes) {
  (void)context;
  for (size_t at = count; at-- != 0;) {
    if (alive[at].begin != arena) continue;
    alive[at] = alive[--count];
    bytes_now -= bytes;
    break;
  }
  below.free(below.ctx, arena, bytes);
}

// begin(): from here on what is taken is known.
static PyObject* begin(PyObject* module, PyObject* none) {
  PyObjectArenaAllocator ours = {NULL, take, give};
  (void)module, (void)none;
  PyObject_GetArenaAllocator(&below);
  PyObject_SetArenaAllocator(&ours);
  Py_RETURN_NONE;
}

// look() -> bytes of arenas: now, the most at once, and how many of those now lie in memory
static PyObject* look(PyObject* module, PyObject* none) {
  static unsigned char there[k_most_pages];
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t resident = 0;
  (void)module, (void)none;
  for (size_t at = 0; at < count; ++at) {
    const size_t pages = alive[at].bytes / page;
    if (pages > k_most_pages || mincore(alive[at].begin, alive[at].bytes, there) != 0) {
      return PyErr_SetFromErrno(PyExc_OSError);
    }
    for (size_t i = 0; i < pages; ++i) resident += (there[i] & 1) * page;
  }
  return Py_BuildValue("nnn", (Py_ssize_t)bytes_now, (Py_ssize_t)most_bytes, (Py_ssize_t)resident);
}

// nameless() -> bytes in memory of all that is no file's, no stack's and not libc's heap, and those of them in huge pages
// that nobody asked for: where they are `always`, the kernel makes them of what happens to lie there
static PyObject* nameless(PyObject* module, PyObject* none) {
  FILE* const file = fopen("/proc/self/smaps", "re");
  char line[512];
  size_t bytes = 0, unasked = 0;
  unsigned long huge = 0;
  int counts = 0;
  (void)module, (void)none;
  if (file == NULL) return PyErr_SetFromErrno(PyExc_OSError);
  while (fgets(line, sizeof line, file) != NULL) {
    unsigned long begin, end, kib;
    int name = 0;
    if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", &begin, &end, &name) == 2 && name != 0) {
      counts = line[name] == '\0' || strncmp(line + name, "[anon", 5) == 0;
    } else if (counts && sscanf(line, "Anonymous: %lu kB", &kib) == 1) {
      bytes += kib << 10;
    } else if (sscanf(line, "AnonHugePages: %lu kB", &kib) == 1) {
      huge = kib;
    } else if (counts && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " hg") == NULL) {
      unasked += huge << 10;
    }
  }
  fclose(file);
  return Py_BuildValue("nn", (Py_ssize_t)bytes, (Py_ssize_t)unasked);
}

static PyMethodDef functions[] = {
    {"begin", begin, METH_NOARGS, NULL},
    {"look", look, METH_NOARGS, NULL},
    {"nameless", nameless, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "arena_log", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_arena_log(void) { return PyModule_Create(&definition); }
