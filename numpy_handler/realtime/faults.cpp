// Where the page faults of a loop happened: what lies at each address, and whose function touched it.

#include <algorithm>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>

#include "numpy_handler/objects/reserve.hpp"
#include "numpy_handler/realtime/types.hpp"
#include "os/mappings.hpp"
#include "os/process_sample.hpp"
#include "os/symbols.hpp"
#include "shared/shared_pool.hpp"

namespace rtpool::binding {
namespace {

// The kinds of `rtpool.FaultOrigin`.
enum class Kind : unsigned char { pool, objects, libc, stack, file, other };

const char* name_of(Kind kind) noexcept {
  switch (kind) {
    case Kind::pool: return "pool";
    case Kind::objects: return "objects";
    case Kind::libc: return "libc";
    case Kind::stack: return "stack";
    case Kind::file: return "file";
    case Kind::other: break;
  }
  return "other";
}

struct Origin {
  Kind kind = Kind::other;
  bool certain = false;  // else: what the memory is was not to be seen, and neighbours or the function may tell
  char where[384] = {};
  char function[384] = {};
};

__attribute__((format(printf, 3, 4))) void say(Origin* origin, Kind kind, const char* format, ...) noexcept {
  origin->kind = kind;
  origin->certain = true;
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(origin->where, sizeof origin->where, format, arguments);
  va_end(arguments);
}

const char* base_name(const char* path) noexcept {
  const char* const slash = std::strrchr(path, '/');
  return slash != nullptr && slash[1] != '\0' ? slash + 1 : path;
}

const char* name_of(pool::PoolPart part) noexcept {
  switch (part) {
    case pool::PoolPart::block: return "large block";
    case pool::PoolPart::small_blocks: return "small blocks";
    case pool::PoolPart::object_arena: return "object arena";
    case pool::PoolPart::free_pages: return "free pages";
    case pool::PoolPart::not_ready: return "address space without memory";
    case pool::PoolPart::descriptors: return "page descriptors";
    case pool::PoolPart::records: return "records";
    case pool::PoolPart::control: break;
  }
  return "control block";
}

bool is_of_pools(const void* address, Origin* origin) noexcept {
  pool::PoolPlace place;
  if (pool::Pool::locate(address, &place)) {
    const Kind kind = place.part == pool::PoolPart::object_arena ? Kind::objects : Kind::pool;
    say(origin, kind, "pool %s: %s", place.name, name_of(place.part));
    return true;
  }
  char name[128];
  bool tables = false;
  if (!shared::SharedPool::locate(address, name, sizeof name, &tables)) return false;
  say(origin, Kind::pool, "shared pool%s%s: %s", name[0] != '\0' ? " " : "", name, tables ? "tables" : "data");
  return true;
}

// Python's allocator of small objects cuts its arenas into pools, 16 KiB from 3.10 on, and writes at the begin of each what its
// blocks are.
struct ObjectsPool {
  static constexpr std::uintptr_t k_bytes = std::uintptr_t{16} << 10;
  unsigned count;
  unsigned padding;
  std::uintptr_t free_block, next, previous;
  unsigned arena, size_class, next_offset, last_offset;
};

// A free pool keeps what stands there. Some 60 bits have to agree.
bool is_objects_pool(std::uintptr_t address) noexcept {
  constexpr unsigned k_classes = 32;
  ObjectsPool header;
  const std::uintptr_t begin = address & ~(ObjectsPool::k_bytes - 1);
  if (!os::peek(begin, &header, sizeof header) || header.size_class >= k_classes) return false;
  const unsigned size = (header.size_class + 1) * 16;
  const unsigned blocks = (ObjectsPool::k_bytes - sizeof header) / size;
  return header.last_offset == ObjectsPool::k_bytes - size && header.count <= blocks && header.next_offset >= sizeof header &&
         header.next_offset <= header.last_offset + size && (header.next_offset - sizeof header) % size == 0 &&
         (header.free_block == 0 || header.free_block - begin < ObjectsPool::k_bytes);
}

bool contains(const char* text, const char* part) noexcept { return std::strstr(text, part) != nullptr; }

#ifdef Py_GIL_DISABLED
constexpr char k_objects[] = "heap of free-threaded Python";
#else
constexpr char k_objects[] = "arena of Python's own";
#endif

// What is mapped there now.
void explain_mapping(const os::Place& place, std::uintptr_t address, const os::AddressRange& objects, Origin* origin) noexcept {
  switch (place.region) {
    case os::Region::code: say(origin, Kind::file, "%s: code", base_name(place.name)); break;
    case os::Region::data: say(origin, Kind::file, "%s: data", base_name(place.name)); break;
    case os::Region::file: say(origin, Kind::file, "%s: file contents", place.name); break;
    case os::Region::shared: say(origin, Kind::file, "%s: shared memory", place.name); break;
    case os::Region::libc_heap:
      say(origin, Kind::libc, place.whole_heap ? "heap" : "heap of a thread, or a block with a mapping of its own");
      break;
    case os::Region::stack:
      if (static_cast<std::uint32_t>(place.thread) == os::thread_number()) {
        say(origin, Kind::stack, "stack of this thread");
      } else {
        say(origin, Kind::stack, "stack of thread %d", static_cast<int>(place.thread));
      }
      break;
    case os::Region::kernel: say(origin, Kind::other, "%s", place.name); break;
    case os::Region::anonymous:
      if (contains(place.name, "cpython:") || address - objects.begin < objects.end - objects.begin || is_objects_pool(address)) {
        say(origin, Kind::objects, k_objects);
      } else if (place.name[0] != '\0') {
        say(origin, Kind::other, "memory named %s", place.name);
      } else {
        std::snprintf(origin->where, sizeof origin->where, "nameless memory");
      }
      break;
    case os::Region::nothing:
      std::snprintf(origin->where, sizeof origin->where, "memory that is gone since");
      break;
  }
}

void explain_late_file(const realtime::LateFile& file, Origin* origin) noexcept {
  say(origin, Kind::file, "%s: %s, mapped meanwhile", base_name(file.name), file.executable ? "code" : "contents");
}

// What the allocator's own instructions first touch is what it hands out.
struct Allocators {
  std::uintptr_t objects[3] = {};
  os::Place home;  // the library or program that they are in
};

Allocators find_allocators() noexcept {
  Allocators found;
  PyMemAllocatorEx of_objects{};
  PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &of_objects);
  found.objects[0] = reinterpret_cast<std::uintptr_t>(of_objects.malloc);
  found.objects[1] = reinterpret_cast<std::uintptr_t>(of_objects.calloc);
  found.objects[2] = reinterpret_cast<std::uintptr_t>(of_objects.realloc);
  found.home = os::find_loaded(found.objects[0]);
  return found;
}

bool is_libc(const char* path) noexcept {
  const char* const name = base_name(path);
  return std::strncmp(name, "libc.so", 7) == 0 || std::strncmp(name, "libc-2.", 7) == 0 ||
         std::strncmp(name, "ld-musl", 7) == 0;
}

bool starts_with_any(const char* name, std::initializer_list<const char*> prefixes) noexcept {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [name](const char* prefix) { return std::strncmp(name, prefix, std::strlen(prefix)) == 0; });
}

// Where Python's program or library is stripped, functions that only it calls have no names. What is first touched by such a
// one in memory that is gone tells by its place what it was.
bool is_nameless_of_python(const os::Function& function, const Allocators& allocators) noexcept {
  return function.name[0] == '\0' && function.object[0] != '\0' && std::strcmp(function.object, allocators.home.name) == 0;
}

// A pool that is carved off an arena is first touched where it says of which arena and size it is. With pages of 16 KiB and
// more that is the only fault of a pool.
bool is_new_pool(std::uintptr_t address) noexcept {
  const std::uintptr_t offset = address % ObjectsPool::k_bytes;
  return offset >= offsetof(ObjectsPool, arena) && offset < sizeof(ObjectsPool);
}

// A piece of the frames' stack has a mapping of its own, and three words at its begin.
bool is_new_piece_of_frames(std::uintptr_t address) noexcept { return address % os::memory().page_size() < 3 * sizeof(void*); }

void explain_by_function(const os::Function& function, const Allocators& allocators, std::uintptr_t address,
                         Origin* origin) noexcept {
  const auto* const end = std::end(allocators.objects);
  const bool of_objects = function.begin != 0 && std::find(std::begin(allocators.objects), end, function.begin) != end;
  const bool nameless = is_nameless_of_python(function, allocators);
  if (of_objects || (nameless && is_new_pool(address)) ||
      starts_with_any(function.name, {"_PyObject_Malloc", "_PyObject_Calloc", "_PyObject_Realloc", "PyObject_Malloc",
                                      "PyObject_Calloc", "pymalloc_", "new_arena", "allocate_from_new_pool", "_mi_", "mi_"})) {
    say(origin, Kind::objects, k_objects);
    return;
  }
  // Python maps a piece of its frames' stack when calls get deeper, and unmaps it when they are back.
  if ((nameless && is_new_piece_of_frames(address)) ||
      starts_with_any(function.name, {"_PyThreadState_BumpFramePointer", "_PyThreadState_PushFrame", "push_chunk",
                                      "allocate_chunk", "_PyEvalFramePushAndInit"})) {
    say(origin, Kind::objects, "frames of Python's calls");
    return;
  }
  if (!is_libc(function.object)) return;
  if (starts_with_any(function.name, {"pthread_create", "__pthread_create", "allocate_stack", "start_thread"})) {
    say(origin, Kind::stack, "stack of a thread that began meanwhile");
    return;
  }
  // A block with a mapping of its own begins with the allocator writing its size, in a function that libc has no name for.
  const std::uintptr_t in_page = address % os::memory().page_size();
  if ((function.name[0] == '\0' && (in_page == 0 || in_page == 8)) ||
      starts_with_any(function.name, {"malloc", "calloc", "realloc", "_int_malloc", "sysmalloc", "_int_realloc"})) {
    say(origin, Kind::libc, "block with a mapping of its own, gone since");
  }
}

void name_function(const os::Function& function, char* out, std::size_t capacity) noexcept {
  if (function.kernel) {
    std::snprintf(out, capacity, "the kernel, in a call of this thread");
  } else if (function.object[0] == '\0') {
    std::snprintf(out, capacity, "code made at run time");
  } else if (function.name[0] != '\0') {
    std::snprintf(out, capacity, "%s (%s)", function.name, base_name(function.object));
  } else {
    std::snprintf(out, capacity, "%s+0x%zx", base_name(function.object), static_cast<std::size_t>(function.offset));
  }
}

struct Row {
  const realtime::FaultEntry* entry = nullptr;
  os::Function function;
  Origin origin;
};

class Explainer {
 public:
  explicit Explainer(LoopState& state) noexcept
      : log_(state.recorder.faults()), before_(state.mappings_before), count_(log_.count()),
        rows_(new (std::nothrow) Row[count_]) {
    now_.take();
  }

  // A list of tuples, by address; nullptr with an exception.
  PyObject* rows() noexcept {
    if (rows_ == nullptr) return PyErr_NoMemory();
    for (std::size_t i = 0; i < count_; ++i) rows_[i].entry = &log_.entry(i);
    find_functions();
    std::sort(rows_.get(), rows_.get() + count_,
              [](const Row& a, const Row& b) { return a.entry->address < b.entry->address; });
    for (std::size_t i = 0; i < count_; ++i) explain(rows_[i]);
    ask_neighbours();
    Reference list(PyList_New(static_cast<Py_ssize_t>(count_)));
    for (std::size_t i = 0; list && i < count_; ++i) {
      const Row& row = rows_[i];
      PyObject* tuple = Py_BuildValue("(sNNKK)", name_of(row.origin.kind), decode(row.origin.where),
                                      decode(row.origin.function), static_cast<unsigned long long>(row.entry->count),
                                      static_cast<unsigned long long>(row.entry->first));
      if (tuple == nullptr) return nullptr;
      PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), tuple);
    }
    return list.release();
  }

 private:
  static PyObject* decode(const char* text) noexcept {
    return PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "replace");
  }

  // One look-up an instruction: some go through a library's whole symbol table.
  void find_functions() noexcept {
    std::sort(rows_.get(), rows_.get() + count_,
              [](const Row& a, const Row& b) { return a.entry->instruction < b.entry->instruction; });
    for (std::size_t i = 0; i < count_; ++i) {
      const bool again = i > 0 && rows_[i].entry->instruction == rows_[i - 1].entry->instruction;
      rows_[i].function = again ? rows_[i - 1].function : os::find_function(rows_[i].entry->instruction);
    }
  }

  void explain(Row& row) noexcept {
    const std::uintptr_t address = row.entry->address;
    Origin* const origin = &row.origin;
    name_function(row.function, origin->function, sizeof origin->function);
    if (is_of_pools(reinterpret_cast<const void*>(address), origin)) return;
    const os::Place loaded = os::find_loaded(address);
    explain_mapping(loaded.region != os::Region::nothing ? loaded : now_.find(address, true), address, objects_, origin);
    if (origin->certain) return;
    if (const realtime::LateFile* const file = log_.late_file(address)) return explain_late_file(*file, origin);
    const os::Place earlier = before_.find(address, false);
    if (earlier.region != os::Region::anonymous && earlier.region != os::Region::nothing) {
      explain_mapping(earlier, address, objects_, origin);
      const std::size_t length = std::strlen(origin->where);
      std::snprintf(origin->where + length, sizeof origin->where - length, ", gone since");
      return;
    }
    explain_by_function(row.function, allocators_, address, origin);
  }

  // Memory that is gone, or has no name, is what the memory right before it is: an allocator writes at the begin of what it
  // hands out, others go on from there.
  void ask_neighbours() noexcept {
    // The first fault of an entry may lie at its end, or at the begin of the one before.
    const std::uintptr_t reach = std::max<std::uintptr_t>(2 * log_.granule(), 16384);
    for (std::size_t i = 1; i < count_; ++i) {
      const Origin& before = rows_[i - 1].origin;
      Origin& origin = rows_[i].origin;
      if (origin.certain || !before.certain || (before.kind != Kind::objects && before.kind != Kind::libc)) continue;
      if (rows_[i].entry->address - rows_[i - 1].entry->address > reach) continue;
      origin.kind = before.kind;
      origin.certain = true;
      std::memcpy(origin.where, before.where, sizeof before.where);
    }
  }

  const realtime::FaultLog& log_;
  os::Mappings& before_;
  os::Mappings now_;
  Allocators allocators_ = find_allocators();
  os::AddressRange objects_ = mapping_of_objects();
  std::size_t count_;
  std::unique_ptr<Row[]> rows_;
};

}  // namespace

// faults() -> ([(kind, where, function, count, first iteration), ...], overruns, throttled, unplaced, scope). Nothing is asked of
// the system where there were none.
PyObject* loop_faults(PyObject* object, PyObject*) {
  LoopState& state = *loop_object(object)->state;
  const realtime::Recorder& recorder = state.recorder;
  // Those of a warm-up that was cut short are not the measured iterations'.
  const bool none = recorder.faults().count() == 0 || loop_object(object)->warm_left > 0;
  Reference rows(none ? PyList_New(0) : Explainer(state).rows());
  if (!rows) return nullptr;
  const char* scope = "none";
  if (recorder.watched() == os::WatchScope::user) scope = "user";
  if (recorder.watched() == os::WatchScope::all) scope = "all";
  return Py_BuildValue("(NKKKs)", rows.release(), static_cast<unsigned long long>(recorder.overruns()),
                       static_cast<unsigned long long>(recorder.throttled()),
                       static_cast<unsigned long long>(recorder.faults().unplaced()), scope);
}

}  // namespace rtpool::binding
