// How a thread-local variable of ours is reached: by one instruction where that can be had.
//
// glibc keeps some static thread-local storage for libraries that are loaded while the program runs; musl keeps none and refuses
// to load a library that asks for it. There the variable is reached by a call into the dynamic linker.
#pragma once

#include <features.h>

#ifdef __GLIBC__
#define RTPOOL_THREAD_LOCAL __attribute__((tls_model("initial-exec")))
#else
#define RTPOOL_THREAD_LOCAL
#endif
