#include "pool/refusal.hpp"

namespace rtpool::pool {
namespace {

thread_local constinit Refusal t_refusal;

}  // namespace

void note_refusal(const void* pool, std::size_t size) noexcept { t_refusal = {pool, size}; }

Refusal take_refusal() noexcept {
  const Refusal last = t_refusal;
  t_refusal = {};
  return last;
}

}  // namespace rtpool::pool
