// A client of rtpool.hpp: containers over pools, blocks, and what their destructors do, also after the interpreter's end.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <rtpool/rtpool.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

struct Failed {
  int line;
};
#define HOLD(condition) \
  if (!(condition)) throw Failed{__LINE__}

template <class T>
using Vector = std::vector<T, rtpool::allocator<T>>;

struct alignas(64) Wide {
  double values[8];
};
struct alignas(8192) Huge {
  char bytes[8192];
};

void check_pool(const rtpool::pool& given) {
  HOLD(given && given.get() != nullptr);
  rtpool::pool copy = given;
  HOLD(copy == given && !(copy != given));
  rtpool::pool moved = std::move(copy);
  HOLD(moved == given && !copy);  // NOLINT: what was moved from is empty
  copy = moved;
  moved = rtpool::pool();
  HOLD(!moved && copy == given && moved != given);
  rtpool::pool* const itself = &copy;  // compilers warn of a name that is moved to itself (GCC 13)
  copy = std::move(*itself);           // NOLINT
  HOLD(rtpool::default_pool() && rtpool::default_pool() != given);
  HOLD(std::strcmp(given.name(), "tested") == 0);
}

void check_block(const rtpool::pool& given) {
  rtpool::block first(given, 100);
  std::memset(first.data(), 1, first.size());
  HOLD(first && first.size() == 100 && first.as<char>()[99] == 1 && first.from() == given);
  HOLD(rtpool::owner(first.data()) == given && !rtpool::owner(&given));
  void* const data = first.data();
  rtpool::block second(std::move(first));
  HOLD(!first && first.data() == nullptr && second.data() == data);  // NOLINT
  rtpool::block third;
  third = std::move(second);
  HOLD(third.data() == data && third.size() == 100);
  rtpool::block* const same = &third;
  third = std::move(*same);
  HOLD(third.data() == data);
  third = rtpool::block(given, 200);
  HOLD(given.stats().current_count == 1);
  void* const taken = third.release();
  third.reset();
  HOLD(given.stats().current_count == 1);
  rtpool_release(given.get(), taken, 200);
  bool refused = false;
  try {
    rtpool::block impossible(given, SIZE_MAX / 2);
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  HOLD(refused);
}

void check_resource(const rtpool::pool& given) {
  rtpool::memory_resource resource(given);
  {
    std::pmr::vector<double> numbers(1000, 1.5, &resource);
    std::pmr::map<int, std::pmr::string> names(&resource);
    for (int i = 0; i < 100; ++i) names[i] = std::string(40, 'a');
    std::pmr::vector<Wide> wide(10, &resource);
    std::pmr::vector<Huge> huge(2, &resource);
    HOLD(rtpool::owner(numbers.data()) == given && rtpool::owner(names[3].data()) == given && rtpool::owner(wide.data()) == given);
    HOLD(!rtpool::owner(huge.data()));  // more than a pool aligns to
    HOLD(reinterpret_cast<std::uintptr_t>(huge.data()) % alignof(Huge) == 0);
    for (int i = 0; i < 1000; ++i) numbers.push_back(i);
    HOLD(numbers[1999] == 999 && given.stats().current_count > 200);
  }
  rtpool::memory_resource same(given), other;
  HOLD(resource == same && resource != other && resource != *std::pmr::new_delete_resource());
  for (std::size_t alignment = 1; alignment <= 16384; alignment *= 2) {
    void* const block = resource.allocate(100, alignment);
    HOLD(reinterpret_cast<std::uintptr_t>(block) % alignment == 0);
    resource.deallocate(block, 100, alignment);
  }
  std::pmr::unsynchronized_pool_resource above(&resource);
  std::pmr::list<int> list(&above);
  for (int i = 0; i < 1000; ++i) list.push_back(i);
}

void check_allocator(const rtpool::pool& given) {
  Vector<float> numbers(1000, 2.0F, given);
  HOLD(rtpool::owner(numbers.data()) == given);
  Vector<float> copy = numbers;
  HOLD(rtpool::owner(copy.data()) == given && copy == numbers);
  Vector<float> elsewhere(10, 1.0F);
  HOLD(rtpool::owner(elsewhere.data()) == rtpool::default_pool());
  elsewhere.swap(copy);
  HOLD(rtpool::owner(elsewhere.data()) == given && rtpool::owner(copy.data()) == rtpool::default_pool());
  copy = numbers;
  HOLD(rtpool::owner(copy.data()) == given);
  const float* const data = copy.data();
  elsewhere = std::move(copy);
  HOLD(elsewhere.data() == data);
  Vector<Wide> wide(3, given);
  HOLD(reinterpret_cast<std::uintptr_t>(wide.data()) % 64 == 0);
  std::list<int, rtpool::allocator<int>> list(given);
  list.push_back(1);
  const auto shared = std::allocate_shared<std::array<double, 100>>(rtpool::allocator<double>(given));
  HOLD(rtpool::owner(shared.get()) == given);
  bool refused = false;
  try {
    (void)rtpool::allocator<double>(given).allocate(SIZE_MAX / 4);
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  HOLD(refused);
  std::basic_string<char, std::char_traits<char>, rtpool::allocator<char>> text(200, 'x', given);
  HOLD(rtpool::owner(text.data()) == given);
  std::thread([moved = std::move(wide)] {}).join();  // ends in another thread
}

void check_without_a_pool() {
  const rtpool::pool none;
  HOLD(std::strcmp(none.name(), "malloc") == 0 && none.trim() == 0);
  rtpool::block block(none, 100);
  rtpool::memory_resource resource(none);
  std::pmr::vector<Wide> wide(10, &resource);
  Vector<double> numbers(100, 1.0, none);
  HOLD(!rtpool::owner(block.data()) && !rtpool::owner(wide.data()) && !rtpool::owner(numbers.data()));
}

PyObject* run(PyObject*, PyObject* object) {
  rtpool::pool given;
  if (!rtpool::pool::from_object(object, &given)) return nullptr;
  try {
    for (const auto check : {check_pool, check_block, check_resource, check_allocator}) {
      check(given);
      HOLD(given.stats().current_count == 0 && given.stats().misuses == 0);
    }
    check_without_a_pool();
  } catch (const Failed& failed) {
    return PyErr_Format(PyExc_AssertionError, "line %d of client.cpp", failed.line);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  Py_RETURN_NONE;
}

// Freed by destructors of statics, after the interpreter's end.
struct Kept {
  Vector<int> numbers{rtpool::pool()};
  std::unique_ptr<rtpool::memory_resource> resource;
  std::unique_ptr<std::pmr::vector<int>> more;
  rtpool::block block;
  ~Kept() {
    if (block) std::printf("end: initialized %d, %d %d %d\n", Py_IsInitialized(), numbers.back(), more->back(), *block.as<int>());
    std::fflush(stdout);
  }
} kept;

PyObject* keep(PyObject*, PyObject* object) {
  rtpool::pool given;
  if (!rtpool::pool::from_object(object, &given)) return nullptr;
  kept.numbers = Vector<int>(1000, 5, given);
  kept.resource = std::make_unique<rtpool::memory_resource>(given);
  kept.more = std::make_unique<std::pmr::vector<int>>(1000, 6, kept.resource.get());
  kept.block = rtpool::block(given, sizeof(int));
  *kept.block.as<int>() = 7;
  Py_RETURN_NONE;
}

PyObject* to_capsule(PyObject*, PyObject* object) {
  rtpool::pool given;
  if (!rtpool::pool::from_object(object, &given)) return nullptr;
  rtpool::block block(given, 1000);
  PyObject* const capsule = block.to_capsule();
  if (capsule != nullptr && block) return PyErr_Format(PyExc_AssertionError, "the block is still here");
  return capsule;
}

PyMethodDef functions[] = {
    {"run", run, METH_O, nullptr},
    {"keep", keep, METH_O, nullptr},
    {"to_capsule", to_capsule, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

int execute(PyObject*) { return rtpool_import(); }

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(execute)},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "client_cpp", nullptr, 0, functions, slots, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_client_cpp() { return PyModuleDef_Init(&definition); }
