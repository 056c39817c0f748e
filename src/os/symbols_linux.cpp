// Linux: dladdr for exported names, the ELF file's own symbol table for the others, unwind tables for where a function begins.
#include <cxxabi.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "os/mappings.hpp"
#include "os/symbols.hpp"

// libgcc's; weak, as other unwinders do not have it.
struct dwarf_eh_bases {
  void* text;
  void* data;
  void* function;
};
extern "C" const void* _Unwind_Find_FDE(void* instruction, dwarf_eh_bases* bases) __attribute__((weak));

namespace rtpool::os {
namespace {

// A file, mapped for reading.
class File {
 public:
  explicit File(const char* path) noexcept {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    struct stat status;
    if (::fstat(file, &status) == 0 && status.st_size > 0) {
      bytes_ = static_cast<std::size_t>(status.st_size);
      void* const mapped = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file, 0);
      if (mapped != MAP_FAILED) content_ = static_cast<const char*>(mapped);
    }
    ::close(file);
  }
  ~File() {
    if (content_ != nullptr) ::munmap(const_cast<char*>(content_), bytes_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // `count` values at `offset`, or nullptr where the file ends before them.
  template <class Value>
  const Value* at(std::size_t offset, std::size_t count = 1) const noexcept {
    if (content_ == nullptr || offset > bytes_ || count > (bytes_ - offset) / sizeof(Value)) return nullptr;
    return reinterpret_cast<const Value*>(content_ + offset);
  }
  // A text that ends inside of the file.
  const char* text(std::size_t offset) const noexcept {
    if (content_ == nullptr || offset >= bytes_) return nullptr;
    return std::memchr(content_ + offset, '\0', bytes_ - offset) != nullptr ? content_ + offset : nullptr;
  }

 private:
  const char* content_ = nullptr;
  std::size_t bytes_ = 0;
};

void set_name(Function* function, const char* name) noexcept {
  int status = -1;
  char* const readable = name[0] == '_' && name[1] == 'Z' ? abi::__cxa_demangle(name, nullptr, nullptr, &status) : nullptr;
  std::snprintf(function->name, sizeof function->name, "%s", status == 0 ? readable : name);
  std::free(readable);
}

// Functions written in assembler may have no size: they end before the next one. How far such a one is believed to go.
constexpr std::uintptr_t k_sizeless = 4096;

bool is_in(const ElfW(Shdr)* sections, const ElfW(Ehdr)& header, const ElfW(Sym)& symbol, std::uintptr_t value) noexcept {
  if (symbol.st_shndx == SHN_UNDEF || symbol.st_shndx >= header.e_shnum) return false;
  const ElfW(Shdr)& section = sections[symbol.st_shndx];
  return value - section.sh_addr < section.sh_size;
}

// Looks the function up in the file's symbols: all of them, or where it is stripped those that it exports. `value` as it stands there.
void search_symbol_table(const File& file, std::uintptr_t value, std::uintptr_t base, Function* function) noexcept {
  const auto* const header = file.at<ElfW(Ehdr)>(0);
  if (header == nullptr || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return;
  const auto* const sections = file.at<ElfW(Shdr)>(header->e_shoff, header->e_shnum);
  if (sections == nullptr || header->e_shentsize != sizeof(ElfW(Shdr))) return;
  for (std::size_t i = 0; i < header->e_shnum; ++i) {
    const ElfW(Shdr)& section = sections[i];
    if ((section.sh_type != SHT_SYMTAB && section.sh_type != SHT_DYNSYM) || section.sh_link >= header->e_shnum) continue;
    const std::size_t count = section.sh_size / sizeof(ElfW(Sym));
    const auto* const symbols = file.at<ElfW(Sym)>(section.sh_offset, count);
    if (symbols == nullptr) continue;
    const ElfW(Sym)* found = nullptr;
    for (std::size_t s = 0; s < count; ++s) {
      const ElfW(Sym)& symbol = symbols[s];
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value > value || !is_in(sections, *header, symbol, value)) continue;
      if (value - symbol.st_value < symbol.st_size) {
        found = &symbol;
        break;
      }
      if (found == nullptr || symbol.st_value > found->st_value) found = &symbol;
    }
    if (found == nullptr) continue;
    const std::uintptr_t into = value - found->st_value;
    if (found->st_size != 0 ? into >= found->st_size : into >= k_sizeless || function->begin != 0) continue;
    const char* const name = file.text(sections[section.sh_link].sh_offset + found->st_name);
    if (name == nullptr) continue;
    set_name(function, name);
    function->begin = base + found->st_value;
    return;
  }
}

// Where a function begins, by the unwinder's tables; 0 where they do not say.
std::uintptr_t begin_of(std::uintptr_t instruction) noexcept {
  dwarf_eh_bases bases{};
  if (_Unwind_Find_FDE == nullptr || _Unwind_Find_FDE(reinterpret_cast<void*>(instruction), &bases) == nullptr) return 0;
  return reinterpret_cast<std::uintptr_t>(bases.function);
}

// libc chooses among several bodies of these when it is loaded and exports the chooser's name only.
void search_chosen(std::uintptr_t instruction, Function* function) noexcept {
  for (const char* const name : {"memcpy", "memmove", "memset", "memchr", "memcmp", "strlen", "strcpy", "strchr", "strcmp"}) {
    const auto chosen = reinterpret_cast<std::uintptr_t>(::dlsym(RTLD_DEFAULT, name));
    if (chosen == 0 || chosen > instruction || begin_of(chosen) != function->begin) continue;
    set_name(function, name);
    return;
  }
}

void search_exported(std::uintptr_t instruction, Function* function) noexcept {
  Dl_info info;
  void* const address = reinterpret_cast<void*>(instruction);
#if defined(__GLIBC__)
  void* entry = nullptr;
  if (::dladdr1(address, &info, &entry, RTLD_DL_SYMENT) == 0) return;
  const auto* const symbol = static_cast<const ElfW(Sym)*>(entry);
  const bool inside = symbol != nullptr && info.dli_saddr != nullptr &&
                      instruction - reinterpret_cast<std::uintptr_t>(info.dli_saddr) < symbol->st_size;
#else
  // The nearest exported name may be another function's: it is right if the function begins where the name points.
  if (::dladdr(address, &info) == 0) return;
  const bool inside = reinterpret_cast<std::uintptr_t>(info.dli_saddr) == function->begin;
#endif
  if (!inside || info.dli_sname == nullptr) return;
  set_name(function, info.dli_sname);
  function->begin = reinterpret_cast<std::uintptr_t>(info.dli_saddr);
}

}  // namespace

Function find_function(std::uintptr_t instruction) noexcept {
  const int saved = errno;
  Function function;
  // The kernel's half of the address space.
  if (static_cast<std::intptr_t>(instruction) < 0) {
    function.kernel = true;
    return function;
  }
  const Place object = find_loaded(instruction);
  if (object.region == Region::nothing) return function;
  function.offset = instruction - object.base;
  std::memcpy(function.object, object.name, sizeof function.object);
  function.begin = begin_of(instruction);
  search_exported(instruction, &function);
  if (function.name[0] == '\0' && function.begin != 0) search_chosen(instruction, &function);
  if (function.name[0] == '\0') {
    search_symbol_table(File(function.object), function.offset, object.base, &function);
  }
  errno = saved;
  return function;
}

}  // namespace rtpool::os
