// The pool under measurement: one with the options of the default pool, which grows on demand, prefaults, and takes transparent
// huge pages.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "pool/pool.hpp"

namespace rtpool::bench {

// Ends the process with a line of text when it cannot be made.
inline pool::Pool* make_own_pool() {
  const pool::CreateResult made = pool::Pool::create(pool::Options{});
  if (made.pool == nullptr) {
    std::fprintf(stderr, "core_bench: cannot create the pool: %s\n", std::strerror(made.error));
    std::exit(1);
  }
  return made.pool;
}

}  // namespace rtpool::bench
