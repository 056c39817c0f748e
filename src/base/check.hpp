// Checks in four levels, chosen at build time by RTPOOL_CHECK_LEVEL (meson option `check_level`).
//
//   level 0  nothing.
//   level 1  RTPOOL_CHECK     what a caller can get wrong; cheap enough for release builds.
//   level 2  RTPOOL_ASSERT    internal invariants, O(1) each; debug and sanitizer builds.
//   level 3  RTPOOL_VALIDATE  statements that walk whole structures; tests only.
//
// A failed check writes one line to standard error and aborts: it is a defect of rtpool itself, never of its input.
// Misuse by callers (a foreign or doubly freed pointer) is not a check: it is reported by `pool::Pool` and survived.
#pragma once

namespace rtpool::base {

// Writes "rtpool: FILE:LINE: check failed: TEXT" to standard error with write(2) and aborts. Async-signal-safe.
[[noreturn]] void check_failed(const char* file, int line, const char* text) noexcept;

// Writes "rtpool: TEXT\n" to standard error in one write(2); truncates at 500 bytes. Async-signal-safe, never allocates.
void report_line(const char* format, ...) noexcept __attribute__((format(printf, 1, 2)));

}  // namespace rtpool::base

#ifndef RTPOOL_CHECK_LEVEL
#define RTPOOL_CHECK_LEVEL 1
#endif

#define RTPOOL_CHECK_IMPL_(cond) ((cond) ? (void)0 : ::rtpool::base::check_failed(__FILE__, __LINE__, #cond))
#define RTPOOL_CHECK_NOTHING_(cond) ((void)sizeof(!(cond)))

#if RTPOOL_CHECK_LEVEL >= 1
#define RTPOOL_CHECK(cond) RTPOOL_CHECK_IMPL_(cond)
#else
#define RTPOOL_CHECK(cond) RTPOOL_CHECK_NOTHING_(cond)
#endif
#if RTPOOL_CHECK_LEVEL >= 2
#define RTPOOL_ASSERT(cond) RTPOOL_CHECK_IMPL_(cond)
#else
#define RTPOOL_ASSERT(cond) RTPOOL_CHECK_NOTHING_(cond)
#endif
#if RTPOOL_CHECK_LEVEL >= 3
#define RTPOOL_VALIDATE(...) __VA_ARGS__
#else
#define RTPOOL_VALIDATE(...)
#endif
