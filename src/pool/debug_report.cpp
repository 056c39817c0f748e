// What the debug layer tells the user: texts only.
#include <cstdio>
#include <cstdlib>

#include "base/report.hpp"
#include "pool/debug_layer.hpp"
#include "pool/pool_impl.hpp"

namespace rtpool::pool {
namespace {

void tell_block(base::Report& report, const DebugBlock& record) noexcept {
  report.line("  block     %p, %zu bytes, number %llu of the pool%s", static_cast<const void*>(record.block), record.size,
              static_cast<unsigned long long>(record.number), record.fallback ? ", memory of the default allocator" : "");
}

void tell_sites(base::Report& report, const DebugBlock& record, const CallSites& sites) noexcept {
  report.line("  made at   %s", sites.text(record.made_at));
  if (record.freed()) report.line("  freed at  %s", sites.text(record.freed_at));
}

}  // namespace

void DebugLayer::name_pool(char* text, std::size_t capacity) const noexcept {
  const char* const name = pool_.options_.name;
  const auto id = static_cast<unsigned long long>(pool_.store_.view().id);
  if (name[0] != '\0') {
    std::snprintf(text, capacity, "pool '%s' #%llu", name, id);
  } else {
    std::snprintf(text, capacity, "pool #%llu", id);
  }
}

void DebugLayer::end_if_strict() noexcept {
  if (pool_.options_.strict) std::abort();
}

void DebugLayer::report_damage(const DebugBlock& record, const Damage& damage, Found found) noexcept {
  pool_.misuses_.fetch_add(1, std::memory_order_relaxed);
  char name[k_name_capacity + 40];
  name_pool(name, sizeof name);
  base::Report report;
  const auto bytes = static_cast<std::size_t>(damage.last - damage.first) + 1;
  const char* const when = found == Found::while_freed      ? "found when it was freed"
                           : found == Found::while_recycled ? "found when its memory was to be used again"
                                                            : "found by a check";
  if (damage.first >= record.end()) {
    report.line("%s: OVERRUN: written past the end of a block, %s", name, when);
    report.line("  written   %zu bytes, from %zd bytes past its end", bytes, damage.first - record.end());
  } else if (damage.first < record.block) {
    report.line("%s: UNDERRUN: written before the begin of a block, %s", name, when);
    report.line("  written   %zu bytes, from %zd bytes before its begin", bytes, record.block - damage.first);
  } else {
    report.line("%s: USE AFTER FREE: written to a block after it was freed, %s", name, when);
    report.line("  written   %zu bytes, from %zd bytes into it", bytes, damage.first - record.block);
  }
  char text[3 * 16 + 1];
  std::size_t used = 0;
  for (const char* at = damage.first; at <= damage.last && used + 3 < sizeof text; ++at) {
    used += static_cast<std::size_t>(std::snprintf(text + used, sizeof text - used, "%02x ", static_cast<unsigned char>(*at)));
  }
  report.line("  bytes     %s%s", text, bytes > 16 ? "..." : "");
  tell_block(report, record);
  report.line("  made at   %s", sites_.text(record.made_at));
  if (record.state != DebugState::live) report.line("  freed at  %s", sites_.text(record.freed_at));
  report.write();
}

void DebugLayer::report_misuse(const void* pointer, const DebugBlock* record, const char* call, const Place& place) noexcept {
  pool_.misuses_.fetch_add(1, std::memory_order_relaxed);
  char name[k_name_capacity + 40];
  name_pool(name, sizeof name);
  base::Report report;
  const bool exact = record != nullptr && record->block == pointer;
  if (exact && record->freed()) {
    report.line("%s: DOUBLE FREE: %s(%p): the block is freed already", name, call, pointer);
  } else if (record != nullptr) {
    report.line("%s: WRONG POINTER: %s(%p): not the start of a block but %zd bytes from it", name, call, pointer,
                static_cast<const char*>(pointer) - record->block);
  } else if (pool_.contains(pointer)) {
    report.line("%s: FOREIGN FREE: %s(%p): no block of the pool by now (freed long ago?)", name, call, pointer);
  } else {
    report.line("%s: FOREIGN FREE: %s(%p): not memory of this pool (allocated elsewhere?)", name, call, pointer);
  }
  if (record != nullptr) {
    tell_block(report, *record);
    tell_sites(report, *record, sites_);
  }
  report.line("  now at    %.*s", place.length != 0 ? static_cast<int>(place.length) : 17,
              place.length != 0 ? place.text : "(no Python frame)");
  if (!pool_.options_.strict) report.line("  ignored");
  report.write();
  end_if_strict();
}

void DebugLayer::report_size(const DebugBlock& record, std::size_t claimed, const Place& place) noexcept {
  pool_.misuses_.fetch_add(1, std::memory_order_relaxed);
  char name[k_name_capacity + 40];
  name_pool(name, sizeof name);
  base::Report report;
  report.line("%s: WRONG SIZE: free(%p, %zu): the block was asked for with %zu bytes", name,
              static_cast<const void*>(record.block), claimed, record.size);
  tell_block(report, record);
  tell_sites(report, record, sites_);
  report.line("  now at    %.*s", place.length != 0 ? static_cast<int>(place.length) : 17,
              place.length != 0 ? place.text : "(no Python frame)");
  if (!pool_.options_.strict) report.line("  freed all the same");
  report.write();
  end_if_strict();
}

void DebugLayer::explain_fault(const void* address) noexcept {
  // The thread that faulted is in the user's code, but another one may hold the lock, and this is a signal handler.
  bool locked = false;
  for (int i = 0; i < 1000 && !locked; ++i) locked = lock_.try_lock();
  if (!locked) return;
  const DebugBlock* const record = blocks_.near(address);
  char name[k_name_capacity + 40];
  name_pool(name, sizeof name);
  base::Report report;
  const auto* const at = static_cast<const char*>(address);
  if (record == nullptr) {
    report.line("%s: INVALID ACCESS at %p: no block of the pool is there", name, address);
  } else {
    if (record->freed()) {
      report.line("%s: USE AFTER FREE: access %zd bytes into a block after it was freed", name, at - record->block);
    } else if (at >= record->end()) {
      report.line("%s: OVERRUN: access %zd bytes past the end of a block", name, at - record->end());
    } else {
      report.line("%s: INVALID ACCESS at %p", name, address);
    }
    tell_block(report, *record);
    tell_sites(report, *record, sites_);
  }
  report.line("  the process gets SIGSEGV; python -X faulthandler shows the line that made the access");
  report.write();
  lock_.unlock();
}

}  // namespace rtpool::pool
