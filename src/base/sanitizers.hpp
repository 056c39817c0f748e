// Which sanitizer this is compiled for: GCC and clang say so in different ways.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define RTPOOL_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__)
#define RTPOOL_THREAD_SANITIZER 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(RTPOOL_ADDRESS_SANITIZER)
#define RTPOOL_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer) && !defined(RTPOOL_THREAD_SANITIZER)
#define RTPOOL_THREAD_SANITIZER 1
#endif
#endif

#if defined(RTPOOL_ADDRESS_SANITIZER) || defined(RTPOOL_THREAD_SANITIZER)
#define RTPOOL_SANITIZED 1
#endif
