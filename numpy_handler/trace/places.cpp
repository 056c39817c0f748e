#include "numpy_handler/trace/places.hpp"

#include <atomic>
#include <cstring>
#include <initializer_list>
#include <mutex>

#include "base/bits.hpp"
#include "numpy_handler/support/code_text.hpp"
#include "numpy_handler/support/frames.hpp"
#include "os/priority_lock.hpp"
#include "trace/recorder.hpp"

namespace rtpool::binding {
namespace {

constexpr std::size_t k_longest_file = 1024;
constexpr std::size_t k_longest_name = 256;
constexpr int k_whole_code = -2;  // as an instruction: the code object itself

struct Place {
  PyCodeObject* code;  // a reference
  std::int32_t instruction;
  std::uint32_t code_number;
  bool library;  // NumPy's or ours: passed over for the line that called it
};

struct Stack {
  std::uint32_t outer;
  std::uint32_t place;
};

using Index = std::atomic<std::uint32_t>;  // number + 1, 0: empty; open addressing, at most half full
constexpr std::uint32_t k_place_slots = Places::k_most_places * 2;
constexpr std::uint32_t k_stack_slots = Places::k_most_stacks * 2;

// In one piece of memory, resident from the start.
struct Tables {
  Index place_index[k_place_slots];
  Place places[Places::k_most_places];
};
struct StackTables {
  Index stack_index[k_stack_slots];
  Stack stacks[Places::k_most_stacks];
};

Places g_places;
Stacks g_stacks = Stacks::none;
Tables* g_tables = nullptr;
StackTables* g_stack_tables = nullptr;
std::uint32_t g_place_count = 0;
std::uint32_t g_code_count = 0;
std::uint32_t g_stack_count = 0;
std::atomic<std::uint64_t> g_unkept{0};
os::PriorityLock g_lock;  // of what adds; looking up takes none

// The last stack of a thread, outermost first: most of it is still so at the next event.
struct LastStack {
  std::uint64_t recording;
  unsigned depth;
  struct {
    PyCodeObject* code;
    std::int32_t instruction;
    std::uint32_t stack;
  } frames[Places::k_most_frames];
};

// Thread-local storage is scarce (the module's lies in the reserve for start-up), so it only holds which of these is the
// thread's. With the GIL any of them is as good; without it, a thread for which there is none goes without.
constexpr std::uint32_t k_last_stacks = 256;
constinit LastStack g_last[k_last_stacks] = {};
std::atomic<std::uint32_t> g_last_count{0};
thread_local constinit std::uint32_t t_last = 0;  // from 1

LastStack* last_stack() noexcept {
  if (t_last == 0) t_last = g_last_count.fetch_add(1, std::memory_order_relaxed) % (1U << 30) + 1;
#ifdef Py_GIL_DISABLED
  return t_last <= k_last_stacks ? &g_last[t_last - 1] : nullptr;
#else
  return &g_last[(t_last - 1) % k_last_stacks];
#endif
}

std::uint32_t hash_of(const void* code, std::int32_t instruction) noexcept {
  const std::uint64_t mixed = (reinterpret_cast<std::uintptr_t>(code) >> 4) * 0x9E3779B97F4A7C15ULL +
                              static_cast<std::uint32_t>(instruction) * 0xC2B2AE3D27D4EB4FULL;
  return static_cast<std::uint32_t>(mixed >> 32);
}

// 0: not there.
std::uint32_t find_place(PyCodeObject* code, std::int32_t instruction) noexcept {
  for (std::uint32_t at = hash_of(code, instruction) & (k_place_slots - 1);; at = (at + 1) & (k_place_slots - 1)) {
    const std::uint32_t entry = g_tables->place_index[at].load(std::memory_order_acquire);
    if (entry == 0) return 0;
    const Place& place = g_tables->places[entry - 1];
    if (place.code == code && place.instruction == instruction) return entry - 1;
  }
}

std::uint32_t enter_place(const Place& place) noexcept {
  const std::uint32_t number = g_place_count++;
  g_tables->places[number] = place;
  std::uint32_t at = hash_of(place.code, place.instruction) & (k_place_slots - 1);
  while (g_tables->place_index[at].load(std::memory_order_relaxed) != 0) at = (at + 1) & (k_place_slots - 1);
  g_tables->place_index[at].store(number + 1, std::memory_order_release);
  return number;
}

std::uint8_t* put_text(std::uint8_t* at, PyObject* text, std::size_t room) noexcept {
  char copy[k_longest_file];
  const std::size_t length = copy_text(text, copy, room < sizeof copy ? room : sizeof copy);
  at = trace::put_varint(at, length);
  std::memcpy(at, copy, length);
  return at + length;
}

PyObject* name_of(PyCodeObject* code) noexcept {
#if PY_VERSION_HEX >= 0x030B0000
  return code->co_qualname;
#else
  return code->co_name;
#endif
}

// The entry of a code object, made at the first of its places. 0: no room.
std::uint32_t code_entry(PyCodeObject* code) noexcept {
  if (const std::uint32_t known = find_place(code, k_whole_code); known != 0) return known;
  std::uint8_t item[1 + 4 * trace::k_longest_varint + k_longest_file + k_longest_name];
  const std::uint32_t number = g_code_count + 1;
  std::uint8_t* at = item;
  *at++ = trace::k_code_item;
  at = trace::put_varint(at, number);
  at = trace::put_varint(at, static_cast<std::uint64_t>(code->co_firstlineno < 0 ? 0 : code->co_firstlineno));
  at = put_text(at, code->co_filename, k_longest_file);
  at = put_text(at, name_of(code), k_longest_name);
  if (!trace::recorder().add_names(item, static_cast<std::size_t>(at - item), false)) return 0;
  g_code_count = number;
  char file[k_longest_file];
  const bool library = is_library_file(file, copy_text(code->co_filename, file, sizeof file));
  Py_INCREF(code);
  return enter_place({code, k_whole_code, number, library});
}

void locate(PyCodeObject* code, int instruction, PlaceInfo* info) noexcept {
  info->code = code;
  info->instruction = instruction;
#if PY_VERSION_HEX >= 0x030B0000
  if (PyCode_Addr2Location(code, instruction, &info->line, &info->column, &info->end_line, &info->end_column) == 0) info->line = 0;
#else
  info->line = PyCode_Addr2Line(code, instruction);
  info->end_line = info->line;
#endif
  if (info->line < 0) info->line = 0;
  if (info->end_line < info->line) info->end_line = info->line;
}

[[gnu::noinline]] std::uint32_t add_place(PyCodeObject* code, std::int32_t instruction) noexcept {
  const std::lock_guard guard(g_lock);
  if (const std::uint32_t known = find_place(code, instruction); known != 0) return known;
  const std::uint32_t whole = g_place_count + 2 <= Places::k_most_places ? code_entry(code) : 0;
  if (whole != 0) {
    PlaceInfo info;
    locate(code, instruction, &info);
    const Place& of_code = g_tables->places[whole];
    std::uint8_t item[1 + 7 * trace::k_longest_varint];
    std::uint8_t* at = item;
    *at++ = trace::k_place_item;
    at = trace::put_varint(at, g_place_count);
    at = trace::put_varint(at, of_code.code_number);
    for (const int value : {instruction, info.line, info.end_line, info.column + 1, info.end_column + 1}) {
      at = trace::put_varint(at, static_cast<std::uint64_t>(value < 0 ? 0 : value));
    }
    if (trace::recorder().add_names(item, static_cast<std::size_t>(at - item), false)) {
      Py_INCREF(code);
      return enter_place({code, instruction, of_code.code_number, of_code.library});
    }
  }
  g_unkept.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

std::uint32_t place_of(PyCodeObject* code, std::int32_t instruction) noexcept {
  const std::uint32_t known = find_place(code, instruction);
  return RTPOOL_LIKELY(known != 0) ? known : add_place(code, instruction);
}

// The line of the program: the innermost frame that is neither NumPy's nor ours; the innermost of all if there is none.
std::uint32_t site(PyThreadState* thread) noexcept {
  std::uint32_t innermost = 0;
  unsigned depth = 0;
  for (FrameView::Raw* frame = FrameView::innermost(thread); frame != nullptr && depth < Places::k_most_frames;
       frame = FrameView::outer(frame)) {
    PyCodeObject* const code = FrameView::code(frame);
    const int instruction = code != nullptr ? FrameView::instruction(frame) : -1;
    if (instruction < 0) continue;
    const std::uint32_t place = place_of(code, instruction);
    if (RTPOOL_LIKELY(place != 0 && !g_tables->places[place].library)) return place;
    if (innermost == 0) innermost = place;
    ++depth;
  }
  return innermost;
}

std::uint32_t stack_hash(std::uint32_t outer, std::uint32_t place) noexcept {
  return static_cast<std::uint32_t>((std::uint64_t{outer} << 32 | place) * 0x9E3779B97F4A7C15ULL >> 32);
}

std::uint32_t stack_of(std::uint32_t outer, std::uint32_t place) noexcept {
  const auto find = [&]() noexcept -> std::uint32_t {
    for (std::uint32_t at = stack_hash(outer, place) & (k_stack_slots - 1);; at = (at + 1) & (k_stack_slots - 1)) {
      const std::uint32_t entry = g_stack_tables->stack_index[at].load(std::memory_order_acquire);
      if (entry == 0) return 0;
      const Stack& stack = g_stack_tables->stacks[entry - 1];
      if (stack.outer == outer && stack.place == place) return entry - 1;
    }
  };
  if (const std::uint32_t known = find(); known != 0) return known;
  const std::lock_guard guard(g_lock);
  if (const std::uint32_t known = find(); known != 0) return known;
  const std::uint32_t number = g_stack_count;
  std::uint8_t item[1 + 3 * trace::k_longest_varint];
  item[0] = trace::k_stack_item;
  std::uint8_t* const end = trace::put_varint(trace::put_varint(trace::put_varint(item + 1, number), outer), place);
  if (number == Places::k_most_stacks || !trace::recorder().add_names(item, static_cast<std::size_t>(end - item), false)) {
    g_unkept.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }
  ++g_stack_count;
  g_stack_tables->stacks[number] = {outer, place};
  std::uint32_t at = stack_hash(outer, place) & (k_stack_slots - 1);
  while (g_stack_tables->stack_index[at].load(std::memory_order_relaxed) != 0) at = (at + 1) & (k_stack_slots - 1);
  g_stack_tables->stack_index[at].store(number + 1, std::memory_order_release);
  return number;
}

// For a free: the site alone, as a stack of one.
std::uint32_t site_stack(PyThreadState* thread) noexcept {
  const std::uint32_t place = site(thread);
  return place != 0 ? stack_of(0, place) : 0;
}

std::uint32_t whole_stack(PyThreadState* thread) noexcept {
  struct Step {
    PyCodeObject* code;
    std::int32_t instruction;
  };
  Step steps[Places::k_most_frames];
  unsigned depth = 0;
  for (FrameView::Raw* frame = FrameView::innermost(thread); frame != nullptr && depth < Places::k_most_frames;
       frame = FrameView::outer(frame)) {
    PyCodeObject* const code = FrameView::code(frame);
    const int instruction = code != nullptr ? FrameView::instruction(frame) : -1;
    if (instruction >= 0) steps[depth++] = {code, instruction};
  }
  LastStack none;
  LastStack* const kept = last_stack();
  LastStack& last = kept != nullptr ? *kept : none;
  if (kept == nullptr) none.depth = 0;
  const std::uint64_t recording = trace::recorder().number();
  if (last.recording != recording) last.depth = 0;
  last.recording = recording;
  unsigned same = 0;
  while (same < depth && same < last.depth && last.frames[same].code == steps[depth - 1 - same].code &&
         last.frames[same].instruction == steps[depth - 1 - same].instruction) {
    ++same;
  }
  std::uint32_t stack = same == 0 ? 0 : last.frames[same - 1].stack;
  for (unsigned at = same; at < depth; ++at) {
    const Step& step = steps[depth - 1 - at];
    const std::uint32_t place = place_of(step.code, step.instruction);
    const std::uint32_t inner = place != 0 ? stack_of(stack, place) : 0;
    if (inner == 0) return stack;  // no room: as far as it goes
    stack = inner;
    last.frames[at] = {step.code, step.instruction, stack};
    last.depth = at + 1;
  }
  last.depth = depth;
  return stack;
}

template <class T>
constexpr std::size_t table_bytes() noexcept {
  return base::align_up(sizeof(T), os::k_largest_kernel_page);
}

template <class T>
int make_table(T** table) noexcept {
  os::Memory& memory = os::memory();
  const std::size_t bytes = table_bytes<T>();
  if (*table != nullptr) return memory.prefault(*table, bytes);
  void* address = nullptr;
  if (const int error = os::reserve_resident(memory, bytes, &address); error != 0) return error;
  *table = static_cast<T*>(address);
  return 0;
}

// The addresses stay: a thread of a free-threaded Python may still be looking, and finds nothing.
template <class T>
void empty_table(T* table) noexcept {
  if (table != nullptr) (void)os::memory().discard(table, table_bytes<T>(), false);
}

}  // namespace

Places& places() noexcept { return g_places; }
std::uint32_t where_am_i(bool allocates) noexcept { return g_places.here(allocates); }

int Places::begin(Stacks stacks) noexcept {
  end();
  g_stacks = stacks;
  if (stacks == Stacks::none) return 0;
  if (const int error = make_table(&g_tables); error != 0) return error;
  if (stacks == Stacks::full) {
    if (const int error = make_table(&g_stack_tables); error != 0) return error;
  }
  g_place_count = g_stack_count = 1;  // number 0 is nowhere
  g_code_count = 0;
  g_unkept.store(0, std::memory_order_relaxed);
  return 0;
}

void Places::end() noexcept {
  g_stacks = Stacks::none;
  if (g_tables != nullptr) {
    for (std::uint32_t i = 1; i < g_place_count; ++i) Py_DECREF(g_tables->places[i].code);
  }
  empty_table(g_tables);
  empty_table(g_stack_tables);
  g_place_count = g_stack_count = 0;
}

void Places::reset_after_fork() noexcept {
  g_lock.reset_after_fork();
  g_stacks = Stacks::none;
}

std::uint32_t Places::here(bool allocates) noexcept {
  const Stacks stacks = g_stacks;
  if (stacks == Stacks::none) return 0;
  PyThreadState* const thread = attached_thread();
  if (thread == nullptr || is_finalizing()) return 0;
  if (stacks == Stacks::site) return site(thread);
  return allocates ? whole_stack(thread) : site_stack(thread);
}

bool Places::describe(std::uint32_t number, PlaceInfo* info) const noexcept {
  if (g_stacks == Stacks::full) {
    if (number >= g_stack_count) return false;
    number = g_stack_tables->stacks[number].place;
  }
  if (g_tables == nullptr || number == 0 || number >= g_place_count) return false;
  const Place& place = g_tables->places[number];
  locate(place.code, place.instruction, info);
  return true;
}

std::uint64_t Places::unkept() const noexcept { return g_unkept.load(std::memory_order_relaxed); }

}  // namespace rtpool::binding
