/* A client of the C interface in C99: its functions for Python do one thing each, addresses and pools being numbers. It is
 * compiled with the first header and with today's; what it calls was there from the beginning. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <rtpool/rtpool.h>
#include <stdio.h>

#define POINTER(object) PyLong_AsVoidPtr(object)

static PyObject *number(const void *pointer) { return PyLong_FromVoidPtr((void *)(uintptr_t)pointer); }

typedef struct {
  rtpool_pool *pool;
  void *block;
  size_t size, other;
} Arguments;

/* (pool, block, size, other), as many as there are. */
static int parse(PyObject *tuple, Arguments *out) {
  PyObject *pool = NULL, *block = NULL;
  Py_ssize_t size = 0, other = 0;
  if (!PyArg_ParseTuple(tuple, "O|Onn", &pool, &block, &size, &other)) return -1;
  out->pool = (rtpool_pool *)POINTER(pool);
  out->block = block != NULL ? POINTER(block) : NULL;
  out->size = (size_t)size;
  out->other = (size_t)other;
  return PyErr_Occurred() ? -1 : 0;
}

#define FUNCTION(name, expression)                              \
  static PyObject *name(PyObject *module, PyObject *arguments) { \
    Arguments a;                                                \
    (void)module;                                               \
    if (parse(arguments, &a) < 0) return NULL;                  \
    expression;                                                 \
  }

FUNCTION(allocate, return number(rtpool_allocate(a.pool, (size_t)(uintptr_t)a.block)))
FUNCTION(allocate_zeroed, return number(rtpool_allocate_zeroed(a.pool, (size_t)(uintptr_t)a.block)))
FUNCTION(allocate_aligned, return number(rtpool_allocate_aligned(a.pool, (size_t)(uintptr_t)a.block, a.size)))
FUNCTION(resize, return number(rtpool_resize(a.pool, a.block, a.size)))
FUNCTION(release, rtpool_release(a.pool, a.block, a.size); Py_RETURN_NONE)
FUNCTION(free_any, rtpool_free((void *)a.pool, 0); Py_RETURN_NONE)
FUNCTION(usable_size, return PyLong_FromSize_t(rtpool_usable_size(a.pool, a.block)))
FUNCTION(owner, return number(rtpool_owner((void *)a.pool)))
FUNCTION(retain_pool, return number(rtpool_retain_pool(a.pool)))
FUNCTION(release_pool, rtpool_release_pool(a.pool); Py_RETURN_NONE)
FUNCTION(pool_name, return PyUnicode_FromString(rtpool_pool_name(a.pool)))
FUNCTION(trim, return PyLong_FromSize_t(rtpool_trim(a.pool, (uint64_t)(uintptr_t)a.block)))
FUNCTION(object_from_pool, return rtpool_object_from_pool(a.pool))
FUNCTION(capsule, return rtpool_block_capsule(a.pool, a.block))

static PyObject *default_pool(PyObject *module, PyObject *none) {
  (void)module, (void)none;
  return number(rtpool_default_pool());
}
static PyObject *active_pool(PyObject *module, PyObject *none) {
  (void)module, (void)none;
  return number(rtpool_active_pool());
}
static PyObject *current_pool(PyObject *module, PyObject *none) {
  (void)module, (void)none;
  return number(rtpool_current_pool());
}

static PyObject *get_stats(PyObject *module, PyObject *arguments) {
  Arguments a;
  rtpool_stats s;
  (void)module;
  if (parse(arguments, &a) < 0) return NULL;
  rtpool_get_stats(a.pool, &s);
  return Py_BuildValue("{sKsKsKsKsKsK}", "current_count", (unsigned long long)s.current_count, "total_count",
                       (unsigned long long)s.total_count, "requested_bytes", (unsigned long long)s.requested_bytes, "misuses",
                       (unsigned long long)s.misuses, "fallback_count", (unsigned long long)s.fallback_count, "object_fallbacks",
                       (unsigned long long)s.object_fallbacks);
}

static PyObject *pool_from_object(PyObject *module, PyObject *object) {
  rtpool_pool *pool = NULL;
  (void)module;
  return rtpool_pool_from_object(object, &pool) < 0 ? NULL : number(pool);
}

/* convert(pool, number): the number fails to parse after the pool was converted. */
static PyObject *convert(PyObject *module, PyObject *arguments) {
  rtpool_pool *pool = NULL;
  int value = 0;
  (void)module;
  if (!PyArg_ParseTuple(arguments, "O&i", rtpool_pool_converter, &pool, &value)) return NULL;
  rtpool_release_pool(pool);
  return PyLong_FromLong(value);
}

/* A thread without Python state, while nobody holds the GIL: allocates, writes, resizes and frees; gives the last block. */
typedef struct {
  rtpool_pool *pool;
  size_t size;
  unsigned rounds;
  void *last;
  rtpool_pool *standard, *active, *current;
} Work;

static void *work(void *argument) {
  Work *w = (Work *)argument;
  unsigned i;
  w->standard = rtpool_default_pool();
  w->active = rtpool_active_pool();
  w->current = rtpool_current_pool();
  for (i = 0; i < w->rounds; ++i) {
    char *block = (char *)rtpool_allocate(w->pool, w->size);
    if (block == NULL) return NULL;
    memset(block, 1, w->size);
    block = (char *)rtpool_resize(w->pool, block, 2 * w->size);
    if (block == NULL) return NULL;
    rtpool_release(w->pool, w->last, 2 * w->size);
    w->last = block;
  }
  return NULL;
}

/* in_thread(pool, size, rounds) -> (last block, default pool, active pool, current pool) */
static PyObject *in_thread(PyObject *module, PyObject *arguments) {
  Arguments a;
  Work w;
  pthread_t thread;
  (void)module;
  if (parse(arguments, &a) < 0) return NULL;
  memset(&w, 0, sizeof w);
  w.pool = a.pool;
  w.size = (size_t)(uintptr_t)a.block;
  w.rounds = (unsigned)a.size;
  if (pthread_create(&thread, NULL, work, &w) != 0) return PyErr_NoMemory();
  Py_BEGIN_ALLOW_THREADS
  pthread_join(thread, NULL);
  Py_END_ALLOW_THREADS
  return Py_BuildValue("(NNNN)", number(w.last), number(w.standard), number(w.active), number(w.current));
}

/* What C's exit handlers find: they run after the interpreter has ended. */
static Arguments at_exit_has;

static void at_exit(void) {
  rtpool_pool *standard = rtpool_default_pool();
  rtpool_pool *current = rtpool_current_pool();
  char *other = (char *)rtpool_allocate(at_exit_has.pool, 100);
  const char first = *(char *)at_exit_has.block;
  memset(other, 2, 100);
  rtpool_release(at_exit_has.pool, other, 100);
  rtpool_release(at_exit_has.pool, at_exit_has.block, at_exit_has.size);
  printf("at exit: initialized %d, byte %d, default pool %s, current pool %s, owner %s\n", Py_IsInitialized(), first,
         rtpool_pool_name(standard), current == at_exit_has.pool ? "the active one" : "none",
         rtpool_owner(at_exit_has.block) == at_exit_has.pool ? "known" : "unknown");
  rtpool_release_pool(standard);
  rtpool_release_pool(current);
  rtpool_release_pool(at_exit_has.pool);
  fflush(stdout);
}

FUNCTION(release_at_exit, at_exit_has = a; rtpool_retain_pool(a.pool); return PyLong_FromLong(atexit(at_exit)))

static PyObject *table(PyObject *module, PyObject *none) {
  const rtpool_api *api = rtpool_table();
  (void)module, (void)none;
  if (api == NULL) Py_RETURN_NONE;
  return Py_BuildValue("(IIsn)", api->abi, api->size, api->version, (Py_ssize_t)sizeof *api);
}

static PyObject *find(PyObject *module, PyObject *none) {
  const int found = rtpool_import_if_installed();
  (void)module, (void)none;
  return found < 0 ? NULL : PyLong_FromLong(found);
}

static PyMethodDef functions[] = {
    {"allocate", allocate, METH_VARARGS, NULL},
    {"allocate_zeroed", allocate_zeroed, METH_VARARGS, NULL},
    {"allocate_aligned", allocate_aligned, METH_VARARGS, NULL},
    {"resize", resize, METH_VARARGS, NULL},
    {"release", release, METH_VARARGS, NULL},
    {"free_any", free_any, METH_VARARGS, NULL},
    {"usable_size", usable_size, METH_VARARGS, NULL},
    {"owner", owner, METH_VARARGS, NULL},
    {"retain_pool", retain_pool, METH_VARARGS, NULL},
    {"release_pool", release_pool, METH_VARARGS, NULL},
    {"pool_name", pool_name, METH_VARARGS, NULL},
    {"trim", trim, METH_VARARGS, NULL},
    {"object_from_pool", object_from_pool, METH_VARARGS, NULL},
    {"capsule", capsule, METH_VARARGS, NULL},
    {"default_pool", default_pool, METH_NOARGS, NULL},
    {"active_pool", active_pool, METH_NOARGS, NULL},
    {"current_pool", current_pool, METH_NOARGS, NULL},
    {"get_stats", get_stats, METH_VARARGS, NULL},
    {"pool_from_object", pool_from_object, METH_O, NULL},
    {"convert", convert, METH_VARARGS, NULL},
    {"in_thread", in_thread, METH_VARARGS, NULL},
    {"release_at_exit", release_at_exit, METH_VARARGS, NULL},
    {"find", find, METH_NOARGS, NULL},
    {"table", table, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
#ifdef CLIENT_CAN_DO_WITHOUT
  const int found = rtpool_import_if_installed();
  return found < 0 ? -1 : PyModule_AddIntConstant(module, "found", found);
#else
  return rtpool_import() < 0 ? -1 : PyModule_AddIntConstant(module, "found", 1);
#endif
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)(uintptr_t)execute},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "client", NULL, 0, functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_client(void) { return PyModuleDef_Init(&definition); }
