// Places where a process may be killed: between any two stores into the segment that belong together.
//
// Tests set `step_hook` and end the process there; otherwise a step is one load and a branch not taken. Steps stand on
// slow paths only. Thread rule: the hook is set while one thread runs.
#pragma once

namespace rtpool::shared {

enum class Step : unsigned char {
  join_claimed, join_written, fork_reserved,
  claim_part, claim_whole, release_part, idle_stolen, steal_part, steal_whole,
  share_claimed, share_written, share_published,
  acquire_marked, acquire_confirmed, ticket_added, ticket_taken,
  drop_cleared, close_begun, close_decided, close_done, return_pushed, return_drained, return_taken,
  run_lent, lent_marked, lent_settled, borrow_marked, borrow_taken, waiting_freed,
  recovery_locked, recovery_refused, recovery_marked, recovery_bits, recovery_records, recovery_granules, recovery_freed,
  count,
};

inline void (*step_hook)(Step) = nullptr;

inline void step(Step at) noexcept {
  if (step_hook != nullptr) [[unlikely]] step_hook(at);
}

}  // namespace rtpool::shared
