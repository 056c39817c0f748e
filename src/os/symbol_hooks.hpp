// Calls of the libraries of this process into others, led through functions of ours.
//
// A library calls a function of another one through a table that the loader fills in. Here a table's entry is replaced: from
// then on every call of that function, by whichever library, comes to the replacement, which calls the original in its
// turn. What a library calls inside of itself is not seen, nor is what makes system calls by itself.
//
// Thread rule: any thread; calls under way end as they began. Cost: a look through the tables of all loaded objects, some
// 10 us each, only when something has been loaded since the last call; no allocation.
#pragma once

#include <cstddef>

namespace rtpool::os {

struct SymbolHook {
  const char* name;
  void* replacement;
};

// Leads calls of `hooks` (the same ones in every call of a process) to their replacements, for good: in all objects loaded
// so far. errno value: ENOSYS without such tables (a static program), EACCES where some are not to be written.
int install_symbol_hooks(const SymbolHook* hooks, std::size_t count) noexcept;

}  // namespace rtpool::os
