// A frame grabber in plain C: a thread that Python knows nothing of allocates and fills the frame, and an array over it goes
// to Python without a copy. When the array goes, so does the block, back to its pool.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

#include <pthread.h>

#include <rtpool/rtpool.h>

typedef struct {
  rtpool_pool *pool;
  npy_intp height, width;
  unsigned number;
  unsigned char *pixels;  // NULL: no memory
} Exposure;

// Where a driver would wait for the device. No GIL, no Python state.
static void *expose(void *argument) {
  Exposure *exposure = (Exposure *)argument;
  npy_intp y, x;
  exposure->pixels = (unsigned char *)rtpool_allocate(exposure->pool, (size_t)(exposure->height * exposure->width));
  if (exposure->pixels == NULL) return NULL;
  for (y = 0; y < exposure->height; ++y) {
    for (x = 0; x < exposure->width; ++x) exposure->pixels[y * exposure->width + x] = (unsigned char)(x + y + exposure->number);
  }
  return NULL;
}

// An array that owns the block.
static PyObject *array_over(const Exposure *exposure) {
  npy_intp shape[2] = {exposure->height, exposure->width};
  PyObject *array, *owner = rtpool_block_capsule(exposure->pool, exposure->pixels);
  if (owner == NULL) {
    rtpool_release(exposure->pool, exposure->pixels, 0);
    return NULL;
  }
  array = PyArray_SimpleNewFromData(2, shape, NPY_UINT8, exposure->pixels);
  if (array == NULL) {
    Py_DECREF(owner);
    return NULL;
  }
  if (PyArray_SetBaseObject((PyArrayObject *)array, owner) < 0) Py_CLEAR(array);  // takes `owner` in any case
  return array;
}

// grab(height, width, number=0[, pool]) -> array
static PyObject *grab(PyObject *module, PyObject *arguments, PyObject *keywords) {
  static char *names[] = {"height", "width", "number", "pool", NULL};
  Exposure exposure = {NULL, 0, 0, 0, NULL};
  PyObject *array = NULL;
  pthread_t thread;
  int error;
  (void)module;
  if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "nn|IO&:grab", names, &exposure.height, &exposure.width, &exposure.number,
                                   rtpool_pool_converter, &exposure.pool)) {
    return NULL;
  }
  if (exposure.pool == NULL) exposure.pool = rtpool_current_pool();
  if (exposure.height <= 0 || exposure.width <= 0 || exposure.height > NPY_MAX_INTP / exposure.width) {
    PyErr_Format(PyExc_ValueError, "no frame has %zd x %zd pixels", exposure.height, exposure.width);
  } else {
    error = pthread_create(&thread, NULL, expose, &exposure);
    if (error == 0) {
      Py_BEGIN_ALLOW_THREADS
      pthread_join(thread, NULL);
      Py_END_ALLOW_THREADS
    }
    array = exposure.pixels != NULL ? array_over(&exposure) : PyErr_NoMemory();
  }
  rtpool_release_pool(exposure.pool);
  return array;
}

static PyMethodDef functions[] = {
    {"grab", (PyCFunction)(void (*)(void))grab, METH_VARARGS | METH_KEYWORDS, "grab(height, width, number=0[, pool]) -> array; without `pool` where np.empty would draw from"},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
  (void)module;
  if (PyArray_ImportNumPyAPI() < 0) return -1;
  return rtpool_import();
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "grabber", "Frames in memory of rtpool's pools.", 0, functions, slots,
                                 NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_grabber(void) { return PyModuleDef_Init(&definition); }
