// Linux: the relocations of ELF objects, as dl_iterate_phdr shows them.
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "os/symbol_hooks.hpp"

namespace rtpool::os {
namespace {

// The two kinds of relocation by which a table's entry gets a function's address.
#if defined(__x86_64__)
constexpr unsigned long k_jump_slot = R_X86_64_JUMP_SLOT;
constexpr unsigned long k_global = R_X86_64_GLOB_DAT;
#elif defined(__aarch64__)
constexpr unsigned long k_jump_slot = R_AARCH64_JUMP_SLOT;
constexpr unsigned long k_global = R_AARCH64_GLOB_DAT;
#else
#define RTPOOL_NO_SYMBOL_HOOKS 1
#endif

#ifndef RTPOOL_NO_SYMBOL_HOOKS

struct Relocations {
  const ElfW(Rela)* items = nullptr;
  std::size_t bytes = 0;
};

// What an object's dynamic section says of its tables.
struct Tables {
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  Relocations calls;
  Relocations others;
  std::size_t relative = 0;  // so many of `others` come first and name no symbol
  // Written by the loader once and closed then.
  std::uintptr_t closed_begin = 0;
  std::uintptr_t closed_end = 0;
};

struct SlotSearch {
  const SymbolHook* hooks;
  std::size_t count;
  std::uint64_t seen;    // objects ever loaded, at the last complete search
  std::uint64_t loaded;  // and now
  std::size_t objects;
  int error;
};

std::uintptr_t page_bytes() noexcept {
  static const auto bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

// glibc has made these addresses absolute, other libcs leave them relative to the object.
template <typename T>
const T* at(const dl_phdr_info& object, ElfW(Addr) address) noexcept {
  return reinterpret_cast<const T*>(address < object.dlpi_addr ? object.dlpi_addr + address : address);
}

bool read_tables(const dl_phdr_info& object, Tables* out) noexcept {
  const ElfW(Dyn)* entry = nullptr;
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = object.dlpi_phdr[i];
    const std::uintptr_t begin = object.dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_DYNAMIC) entry = reinterpret_cast<const ElfW(Dyn)*>(begin);
    if (header.p_type == PT_GNU_RELRO) {
      out->closed_begin = begin & ~(page_bytes() - 1);
      out->closed_end = (begin + header.p_memsz) & ~(page_bytes() - 1);
    }
  }
  if (entry == nullptr) return false;
  bool with_addends = true;
  for (; entry->d_tag != DT_NULL; ++entry) {
    switch (entry->d_tag) {
      case DT_SYMTAB: out->symbols = at<ElfW(Sym)>(object, entry->d_un.d_ptr); break;
      case DT_STRTAB: out->names = at<char>(object, entry->d_un.d_ptr); break;
      case DT_JMPREL: out->calls.items = at<ElfW(Rela)>(object, entry->d_un.d_ptr); break;
      case DT_PLTRELSZ: out->calls.bytes = entry->d_un.d_val; break;
      case DT_PLTREL: with_addends = entry->d_un.d_val == DT_RELA; break;
      case DT_RELA: out->others.items = at<ElfW(Rela)>(object, entry->d_un.d_ptr); break;
      case DT_RELASZ: out->others.bytes = entry->d_un.d_val; break;
      case DT_RELACOUNT: out->relative = entry->d_un.d_val; break;
      default: break;
    }
  }
  return with_addends && out->symbols != nullptr && out->names != nullptr;
}

int write_slot(const Tables& tables, std::uintptr_t address, void* value) noexcept {
  const std::uintptr_t page = address & ~(page_bytes() - 1);
  void* const start = reinterpret_cast<void*>(page);
  const bool closed = tables.closed_begin <= address && address < tables.closed_end;
  if (closed && ::mprotect(start, page_bytes(), PROT_READ | PROT_WRITE) != 0) return errno;
  std::atomic_ref<void*>(*reinterpret_cast<void**>(address)).store(value, std::memory_order_release);
  return closed && ::mprotect(start, page_bytes(), PROT_READ) != 0 ? errno : 0;
}

void redirect(const dl_phdr_info& object, const Tables& tables, const Relocations& relocations, std::size_t first,
              SlotSearch* search) noexcept {
  if (relocations.items == nullptr) return;
  for (std::size_t i = first; i < relocations.bytes / sizeof(ElfW(Rela)); ++i) {
    const ElfW(Rela)& relocation = relocations.items[i];
    const unsigned long kind = ELF64_R_TYPE(relocation.r_info);
    if (kind != k_jump_slot && kind != k_global) continue;
    const ElfW(Sym)& symbol = tables.symbols[ELF64_R_SYM(relocation.r_info)];
    // An object's own function is its own affair: libc's, or an interceptor's.
    if (symbol.st_shndx != SHN_UNDEF) continue;
    const char* const name = tables.names + symbol.st_name;
    for (std::size_t h = 0; h < search->count; ++h) {
      const SymbolHook& hook = search->hooks[h];
      if (std::strcmp(name, hook.name) != 0) continue;
      const std::uintptr_t slot = object.dlpi_addr + relocation.r_offset;
      if (*reinterpret_cast<void* const*>(slot) == hook.replacement) break;
      const int error = write_slot(tables, slot, hook.replacement);
      if (search->error == 0) search->error = error;
      break;
    }
  }
}

int visit(dl_phdr_info* object, std::size_t size, void* context) noexcept {
  auto* const search = static_cast<SlotSearch*>(context);
  if (size >= offsetof(dl_phdr_info, dlpi_subs)) {
    search->loaded = object->dlpi_adds;
    if (search->loaded == search->seen) return 1;
  }
  Tables tables;
  if (!read_tables(*object, &tables)) return 0;
  ++search->objects;
  redirect(*object, tables, tables.calls, 0, search);
  redirect(*object, tables, tables.others, tables.relative, search);
  return 0;
}

// Objects loaded when all of them had last been looked at.
std::atomic<std::uint64_t> g_seen{0};

#endif

}  // namespace

int install_symbol_hooks(const SymbolHook* hooks, std::size_t count) noexcept {
#ifdef RTPOOL_NO_SYMBOL_HOOKS
  (void)hooks, (void)count;
  return ENOSYS;
#else
  SlotSearch search{hooks, count, g_seen.load(std::memory_order_relaxed), 0, 0, 0};
  // The loader lets one thread at a time through its list.
  ::dl_iterate_phdr(visit, &search);
  if (search.seen != 0 && search.loaded == search.seen) return 0;
  if (search.error == 0 && search.objects == 0) search.error = ENOSYS;
  if (search.error == 0) g_seen.store(search.loaded, std::memory_order_relaxed);
  return search.error;
#endif
}

}  // namespace rtpool::os
